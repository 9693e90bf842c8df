// SPDX-License-Identifier: Apache-2.0
#include "cli/run/filter.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

namespace postern::run {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
constexpr uint32_t kOtherArch = AUDIT_ARCH_I386;
#else
constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
constexpr uint32_t kOtherArch = AUDIT_ARCH_ARM;
#endif

constexpr uint32_t Refuse(int error) {
  return SECCOMP_RET_ERRNO | static_cast<uint32_t>(error);
}

// What the kernel would make of the program: the few instructions that it consists of.
uint32_t Run(const std::vector<sock_filter>& program, const seccomp_data& data) {
  uint32_t loaded = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& step = program[at];
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        std::memcpy(&loaded, reinterpret_cast<const char*>(&data) + step.k, sizeof(loaded));
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += loaded == step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += loaded >= step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (loaded & step.k) != 0 ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        ADD_FAILURE() << "instruction " << step.code;
        return 0;
    }
  }
  ADD_FAILURE() << "the program has no end";
  return 0;
}

uint32_t Verdict(long number, std::initializer_list<uint64_t> arguments = {},
                 uint32_t arch = kArch) {
  seccomp_data data{};
  data.nr = static_cast<int>(number);
  data.arch = arch;
  size_t at = 0;
  for (const uint64_t argument : arguments) {
    data.args[at++] = argument;
  }
  return Run(MakeFilter(), data);
}

TEST(FilterTest, AsksForConnectBindAndListen) {
  for (const long number : {SYS_connect, SYS_bind, SYS_listen}) {
    EXPECT_EQ(Verdict(number), SECCOMP_RET_USER_NOTIF) << number;
  }
}

TEST(FilterTest, AllowsWhatDoesNotConnect) {
  for (const long number : {SYS_read, SYS_write, SYS_accept4, SYS_execve, SYS_clone, SYS_close,
                            SYS_setsockopt, SYS_exit_group}) {
    EXPECT_EQ(Verdict(number), SECCOMP_RET_ALLOW) << number;
  }
  EXPECT_EQ(Verdict(SYS_socket, {AF_INET, SOCK_STREAM, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Verdict(SYS_socket, {AF_UNIX, SOCK_DGRAM, 0}), SECCOMP_RET_ALLOW);
}

TEST(FilterTest, RefusesIoUring) {
  for (const long number : {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}) {
    EXPECT_EQ(Verdict(number), Refuse(ENOSYS)) << number;
  }
}

TEST(FilterTest, RefusesToSendWhileConnecting) {
  constexpr uint64_t kFlags = MSG_FASTOPEN | MSG_NOSIGNAL;
  EXPECT_EQ(Verdict(SYS_sendto, {3, 1, 1, kFlags}), Refuse(EOPNOTSUPP));
  EXPECT_EQ(Verdict(SYS_sendmsg, {3, 1, kFlags}), Refuse(EOPNOTSUPP));
  EXPECT_EQ(Verdict(SYS_sendmmsg, {3, 1, 1, kFlags}), Refuse(EOPNOTSUPP));
  // The kernel takes an int: what stands above it changes nothing.
  EXPECT_EQ(Verdict(SYS_sendto, {3, 1, 1, kFlags | (1ULL << 40U)}), Refuse(EOPNOTSUPP));
  EXPECT_EQ(Verdict(SYS_sendto, {3, 1, 1, MSG_NOSIGNAL}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Verdict(SYS_sendmsg, {3, 1, 0, MSG_FASTOPEN}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Verdict(SYS_sendmmsg, {3, 1, MSG_FASTOPEN, 0}), SECCOMP_RET_ALLOW);
}

TEST(FilterTest, RefusesSocketsThatDialByThemselves) {
  constexpr uint64_t kRds = 21, kSmc = 43;
  for (const uint64_t family : {kRds, kSmc}) {
    EXPECT_EQ(Verdict(SYS_socket, {family, SOCK_STREAM, 0}), Refuse(EAFNOSUPPORT)) << family;
  }
  constexpr uint64_t kDccp = 33, kSctp = 132, kSmcInInet = 256;
  for (const uint64_t protocol : {kDccp, kSctp, kSmcInInet}) {
    EXPECT_EQ(Verdict(SYS_socket, {AF_INET, SOCK_STREAM, protocol}), Refuse(EPROTONOSUPPORT));
  }
}

TEST(FilterTest, RefusesOtherAbis) {
  EXPECT_EQ(Verdict(SYS_read, {}, kOtherArch), SECCOMP_RET_KILL_PROCESS);
#if defined(__x86_64__)
  constexpr long kX32Connect = 0x40000000 + 42;
  EXPECT_EQ(Verdict(kX32Connect), Refuse(ENOSYS));
  EXPECT_EQ(Verdict(-1), Refuse(ENOSYS));
#endif
}

}  // namespace
}  // namespace postern::run
