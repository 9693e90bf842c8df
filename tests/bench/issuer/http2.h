// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

// As much of HTTP/2 (RFC 9113) and of gRPC's framing as a client with one call at a time needs.
namespace postern::bench {

// The preface, our settings, and a window that a benchmark never fills.
std::string Http2Preface();

// A request's HEADERS frame for a gRPC method, "/postern.v1.Mesh/Stream".
std::string RequestHeaders(uint32_t stream, std::string_view method);

// A DATA frame with one gRPC message; `last` ends our half of the stream.
std::string MessageFrame(uint32_t stream, std::string_view message, bool last);

// What a connection received.
struct FrameUser {
  std::function<void(std::string_view message)> on_message;
  std::function<void(std::string_view trailers)> on_call_end;  // HPACK, or a word of our own
  std::function<void(std::string_view reason)> on_failure;     // the connection is of no use now
  std::function<void(std::string answer)> answer;              // to be sent
};

// Takes received bytes apart. Frames of one call at a time; header blocks are not decoded: a call
// without a message failed, and what gRPC says about it stands in the trailers as plain text.
class FrameReader {
 public:
  explicit FrameReader(FrameUser user) : user_(std::move(user)) {}

  void Feed(std::string_view bytes);

 private:
  void Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload);
  void Data(uint32_t stream, std::string_view payload);

  FrameUser user_;
  std::string pending_;  // an unfinished frame
  std::string message_;  // an unfinished gRPC message, with its prefix
  uint32_t unacknowledged_ = 0;
};

}  // namespace postern::bench
