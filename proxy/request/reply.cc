// SPDX-License-Identifier: Apache-2.0
#include "proxy/request/reply.h"

#include <cerrno>
#include <string_view>

#include "common/base/strings.h"

namespace postern::request {
namespace {

using base::CloseReason;

// How one failure is said in each of the two languages.
struct Saying {
  uint8_t socks;
  int http;
};

constexpr Saying kNotAllowed{kSocksNotAllowed, 403};
constexpr Saying kBadGateway{kSocksFailed, 502};
constexpr Saying kUnavailable{kSocksFailed, 503};
constexpr Saying kTooLate{kSocksTimedOut, 504};

uint8_t SocksCodeOf(int error) {
  switch (error) {
    case ECONNREFUSED:
      return kSocksRefused;
    case ENETUNREACH:
    case ENETDOWN:
      return kSocksNetworkUnreachable;
    case ETIMEDOUT:
      return kSocksTimedOut;
    case 0:  // a name without an address
    case EHOSTUNREACH:
    case EHOSTDOWN:
      return kSocksHostUnreachable;
    default:
      return kSocksFailed;
  }
}

// What is not named here failed between us and the next hop, or is its fault: a bad gateway.
Saying SayingOf(CloseReason reason, int error) {
  switch (reason) {
    case CloseReason::kDestinationDenied:
    case CloseReason::kMeshDowngrade:
    case CloseReason::kMtlsRequired:
    case CloseReason::kSelfLoop:
    case CloseReason::kPolicyDenied:
      return kNotAllowed;
    case CloseReason::kConnectFailed:
      return {SocksCodeOf(error), error == ETIMEDOUT ? kTooLate.http : kBadGateway.http};
    case CloseReason::kConnectTimeout:
    case CloseReason::kHandshakeTimeout:
    case CloseReason::kLookupTimeout:
      return kTooLate;
    case CloseReason::kNoIdentity:
    case CloseReason::kStaleTrust:
    case CloseReason::kOverload:
    case CloseReason::kDrainDeadline:
      return kUnavailable;
    case CloseReason::kBadProxyRequest:
      return {kSocksFailed, 400};
    case CloseReason::kProxyRequestTimeout:
      return {kSocksFailed, 408};
    case CloseReason::kInternal:
      return {kSocksFailed, 500};
    default:
      return kBadGateway;
  }
}

std::string_view PhraseOf(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

}  // namespace

std::string SocksReplyOf(uint8_t code) {
  // BND.ADDR and BND.PORT mean nothing to a client of CONNECT: 0.0.0.0:0, as others have it.
  return {'\x05', static_cast<char>(code), '\0', '\x01', '\0', '\0', '\0', '\0', '\0', '\0'};
}

std::string HttpRefusal(int status, CloseReason reason) {
  const std::string body =
      base::StrCat("postern: ", base::Token(reason), ": ", base::Describe(reason), "\n");
  return base::StrCat("HTTP/1.1 ", status, " ", PhraseOf(status), "\r\n", kReasonHeader, ": ",
                      base::Token(reason), "\r\n", status == 405 ? "Allow: CONNECT\r\n" : "",
                      "Content-Type: text/plain\r\nContent-Length: ", body.size(),
                      "\r\nConnection: close\r\n\r\n", body);
}

std::string Granted(Protocol protocol) {
  return protocol == Protocol::kSocks5 ? SocksReplyOf(kSocksGranted)
                                       : "HTTP/1.1 200 Connection established\r\n\r\n";
}

std::string Refusal(Protocol protocol, CloseReason reason, int error) {
  const Saying saying = SayingOf(reason, error);
  return protocol == Protocol::kSocks5 ? SocksReplyOf(saying.socks)
                                       : HttpRefusal(saying.http, reason);
}

}  // namespace postern::request
