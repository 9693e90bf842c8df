// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postern::net {

// "Connection refused" for ECONNREFUSED. Any thread.
std::string ErrnoText(int error);

// The status of a failed system call on a socket, "<what>: <the system's text>": ResourceExhausted
// where the process or the host ran out of something (EMFILE, ENFILE, ENOBUFS, ENOMEM,
// EADDRNOTAVAIL), PermissionDenied for EACCES and EPERM, Unavailable for the rest.
absl::Status ErrnoStatus(int error, std::string_view what);

// The errno of a status that ErrnoStatus made, or of one that was given it by CarryErrno; 0: it has
// none.
int ErrnoOf(const absl::Status& status);
void CarryErrno(const absl::Status& from, absl::Status& to);

// The errors with which accept and socket say that a limit was reached.
bool IsExhaustion(int error);

}  // namespace postern::net
