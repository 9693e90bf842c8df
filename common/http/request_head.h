// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::http {

inline constexpr size_t kMaxRequestHead = 8U << 10U;

// What a request's head says, as far as a reading port asks. Lives as long as the text.
struct RequestHead {
  std::string_view method;
  std::string_view path;  // begins with '/'; without the query
  std::string_view host;  // of an absolute target, else of the Host header; empty: there is none
  bool has_body = false;
};

// The size of the head in `received`, blank line included; 0: it is not whole yet. `searched` is
// how much of it an earlier call has seen, so that a head in single bytes costs no more than in one
// piece.
size_t FindHeadEnd(std::string_view received, size_t searched);

// Reads a head of that size: HTTP/1.0 or 1.1 (RFC 9112), strictly but for lines that end in LF
// alone, as somebody types them. InvalidArgument says what is wrong: a line that is none, a control
// character, two Host headers, another version. Pure.
absl::StatusOr<RequestHead> ParseRequestHead(std::string_view head);

}  // namespace postern::http
