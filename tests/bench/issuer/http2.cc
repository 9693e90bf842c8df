// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/issuer/http2.h"

#include <utility>

namespace postern::bench {
namespace {

enum Type : uint8_t {
  kData = 0,
  kHeaders = 1,
  kResetStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
};
constexpr uint8_t kEndStream = 1;
constexpr uint8_t kAck = 1;
constexpr uint8_t kEndHeaders = 4;
constexpr size_t kFrameHeader = 9;
constexpr size_t kMessagePrefix = 5;
constexpr uint32_t kWindow = 1U << 24U;
constexpr uint32_t kUpdateAfter = 1U << 20U;

void AppendBig(std::string& out, uint32_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out += static_cast<char>((value >> static_cast<uint32_t>(shift)) & 0xffU);
  }
}

uint32_t ReadBig(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) {
    value = (value << 8U) | static_cast<uint8_t>(byte);
  }
  return value;
}

std::string MakeFrame(Type type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string frame;
  frame.reserve(kFrameHeader + payload.size());
  AppendBig(frame, static_cast<uint32_t>(payload.size()), 3);
  frame += static_cast<char>(type);
  frame += static_cast<char>(flags);
  AppendBig(frame, stream, 4);
  frame += payload;
  return frame;
}

std::string WindowUpdate(uint32_t stream, uint32_t by) {
  std::string payload;
  AppendBig(payload, by, 4);
  return MakeFrame(kWindowUpdate, 0, stream, payload);
}

// RFC 7541 section 6.2.2, without Huffman: what a length below 127 allows to write as it stands.
void Literal(std::string& block, std::string_view name_index, std::string_view value) {
  block += name_index;
  block += static_cast<char>(value.size());
  block += value;
}

}  // namespace

std::string Http2Preface() {
  std::string settings;
  const auto set = [&settings](uint32_t id, uint32_t value) {
    AppendBig(settings, id, 2);
    AppendBig(settings, value, 4);
  };
  set(1, 0);        // HEADER_TABLE_SIZE: answers then hold their fields literally
  set(2, 0);        // ENABLE_PUSH
  set(4, kWindow);  // INITIAL_WINDOW_SIZE
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MakeFrame(kSettings, 0, 0, settings) +
         WindowUpdate(0, kWindow);
}

std::string RequestHeaders(uint32_t stream, std::string_view method) {
  std::string block = "\x83\x87";  // :method POST, :scheme https
  Literal(block, "\x04", method);
  Literal(block, "\x01", "issuer");
  Literal(block, "\x0f\x10", "application/grpc");
  block += std::string_view("\x00\x02te", 4);
  Literal(block, "", "trailers");
  return MakeFrame(kHeaders, kEndHeaders, stream, block);
}

std::string MessageFrame(uint32_t stream, std::string_view message, bool last) {
  std::string payload(1, '\0');  // not compressed
  AppendBig(payload, static_cast<uint32_t>(message.size()), 4);
  payload += message;
  return MakeFrame(kData, last ? kEndStream : 0, stream, payload);
}

void FrameReader::Feed(std::string_view bytes) {
  std::string held = std::exchange(pending_, std::string());
  if (!held.empty()) {
    held += bytes;
    bytes = held;
  }
  while (bytes.size() >= kFrameHeader) {
    const size_t size = ReadBig(bytes.substr(0, 3));
    if (bytes.size() < kFrameHeader + size) {
      break;
    }
    Frame(static_cast<uint8_t>(bytes[3]), static_cast<uint8_t>(bytes[4]),
          ReadBig(bytes.substr(5, 4)), bytes.substr(kFrameHeader, size));
    bytes.remove_prefix(kFrameHeader + size);
  }
  pending_ = std::string(bytes);
}

void FrameReader::Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  switch (type) {
    case kData:
      Data(stream, payload);
      if ((flags & kEndStream) != 0) {
        user_.on_call_end("ended without trailers");
      }
      break;
    case kHeaders:
      if ((flags & kEndStream) != 0) {
        user_.on_call_end(payload);
      }
      break;
    case kResetStream:
      user_.on_call_end("the stream was reset");
      break;
    case kSettings:
      if ((flags & kAck) == 0) {
        user_.answer(MakeFrame(kSettings, kAck, 0, {}));
      }
      break;
    case kPing:
      if ((flags & kAck) == 0) {
        user_.answer(MakeFrame(kPing, kAck, 0, payload));
      }
      break;
    case kGoAway:
      user_.on_failure(payload.size() > 8 ? payload.substr(8) : "GOAWAY");
      break;
    default:
      break;  // our requests are far smaller than any window
  }
}

void FrameReader::Data(uint32_t stream, std::string_view payload) {
  unacknowledged_ += static_cast<uint32_t>(payload.size());
  if (unacknowledged_ >= kUpdateAfter) {
    user_.answer(WindowUpdate(0, unacknowledged_) + WindowUpdate(stream, unacknowledged_));
    unacknowledged_ = 0;
  }
  message_ += payload;
  while (message_.size() >= kMessagePrefix) {
    const size_t size = ReadBig(std::string_view(message_).substr(1, 4));
    if (message_.size() < kMessagePrefix + size) {
      return;
    }
    // Taken out first: the user may end this connection, or begin the next call.
    const std::string message = message_.substr(kMessagePrefix, size);
    message_.erase(0, kMessagePrefix + size);
    user_.on_message(message);
  }
  if (message_.empty()) {
    message_ = std::string();  // thousands of connections must not keep their largest message
  }
}

}  // namespace postern::bench
