// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postern::federation {

inline constexpr size_t kMaxResponseHead = 16 << 10;  // status line and headers

// Takes the answer to one GET apart while it comes in (RFC 9112): a length, chunks, or until the
// connection ends. It wants a 200 with a body as it is: everything else is refused at once. Never
// holds more than its bounds. Not thread-safe.
class HttpResponse {
 public:
  explicit HttpResponse(size_t max_body) : max_body_(max_body) {}

  // True: the body is complete. FailedPrecondition: another status than 200 (redirects are not
  // followed), or an encoding that was not asked for. InvalidArgument: no HTTP. ResourceExhausted:
  // larger than the bounds.
  absl::StatusOr<bool> Feed(std::string_view bytes);

  // The connection ended; `cleanly` with the end that TLS has for it. DataLoss: the body was cut.
  absl::Status End(bool cleanly) const;

  const std::string& body() const { return body_; }

 private:
  enum class Phase : uint8_t {
    kHead,
    kLength,     // left_ bytes of the body are to come
    kChunkSize,  // the line before a chunk
    kChunk,      // left_ bytes of the chunk are to come
    kChunkEnd,   // the line end behind a chunk
    kTrailer,    // lines until an empty one
    kUntilEnd,
    kDone,
  };
  absl::Status ReadHead(std::string_view head);
  absl::Status ReadHeader(std::string_view line);
  absl::Status DecideBody();
  absl::Status ReadChunkSize(std::string_view line);
  absl::Status Append(std::string_view bytes);
  absl::StatusOr<bool> Step();  // false: more bytes are needed
  absl::StatusOr<bool> StepLine();
  absl::StatusOr<bool> StepBytes();

  const size_t max_body_;
  Phase phase_ = Phase::kHead;
  std::string waiting_;  // what could not be used yet
  size_t searched_ = 0;  // of it, for the end of a line: single bytes cost no more than one piece
  std::string body_;
  size_t left_ = 0;
  size_t line_bytes_ = 0;  // of chunk sizes and trailers, which carry nothing
  bool chunked_ = false;
  bool has_length_ = false;
};

}  // namespace postern::federation
