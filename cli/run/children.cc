// SPDX-License-Identifier: Apache-2.0
#include "cli/run/children.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>
#include <system_error>

#include "cli/run/filter.h"
#include "common/base/strings.h"

extern char** environ;

namespace postern::run {
namespace {

constexpr int kNoExec = 127;

std::string ErrorText(int error) {
  return std::generic_category().message(error);
}

std::vector<char*> PointersTo(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (const std::string& word : words) {
    pointers.push_back(const_cast<char*>(word.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

// The environment without what is the command's alone: the service manager's socket.
std::vector<char*> ProxyEnvironment() {
  constexpr std::string_view kNotify = "NOTIFY_SOCKET=";
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with(kNotify)) {
      kept.push_back(*entry);
    }
  }
  kept.push_back(nullptr);
  return kept;
}

// From here to the end of the namespace: between fork and exec, where nothing but the system is
// called.

void BecomeChild(pid_t parent, const Inherited& inherited) noexcept {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) {
    _exit(kNoExec);  // the parent was quicker
  }
  if (inherited.descriptors != 0) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
      limit.rlim_cur = inherited.descriptors;
      setrlimit(RLIMIT_NOFILE, &limit);
    }
  }
  sigprocmask(SIG_SETMASK, &inherited.signals, nullptr);
}

// One packet on the report: an errno, and the notifications where there are some.
bool Report(int report, int error, int notifications) noexcept {
  iovec bytes{&error, sizeof(error)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (notifications >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* const part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &notifications, sizeof(int));
  }
  return sendmsg(report, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(error));
}

[[noreturn]] void RunCommand(char* const* words, const sock_fprog& program, int report) noexcept {
  const int notifications = InstallFilter(program);
  if (!Report(report, notifications >= 0 ? 0 : errno, notifications) || notifications < 0) {
    _exit(kNoExec);
  }
  close(notifications);
  execvp(words[0], words);
  Report(report, errno, -1);
  _exit(kNoExec);
}

}  // namespace

absl::StatusOr<pid_t> StartProxy(const ProxyStart& start, const Inherited& inherited) {
  std::vector<std::string> words = {start.program};
  words.insert(words.end(), start.words.begin(), start.words.end());
  words.push_back(base::StrCat("--handover-fd=", start.channel));
  const std::vector<char*> arguments = PointersTo(words);
  const std::vector<char*> environment = ProxyEnvironment();
  const base::UniqueFd nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    return absl::UnavailableError(base::StrCat("fork: ", ErrorText(errno)));
  }
  if (child == 0) {
    setpgid(0, 0);
    BecomeChild(parent, inherited);
    dup2(nothing.get(), STDIN_FILENO);
    dup2(start.output, STDOUT_FILENO);
    dup2(start.output, STDERR_FILENO);
    fcntl(start.channel, F_SETFD, 0);
    execve(arguments[0], arguments.data(), environment.data());
    dprintf(STDERR_FILENO, "%s: cannot be executed (errno %d)\n", arguments[0], errno);
    _exit(kNoExec);
  }
  return child;
}

namespace {

struct Told {
  bool ended = false;  // nothing was told
  int error = 0;
  base::UniqueFd notifications;
};

Told AwaitReport(int report) {
  Told told;
  iovec bytes{&told.error, sizeof(told.error)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got = -1;
  do {
    got = recvmsg(report, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  told.ended = got != static_cast<ssize_t>(sizeof(told.error));
  if (const cmsghdr* const part = CMSG_FIRSTHDR(&header);
      !told.ended && part != nullptr && part->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    told.notifications.Reset(fd);
  }
  return told;
}

absl::Status FilterError(int error) {
  if (error == EBUSY) {
    return absl::FailedPreconditionError(
        "the command's system calls are supervised already, by a `postern run` or a container "
        "around this one, and can be only once");
  }
  return absl::FailedPreconditionError(
      base::StrCat("the seccomp filter cannot be installed: ", ErrorText(error)));
}

absl::Status ExecError(const std::string& command, int error) {
  const std::string message = base::StrCat(command, ": ", ErrorText(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::PermissionDeniedError(message);
}

}  // namespace

absl::StatusOr<StartedCommand> StartCommand(const std::vector<std::string>& words,
                                            const Inherited& inherited) {
  std::vector<sock_filter> filter = MakeFilter();
  const sock_fprog program{static_cast<decltype(sock_fprog::len)>(filter.size()), filter.data()};
  const std::vector<char*> arguments = PointersTo(words);
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::UnavailableError(base::StrCat("socketpair: ", ErrorText(errno)));
  }
  const base::UniqueFd report(ends[0]);
  base::UniqueFd reporter(ends[1]);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    return absl::UnavailableError(base::StrCat("fork: ", ErrorText(errno)));
  }
  if (child == 0) {
    BecomeChild(parent, inherited);
    RunCommand(arguments.data(), program, reporter.get());
  }
  reporter.Reset();
  Told filtered = AwaitReport(report.get());
  // The second report comes only where exec has failed: its end of the pair is close-on-exec.
  const Told executed =
      filtered.notifications.is_open() ? AwaitReport(report.get()) : Told{true, 0, {}};
  if (filtered.notifications.is_open() && executed.ended) {
    return StartedCommand{child, std::move(filtered.notifications)};
  }
  waitpid(child, nullptr, 0);
  if (!executed.ended) {
    return ExecError(words.front(), executed.error);
  }
  return filtered.ended ? absl::UnavailableError("the command ended before it began")
                        : FilterError(filtered.error);
}

}  // namespace postern::run
