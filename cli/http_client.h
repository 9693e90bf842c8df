// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::cli {

struct HttpReply {
  int status = 0;
  std::string body;
};

// GET `path` from a daemon's reading port. `address` is IP:port, [v6]:port or name:port;
// InvalidArgument names `flag` when it is not. Unavailable: nobody answers there within 5 s.
absl::StatusOr<HttpReply> HttpGet(std::string_view flag, const std::string& address,
                                  const std::string& path);

// The JSON (or any) text of a page that must answer 200; Unavailable otherwise, with its own words.
absl::StatusOr<std::string> HttpPage(std::string_view flag, const std::string& address,
                                     const std::string& path);

}  // namespace postern::cli
