// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cli/http_client.h"

namespace postern::cli {

// One request to a proxy's control socket (--admin-socket): `method` is GET or POST.
// InvalidArgument: `socket_path` is no path of a socket. NotFound, PermissionDenied, Unavailable:
// nobody listens there, this user may not, or no whole answer came within 5 s; the message names
// the flag and the mend.
absl::StatusOr<HttpReply> ControlRequest(const std::string& socket_path, std::string_view method,
                                         std::string_view target);

}  // namespace postern::cli
