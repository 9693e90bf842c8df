// SPDX-License-Identifier: Apache-2.0
#include "control/attest/unix_peer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/strings.h"

namespace postern::attest {
namespace {

#ifndef SO_PEERPIDFD
constexpr int kSoPeerPidfd = 77;  // Linux 6.5; not yet in Debian 12's headers
#else
constexpr int kSoPeerPidfd = SO_PEERPIDFD;
#endif

std::string ProcPath(pid_t pid, std::string_view name) {
  return base::StrCat("/proc/", pid, "/", name);
}

absl::StatusOr<std::string> ReadLink(const std::string& path) {
  std::array<char, PATH_MAX + 1> target{};
  const ssize_t size = readlink(path.c_str(), target.data(), target.size());
  if (size < 0 || static_cast<size_t>(size) >= target.size()) {
    return absl::NotFoundError(path);
  }
  return std::string(target.data(), static_cast<size_t>(size));
}

// Field 22 of /proc/PID/stat. The second field is the command in brackets and may itself hold
// brackets and blanks: everything up to the last ')' is skipped.
absl::StatusOr<uint64_t> ReadStartTime(pid_t pid) {
  const base::UniqueFd fd(open(ProcPath(pid, "stat").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer{};
  const ssize_t size = fd.is_open() ? read(fd.get(), buffer.data(), buffer.size()) : -1;
  if (size <= 0) {
    return absl::NotFoundError("no such process");
  }
  const std::string_view text(buffer.data(), static_cast<size_t>(size));
  const size_t bracket = text.rfind(')');
  if (bracket == std::string_view::npos) {
    return absl::InternalError("/proc/PID/stat is not as expected");
  }
  // Behind the bracket: a blank, then field 3.
  const std::vector<std::string> fields =
      absl::StrSplit(base::ToAbsl(text.substr(bracket + 1)), ' ', absl::SkipEmpty());
  constexpr size_t kStartTimeBehindBracket = 22 - 3;
  uint64_t start_time = 0;
  if (fields.size() <= kStartTimeBehindBracket ||
      !absl::SimpleAtoi(fields[kStartTimeBehindBracket], &start_time)) {
    return absl::InternalError("/proc/PID/stat is not as expected");
  }
  return start_time;
}

absl::Status Gone() {
  return absl::UnauthenticatedError("the calling process is gone");
}

// A process can give itself a mount namespace, and then any file any name.
bool SharesOurMounts(pid_t pid) {
  struct stat ours {};
  struct stat theirs {};
  return stat("/proc/self/ns/mnt", &ours) == 0 &&
         stat(ProcPath(pid, "ns/mnt").c_str(), &theirs) == 0 && ours.st_ino == theirs.st_ino &&
         ours.st_dev == theirs.st_dev;
}

// Whether what runs is what lies at `path` now: not so after an upgrade in place or a deletion, and
// not for a file whose real name ends in " (deleted)".
bool IsStillThere(pid_t pid, const std::string& path) {
  struct stat running {};
  struct stat named {};
  return stat(ProcPath(pid, "exe").c_str(), &running) == 0 && lstat(path.c_str(), &named) == 0 &&
         running.st_ino == named.st_ino && running.st_dev == named.st_dev;
}

}  // namespace

absl::StatusOr<UnixPeer> UnixPeer::FromSocket(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0 ||
      size != sizeof(credentials)) {
    return absl::UnauthenticatedError(
        base::StrCat("the peer's credentials cannot be read: ", std::strerror(errno)));
  }
  if (credentials.pid <= 0) {
    return absl::UnauthenticatedError(
        "the calling process is not visible here: it is in another PID namespace, or this is no "
        "connected unix socket");
  }
  UnixPeer peer;
  peer.pid_ = credentials.pid;
  peer.uid_ = credentials.uid;
  peer.gid_ = credentials.gid;
  int pidfd = -1;
  size = sizeof(pidfd);
  if (getsockopt(fd, SOL_SOCKET, kSoPeerPidfd, &pidfd, &size) == 0) {
    peer.pidfd_ = base::UniqueFd(pidfd);
  } else if (errno != ENOPROTOOPT) {
    return Gone();  // the kernel knows the option, and the process is gone or not visible here
  }
  const absl::StatusOr<uint64_t> start_time = ReadStartTime(peer.pid_);
  if (!start_time.ok()) {
    return Gone();
  }
  peer.start_time_ = *start_time;
  if (!peer.IsAlive()) {
    return Gone();
  }
  return peer;
}

bool UnixPeer::IsAlive() const {
  if (pidfd_.is_open()) {
    // A pidfd becomes readable when its process ends; until then the PID is not given away.
    pollfd waiting{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    if (poll(&waiting, 1, 0) != 0) {
      return false;
    }
  }
  const absl::StatusOr<uint64_t> start_time = ReadStartTime(pid_);
  return start_time.ok() && *start_time == start_time_;
}

absl::StatusOr<std::optional<std::string>> UnixPeer::ExecutablePath() const {
  if (!IsAlive()) {
    return Gone();
  }
  std::optional<std::string> found;
  const absl::StatusOr<std::string> path = ReadLink(ProcPath(pid_, "exe"));
  if (path.ok() && path->starts_with('/') && SharesOurMounts(pid_) && IsStillThere(pid_, *path)) {
    found = *path;
  }
  // Everything above was read through the PID: it counts only if that was the same process all
  // along.
  if (!IsAlive()) {
    return Gone();
  }
  return found;
}

}  // namespace postern::attest
