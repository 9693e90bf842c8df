// SPDX-License-Identifier: Apache-2.0
#include "proxy/request/request_reader.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <variant>

#include "common/base/close_reason.h"
#include "common/base/strings.h"
#include "proxy/request/http_head.h"
#include "proxy/request/reply.h"

namespace postern::request {
namespace {

// RFC 1928.
constexpr uint8_t kSocksVersion = 5;
constexpr uint8_t kNoAuthentication = 0;
constexpr char kNoAcceptableMethod = '\xFF';
constexpr uint8_t kCommandConnect = 1;
constexpr uint8_t kAddressV4 = 1;
constexpr uint8_t kAddressName = 3;
constexpr uint8_t kAddressV6 = 4;
constexpr size_t kSocksHeader = 4;  // version, command, reserved, address type

constexpr std::string_view kHeadEnd = "\r\n\r\n";

// A line feed, from there on, that ends no line as HTTP has it.
bool HasBareLineFeed(std::string_view head, size_t from) {
  for (size_t at = head.find('\n', from); at != std::string_view::npos;
       at = head.find('\n', at + 1)) {
    if (at == 0 || head[at - 1] != '\r') {
      return true;
    }
  }
  return false;
}

}  // namespace

RequestReader::Step RequestReader::Feed(base::ByteSpan bytes) {
  held_.insert(held_.end(), bytes.begin(), bytes.end());
  // A greeting and its request may come together: both are judged, and both replies are sent.
  std::string replies;
  while (true) {
    const Await before = await_;
    Step step;
    switch (await_) {
      case Await::kFirstByte:
        step = FirstByte();
        break;
      case Await::kGreeting:
        step = Greeting();
        break;
      case Await::kSocksRequest:
        step = SocksRequest();
        break;
      case Await::kHttpHead:
        step = HttpHead();
        break;
    }
    replies += step.reply;
    if (step.state != State::kNeedMore || await_ == before) {
      return {step.state, std::move(replies)};
    }
  }
}

RequestReader::Step RequestReader::FirstByte() {
  if (held_.empty()) {
    return {};
  }
  const uint8_t first = held_.front();
  if (first == kSocksVersion) {
    protocol_ = Protocol::kSocks5;
    await_ = Await::kGreeting;
  } else if (first >= 'A' && first <= 'Z') {
    protocol_ = Protocol::kHttpConnect;
    await_ = Await::kHttpHead;
  } else {
    fault_ = absl::InvalidArgumentError(
        base::StrCat("neither SOCKS5 nor HTTP: the first byte is ", int{first}));
    return {State::kRefused, ""};
  }
  return {};
}

// Authentication would prove nothing that the loopback address or the socket's mode does not.
RequestReader::Step RequestReader::Greeting() {
  const base::ByteSpan greeting = unread();
  if (greeting.size() < 2 || greeting.size() < size_t{2} + greeting[1]) {
    return {};
  }
  const base::ByteSpan methods = greeting.subspan(2, greeting[1]);
  if (std::find(methods.begin(), methods.end(), kNoAuthentication) == methods.end()) {
    fault_ = absl::InvalidArgumentError(
        "SOCKS5: the client wants to authenticate, and offers nothing else");
    return {State::kRefused, {static_cast<char>(kSocksVersion), kNoAcceptableMethod}};
  }
  used_ += 2 + methods.size();
  await_ = Await::kSocksRequest;
  return {State::kNeedMore,
          {static_cast<char>(kSocksVersion), static_cast<char>(kNoAuthentication)}};
}

RequestReader::Step RequestReader::SocksRequest() {
  const base::ByteSpan request = unread();
  if (request.size() < kSocksHeader) {
    return {};
  }
  if (request[0] != kSocksVersion || request[2] != 0) {
    return RefuseSocks(kSocksFailed, "SOCKS5: a request with a wrong version or reserved byte");
  }
  if (request[1] != kCommandConnect) {
    return RefuseSocks(kSocksNoSuchCommand, "SOCKS5: a command other than CONNECT");
  }
  return SocksAddress(request);
}

RequestReader::Step RequestReader::SocksAddress(base::ByteSpan request) {
  size_t at = kSocksHeader;
  size_t length = 0;
  switch (request[3]) {
    case kAddressV4:
      length = 4;
      break;
    case kAddressV6:
      length = 16;
      break;
    case kAddressName:
      if (request.size() == kSocksHeader) {
        return {};
      }
      length = request[at++];
      break;
    default:
      return RefuseSocks(kSocksNoSuchAddressType, "SOCKS5: an unknown type of address");
  }
  if (request.size() < at + length + 2) {
    return {};
  }
  const base::ByteSpan address = request.subspan(at, length);
  const base::ByteSpan tail = request.subspan(at + length, 2);
  const auto port = static_cast<uint16_t>((tail[0] << 8U) | tail[1]);
  std::string host(base::AsText(address));
  if (request[3] != kAddressName) {
    host = base::IpAddress::FromBytes(address).value().ToString();  // 4 or 16 bytes always are one
  }
  std::optional<Destination> destination = ParseHost(host, port);
  if (!destination.has_value()) {
    return RefuseSocks(kSocksFailed, "SOCKS5: no host and port that could be dialled");
  }
  return Done(*std::move(destination), at + length + 2);
}

RequestReader::Step RequestReader::HttpHead() {
  const std::string_view seen = base::AsText(unread()).substr(0, kMaxHttpHead);
  const size_t from = searched_ - std::min(searched_, kHeadEnd.size() - 1);
  const size_t end = seen.find(kHeadEnd, from);
  const std::string_view head = seen.substr(0, end);
  searched_ = seen.size();
  if (HasBareLineFeed(head, from)) {
    return RefuseHttp(400, "a line that does not end in CRLF");
  }
  if (end == std::string_view::npos) {
    return seen.size() < kMaxHttpHead ? Step() : RefuseHttp(431, "the head is too long");
  }
  std::variant<Destination, HttpFault> parsed = ParseConnectHead(head);
  if (const auto* const fault = std::get_if<HttpFault>(&parsed); fault != nullptr) {
    return RefuseHttp(fault->status, fault->why);
  }
  return Done(std::get<Destination>(std::move(parsed)), end + kHeadEnd.size());
}

RequestReader::Step RequestReader::Done(Destination destination, size_t bytes) {
  destination_ = std::move(destination);
  used_ += bytes;
  return {State::kDone, ""};
}

RequestReader::Step RequestReader::RefuseSocks(uint8_t code, std::string_view why) {
  fault_ = absl::InvalidArgumentError(base::ToAbsl(why));
  return {State::kRefused, SocksReplyOf(code)};
}

RequestReader::Step RequestReader::RefuseHttp(int status, std::string_view why) {
  fault_ = absl::InvalidArgumentError(base::StrCat("HTTP CONNECT: ", why));
  return {State::kRefused, HttpRefusal(status, base::CloseReason::kBadProxyRequest)};
}

}  // namespace postern::request
