// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/nft.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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
#include "proxy/intercept/nft_process.h"

namespace postern::intercept {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::seconds kNftDeadline{10};
constexpr size_t kMaxOutput = 8U << 20U;

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
bool Converse(NftProcess& child, const std::string& input, std::string* out, std::string* err) {
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
  const IgnoredPipeSignal ignored;
  absl::StatusOr<NftProcess> child = NftProcess::Start(arguments);
  if (!child.ok()) {
    return child.status();
  }
  std::string out;
  std::string err;
  if (!Converse(*child, standard_input, &out, &err)) {
    kill(child->pid, SIGKILL);
    child->Wait();
    return absl::DeadlineExceededError("nft did not finish within 10 s");
  }
  const int status = child->Wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return out;
  }
  return Explain(status, err);
}

}  // namespace postern::intercept
