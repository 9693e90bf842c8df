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

// The system's error that such a status holds, also after Reworded; 0: none.
int ErrnoOf(const absl::Status& status);

// Another code and message with the same system's error.
absl::Status Reworded(const absl::Status& status, absl::StatusCode code, std::string_view message);

// The errors with which accept and socket say that a limit was reached.
bool IsExhaustion(int error);

}  // namespace postern::net
