// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "proxy/request/destination.h"

namespace postern::request {

// Of HTTP, from the first byte to the empty line.
inline constexpr size_t kMaxHttpHead = 8U << 10U;

// Reads what an application sends to an outbound proxy port, in whatever pieces it comes: a SOCKS5
// greeting and request (the first byte is 5), or the head of an HTTP/1 CONNECT. Strict: what has no
// single meaning is refused. Holds no more than kMaxHttpHead and what was fed last. Pure: bytes in,
// a verdict and bytes to send out.
class RequestReader {
 public:
  enum class State : uint8_t { kNeedMore, kDone, kRefused };
  struct Step {
    State state = State::kNeedMore;
    std::string reply;  // to be sent now; empty: nothing (kRefused: there is no language to say it)
  };

  // Not after kDone or kRefused.
  Step Feed(base::ByteSpan bytes);

  // Known from the first byte on; never for bytes that are of neither.
  const std::optional<Protocol>& protocol() const { return protocol_; }
  const Destination& destination() const { return destination_; }  // after kDone
  // After kDone: what came behind the request, which is the application's.
  base::ByteSpan rest() const { return base::ByteSpan(held_).subspan(used_); }
  // The bytes are not needed any more; what was read from them stays.
  void ForgetBytes() {
    std::vector<uint8_t>().swap(held_);
    used_ = 0;
  }
  const absl::Status& fault() const { return fault_; }  // after kRefused: InvalidArgument

 private:
  enum class Await : uint8_t { kFirstByte, kGreeting, kSocksRequest, kHttpHead };

  Step FirstByte();
  Step Greeting();
  Step SocksRequest();
  Step SocksAddress(base::ByteSpan request);
  Step HttpHead();
  Step Done(Destination destination, size_t bytes);
  Step RefuseSocks(uint8_t code, std::string_view why);
  Step RefuseHttp(int status, std::string_view why);
  base::ByteSpan unread() const { return base::ByteSpan(held_).subspan(used_); }

  std::vector<uint8_t> held_;
  size_t used_ = 0;  // of these, judged already
  // Of an HTTP head that is not whole: seen already, so that single bytes cost no more than one
  // piece.
  size_t searched_ = 0;
  Await await_ = Await::kFirstByte;
  std::optional<Protocol> protocol_;
  Destination destination_;
  absl::Status fault_;
};

}  // namespace postern::request
