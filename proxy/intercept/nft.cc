// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/nft.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::seconds kNftDeadline{10};
constexpr size_t kMaxOutput = 8U << 20U;

// One end of a pipe.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  void Close() {
    if (fd_ >= 0) {
      close(fd_);
    }
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read, write;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "making a pipe for nft");
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

absl::StatusOr<std::string> FindNft() {
  for (const char* path : {"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"}) {
    if (access(path, X_OK) == 0) {
      return std::string(path);
    }
  }
  return absl::NotFoundError(
      "the nft program is in none of /usr/sbin, /sbin and /usr/bin; install the package nftables");
}

// The child's process and our ends of its three pipes.
struct Child {
  pid_t pid = -1;
  Descriptor input, output, error;
};

absl::StatusOr<Child> Spawn(const std::string& program, const std::vector<std::string>& arguments) {
  absl::StatusOr<Pipe> in = MakePipe();
  if (!in.ok()) {
    return in.status();
  }
  absl::StatusOr<Pipe> out = MakePipe();
  if (!out.ok()) {
    return out.status();
  }
  absl::StatusOr<Pipe> err = MakePipe();
  if (!err.ok()) {
    return err.status();
  }

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in->read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out->write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err->write.get(), STDERR_FILENO);

  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::string locale = "LC_ALL=C";  // its messages are looked into
  std::array<char*, 2> environment = {locale.data(), nullptr};

  Child child;
  const int failed =
      posix_spawn(&child.pid, program.c_str(), &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    return absl::ErrnoToStatus(failed, base::StrCat("starting ", program));
  }
  child.input = std::move(in->write);
  child.output = std::move(out->read);
  child.error = std::move(err->read);
  return child;
}

// Appends what is there; closes the descriptor at its end.
void Drain(Descriptor& from, std::string* to) {
  std::array<char, 65536> buffer;
  const ssize_t n = read(from.get(), buffer.data(), buffer.size());
  if (n > 0 && to->size() < kMaxOutput) {
    to->append(buffer.data(), static_cast<size_t>(n));
  } else if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
    from.Close();
  }
}

// Writes what is left; closes at the end of the text, or when nft does not read on.
void Feed(Descriptor& to, const std::string& text, size_t* sent) {
  const ssize_t n = write(to.get(), text.data() + *sent, text.size() - *sent);
  if (n > 0) {
    *sent += static_cast<size_t>(n);
  }
  const bool broken = n < 0 && errno != EINTR && errno != EAGAIN;
  if (broken || *sent == text.size()) {
    to.Close();
  }
}

// Moves bytes both ways until nft has closed its outputs. False: the deadline came first.
bool Converse(Child& child, const std::string& input, std::string* out, std::string* err) {
  const auto deadline = SteadyClock::now() + kNftDeadline;
  fcntl(child.input.get(), F_SETFL, O_NONBLOCK);
  size_t sent = 0;
  if (input.empty()) {
    child.input.Close();
  }
  while (child.output.get() >= 0 || child.error.get() >= 0) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0) {
      return false;
    }
    std::array<pollfd, 3> polls = {pollfd{child.input.get(), POLLOUT, 0},
                                   pollfd{child.output.get(), POLLIN, 0},
                                   pollfd{child.error.get(), POLLIN, 0}};
    if (poll(polls.data(), polls.size(), static_cast<int>(left.count())) <= 0) {
      continue;
    }
    if (polls[0].revents != 0) {
      Feed(child.input, input, &sent);
    }
    if (polls[1].revents != 0) {
      Drain(child.output, out);
    }
    if (polls[2].revents != 0) {
      Drain(child.error, err);
    }
  }
  return true;
}

int WaitFor(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

absl::Status Explain(int status, std::string_view err) {
  while (err.ends_with('\n')) {
    err.remove_suffix(1);
  }
  const std::string text = base::Printable(err, 600);
  if (absl::StrContains(base::ToAbsl(err), "Operation not permitted")) {
    return absl::PermissionDeniedError(
        "nft may not change rules here: run this as root (CAP_NET_ADMIN), or inside the workload's "
        "network namespace");
  }
  if (WIFEXITED(status)) {
    return absl::InternalError(base::StrCat("nft failed: ", text));
  }
  return absl::InternalError(base::StrCat("nft ended by signal ", WTERMSIG(status), ": ", text));
}

// A write to a pipe whose reader died must be an error here, not the end of this process.
class IgnoredPipeSignal {
 public:
  IgnoredPipeSignal() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &before_);
  }
  ~IgnoredPipeSignal() { sigaction(SIGPIPE, &before_, nullptr); }
  IgnoredPipeSignal(const IgnoredPipeSignal&) = delete;
  IgnoredPipeSignal& operator=(const IgnoredPipeSignal&) = delete;

 private:
  struct sigaction before_ {};
};

}  // namespace

absl::StatusOr<std::string> RunNft(const std::vector<std::string>& arguments,
                                   const std::string& standard_input) {
  absl::StatusOr<std::string> program = FindNft();
  if (!program.ok()) {
    return program.status();
  }
  const IgnoredPipeSignal ignored;
  absl::StatusOr<Child> child = Spawn(*program, arguments);
  if (!child.ok()) {
    return child.status();
  }
  std::string out;
  std::string err;
  if (!Converse(*child, standard_input, &out, &err)) {
    kill(child->pid, SIGKILL);
    WaitFor(child->pid);
    return absl::DeadlineExceededError("nft did not finish within 10 s");
  }
  const int status = WaitFor(child->pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return out;
  }
  return Explain(status, err);
}

absl::Status ApplyRules(const InterceptConfig& config) {
  absl::StatusOr<std::string> rules = RenderUp(config);
  if (!rules.ok()) {
    return rules.status();
  }
  if (auto out = RunNft({"-j", "-f", "-"}, *rules); !out.ok()) {
    return out.status();
  }
  return VerifyRules(config);
}

absl::Status RemoveRules(const std::string& name) {
  absl::StatusOr<std::string> rules = RenderDown(name);
  if (!rules.ok()) {
    return rules.status();
  }
  return RunNft({"-j", "-f", "-"}, *rules).status();
}

absl::StatusOr<std::optional<TableState>> ReadRules(const std::string& name) {
  if (auto checked = RenderDown(name); !checked.ok()) {
    return checked.status();
  }
  absl::StatusOr<std::string> out = RunNft({"-j", "list", "table", "inet", TableName(name)}, "");
  if (!out.ok()) {
    if (absl::StrContains(out.status().message(), "No such file or directory")) {
      return std::optional<TableState>();
    }
    return out.status();
  }
  absl::StatusOr<TableState> state = ParseTable(*out, name);
  if (!state.ok()) {
    return state.status();
  }
  return std::optional<TableState>(*std::move(state));
}

absl::Status VerifyRules(const InterceptConfig& config) {
  absl::StatusOr<std::string> rendered = RenderUp(config);
  if (!rendered.ok()) {
    return rendered.status();
  }
  absl::StatusOr<TableState> wanted = ParseTable(*rendered, config.name);
  if (!wanted.ok()) {
    return wanted.status();
  }
  absl::StatusOr<std::optional<TableState>> found = ReadRules(config.name);
  if (!found.ok()) {
    return found.status();
  }
  if (!found->has_value()) {
    return absl::FailedPreconditionError(
        base::StrCat("table inet ", TableName(config.name), " is not there"));
  }
  return CompareTables(*wanted, **found);
}

}  // namespace postern::intercept
