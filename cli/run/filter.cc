// SPDX-License-Identifier: Apache-2.0
#include "cli/run/filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/base/unique_fd.h"

namespace postern::run {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArch = 0;
#endif
// x32 has the number of x86-64's architecture and this bit in its system calls.
[[maybe_unused]] constexpr uint32_t kX32Bit = 0x40000000;

constexpr uint32_t kRds = 21;
constexpr uint32_t kSmc = 43;
constexpr uint32_t kDccp = 33;
constexpr uint32_t kSctp = 132;
constexpr uint32_t kSmcInInet = 256;

constexpr uint32_t Refuse(int error) {
  return SECCOMP_RET_ERRNO | (static_cast<uint32_t>(error) & SECCOMP_RET_DATA);
}

// The low half of an argument: flags and descriptors are ints, the kernel looks at no more.
constexpr uint32_t Argument(size_t index) {
  return static_cast<uint32_t>(offsetof(seccomp_data, args) + index * sizeof(uint64_t) +
                               (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? sizeof(uint32_t) : 0));
}

class Program {
 public:
  void Load(uint32_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0); }
  void Return(uint32_t action) { Add(BPF_RET | BPF_K, action, 0, 0); }
  // Where what was loaded equals `value`, `action` is the answer.
  void ReturnIfEqual(uint32_t value, uint32_t action) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    Return(action);
  }
  void ReturnUnlessEqual(uint32_t value, uint32_t action) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
    Return(action);
  }
  void ReturnIfAtLeast(uint32_t value, uint32_t action) {
    Add(BPF_JMP | BPF_JGE | BPF_K, value, 0, 1);
    Return(action);
  }
  // For the system call `number` alone: `flag` in its argument is refused, the rest is allowed.
  void RefuseFlag(uint32_t number, size_t argument, uint32_t flag, int error) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
    Load(Argument(argument));
    Add(BPF_JMP | BPF_JSET | BPF_K, flag, 0, 1);
    Return(Refuse(error));
    Return(SECCOMP_RET_ALLOW);
  }
  // The last one: what was loaded is the number no more.
  void JudgeSockets() {
    ReturnUnlessEqual(SYS_socket, SECCOMP_RET_ALLOW);
    Load(Argument(0));
    for (const uint32_t family : {kRds, kSmc}) {
      ReturnIfEqual(family, Refuse(EAFNOSUPPORT));
    }
    Load(Argument(2));
    for (const uint32_t protocol : {kDccp, kSctp, kSmcInInet}) {
      ReturnIfEqual(protocol, Refuse(EPROTONOSUPPORT));
    }
    Return(SECCOMP_RET_ALLOW);
  }

  std::vector<sock_filter> Take() { return std::move(code_); }

 private:
  void Add(uint32_t code, uint32_t k, uint8_t if_true, uint8_t if_false) {
    code_.push_back({static_cast<uint16_t>(code), if_true, if_false, k});
  }
  std::vector<sock_filter> code_;
};

// Where Yama is off or absent, or lets a parent look at its descendants.
bool MayAttach() {
  const base::UniqueFd file(open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC));
  char scope = '0';
  return !file.is_open() || read(file.get(), &scope, 1) != 1 || scope < '2' || geteuid() == 0;
}

}  // namespace

std::vector<sock_filter> MakeFilter() {
  if constexpr (kArch == 0) {
    return {};
  }
  Program program;
  program.Load(offsetof(seccomp_data, arch));
  program.ReturnUnlessEqual(kArch, SECCOMP_RET_KILL_PROCESS);
  program.Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  program.ReturnIfAtLeast(kX32Bit, Refuse(ENOSYS));
#endif
  for (const uint32_t number : {SYS_connect, SYS_bind, SYS_listen}) {
    program.ReturnIfEqual(number, SECCOMP_RET_USER_NOTIF);
  }
  for (const uint32_t number : {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}) {
    program.ReturnIfEqual(number, Refuse(ENOSYS));
  }
  program.RefuseFlag(SYS_sendto, 3, MSG_FASTOPEN, EOPNOTSUPP);
  program.RefuseFlag(SYS_sendmsg, 2, MSG_FASTOPEN, EOPNOTSUPP);
  program.RefuseFlag(SYS_sendmmsg, 3, MSG_FASTOPEN, EOPNOTSUPP);
  program.JudgeSockets();
  return program.Take();
}

int InstallFilter(const sock_fprog& program) noexcept {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return -1;
  }
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

std::string_view WhyUnsupported() {
  if (MakeFilter().empty()) {
    return "this kind of machine is not supported (x86-64 and arm64 are)";
  }
  const uint32_t action = SECCOMP_RET_USER_NOTIF;
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) {
    return "this kernel has no seccomp user notification (Linux 5.9 or later has)";
  }
  // With a descriptor that is none: EBADF where the call exists and is allowed.
  if (syscall(SYS_pidfd_getfd, -1, 0, 0) < 0 && errno != EBADF) {
    return "pidfd_getfd is refused here (a container's seccomp profile may leave it out)";
  }
  if (!MayAttach()) {
    return "only an administrator may look at other processes here "
           "(/proc/sys/kernel/yama/ptrace_scope is 2 or more)";
  }
  return {};
}

}  // namespace postern::run
