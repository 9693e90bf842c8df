// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <string_view>
#include <vector>

namespace postern::run {

// The seccomp filter of the command, and of everything that it starts. A pure function of the
// machine's kind. connect, bind and listen are asked for at the supervisor; what would go round it
// is refused: io_uring (ENOSYS, as where it is switched off), MSG_FASTOPEN (EOPNOTSUPP, as where
// TCP Fast Open is switched off), sockets of families and protocols that dial by themselves or are
// no TCP but streams (SMC, RDS, SCTP, DCCP), and system calls of another ABI. Empty: this kind of
// machine is not supported.
std::vector<sock_filter> MakeFilter();

// Installs it on this thread, with no_new_privs. Returns the descriptor of the notifications
// (close-on-exec), or -1 and errno. Between fork and exec: calls nothing but the system.
int InstallFilter(const sock_fprog& program) noexcept;

// Why this system cannot do it, as far as it can be told beforehand; empty: it can.
std::string_view WhyUnsupported();

}  // namespace postern::run
