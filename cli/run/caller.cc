// SPDX-License-Identifier: Apache-2.0
#include "cli/run/caller.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace postern::run {
namespace {

// PIDFD_THREAD of linux/pidfd.h: a pidfd of any thread (Linux 6.9), not of a process alone.
constexpr unsigned kPidfdThread = O_EXCL;

std::string ProcPath(pid_t thread, const char* name) {
  return "/proc/" + std::to_string(thread) + "/" + name;
}

// The process of a thread; 0: it is gone.
pid_t ProcessOf(pid_t thread) {
  const base::UniqueFd file(open(ProcPath(thread, "status").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 2048> text{};
  const ssize_t got = file.is_open() ? read(file.get(), text.data(), text.size() - 1) : -1;
  const char* const line = got > 0 ? std::strstr(text.data(), "\nTgid:") : nullptr;
  return line == nullptr ? 0 : static_cast<pid_t>(std::strtol(line + 6, nullptr, 10));
}

base::UniqueFd OpenPidfd(pid_t thread) {
  base::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, thread, kPidfdThread)));
  if (!pidfd.is_open()) {
    // Without PIDFD_THREAD: the process's descriptors, which its threads share unless one of them
    // has asked for some of its own. That one is answered for a socket that is not its own, which
    // helps it to nothing.
    const pid_t process = ProcessOf(thread);
    if (process > 0) {
      pidfd.Reset(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
    }
  }
  return pidfd;
}

}  // namespace

int Caller::IfWaiting(int error) const {
  return notifier_.IsWaiting(call_.id) ? error : ESRCH;
}

int Caller::TakeDescriptor(int number, base::UniqueFd* taken) const {
  const base::UniqueFd pidfd = OpenPidfd(call_.thread);
  if (!pidfd.is_open()) {
    return IfWaiting(EPERM);
  }
  if (!notifier_.IsWaiting(call_.id)) {
    return ESRCH;  // the number may be another thread's by now
  }
  taken->Reset(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  return IfWaiting(taken->is_open() ? 0 : errno);
}

int Caller::ReadAddress(std::vector<uint8_t>* address) const {
  const int length = call_.int_argument(2);
  if (length < 0 || static_cast<size_t>(length) > sizeof(sockaddr_storage)) {
    return IfWaiting(EINVAL);
  }
  address->resize(static_cast<size_t>(length));
  if (length == 0) {
    return IfWaiting(0);
  }
  const iovec here{address->data(), address->size()};
  iovec there{nullptr, address->size()};
  static_assert(sizeof(there.iov_base) == sizeof(call_.arguments[1]));
  std::memcpy(&there.iov_base, &call_.arguments[1], sizeof(there.iov_base));
  const ssize_t got = process_vm_readv(call_.thread, &here, 1, &there, 1, 0);
  if (got == length) {
    return IfWaiting(0);
  }
  return IfWaiting(got >= 0 ? EFAULT : errno);
}

int Caller::TakeDirectory(base::UniqueFd* directory) const {
  struct stat own {};
  struct stat its {};
  if (stat("/", &own) != 0 || stat(ProcPath(call_.thread, "root").c_str(), &its) != 0) {
    return IfWaiting(EPERM);
  }
  if (own.st_dev != its.st_dev || own.st_ino != its.st_ino) {
    return IfWaiting(EACCES);
  }
  directory->Reset(open(ProcPath(call_.thread, "cwd").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  return IfWaiting(directory->is_open() ? 0 : EPERM);
}

}  // namespace postern::run
