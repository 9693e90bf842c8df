// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/socket_address.h"

#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::net {
namespace {

constexpr size_t kMaxUnixPath = sizeof(sockaddr_un::sun_path) - 1;

// An abstract name is written with "@" in the place of its leading NUL, as other tools do; "@"
// alone is a socket without a name (the client's end of a unix connection).
constexpr char kAbstractMark = '@';

absl::Status Malformed(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(
      base::StrCat("'", base::Printable(text), "' is no address: ", why));
}

absl::StatusOr<SocketAddress> ParseUnix(std::string_view text, std::string_view path) {
  if (path.empty() || path.front() != '/') {
    return Malformed(text, "a unix socket needs an absolute path, unix:/path");
  }
  if (path.size() > kMaxUnixPath) {
    return Malformed(text, base::StrCat("the path is longer than ", kMaxUnixPath, " bytes"));
  }
  if (path.find('\0') != std::string_view::npos) {
    return Malformed(text, "the path holds a NUL byte");
  }
  return SocketAddress::Unix(std::string(path));
}

absl::StatusOr<SocketAddress> FromUnix(const sockaddr* address, socklen_t length) {
  const size_t at = offsetof(sockaddr_un, sun_path);
  if (length <= at) {
    return SocketAddress::Unix(std::string(1, kAbstractMark));
  }
  const size_t size = std::min(static_cast<size_t>(length) - at, sizeof(sockaddr_un::sun_path));
  const char* bytes = reinterpret_cast<const char*>(address) + at;
  if (bytes[0] == '\0') {
    return SocketAddress::Unix(base::StrCat(
        std::string(1, kAbstractMark), base::Printable(std::string_view(bytes + 1, size - 1))));
  }
  return SocketAddress::Unix(std::string(bytes, strnlen(bytes, size)));
}

}  // namespace

absl::StatusOr<SocketAddress> SocketAddress::Parse(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (text.substr(0, kUnix.size()) == kUnix) {
    return ParseUnix(text, text.substr(kUnix.size()));
  }
  const auto parsed = base::HostPort::Parse(text, {.port_0 = true, .also = "unix:/path"});
  if (!parsed.ok()) {
    return parsed.status();
  }
  return SocketAddress(*parsed->ip, *parsed->port);
}

absl::StatusOr<SocketAddress> SocketAddress::FromSockaddr(const sockaddr* address,
                                                          socklen_t length) {
  if (address == nullptr || length < sizeof(sa_family_t)) {
    return absl::InvalidArgumentError("socket address is too short");
  }
  if (address->sa_family == AF_UNIX) {
    return FromUnix(address, length);
  }
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in in{};
    std::memcpy(&in, address, sizeof(in));
    const auto* bytes = reinterpret_cast<const uint8_t*>(&in.sin_addr);
    auto ip = base::IpAddress::FromBytes({bytes, 4});
    return ip.ok() ? absl::StatusOr<SocketAddress>(SocketAddress(*ip, ntohs(in.sin_port)))
                   : ip.status();
  }
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in{};
    std::memcpy(&in, address, sizeof(in));
    const auto* bytes = reinterpret_cast<const uint8_t*>(&in.sin6_addr);
    auto ip = base::IpAddress::FromBytes({bytes, 16});
    return ip.ok() ? absl::StatusOr<SocketAddress>(SocketAddress(*ip, ntohs(in.sin6_port)))
                   : ip.status();
  }
  return absl::InvalidArgumentError(
      base::StrCat("socket address of family ", address->sa_family, " and ", length, " bytes"));
}

SocketAddress SocketAddress::Unix(std::string path) {
  SocketAddress address;
  address.path_ = std::move(path);
  return address;
}

std::string SocketAddress::ToString() const {
  if (is_unix()) {
    return base::StrCat("unix:", path_);
  }
  return base::JoinHostPort(ip_, port_);
}

socklen_t SocketAddress::ToSockaddr(sockaddr_storage* storage) const {
  std::memset(storage, 0, sizeof(*storage));
  if (is_unix()) {
    auto* un = reinterpret_cast<sockaddr_un*>(storage);
    un->sun_family = AF_UNIX;
    const size_t size = std::min(path_.size(), kMaxUnixPath);
    std::memcpy(un->sun_path, path_.data(), size);
    size_t length = offsetof(sockaddr_un, sun_path) + size;
    if (path_.front() == kAbstractMark) {
      un->sun_path[0] = '\0';
      length = path_.size() == 1 ? offsetof(sockaddr_un, sun_path) : length;
    } else {
      ++length;  // the closing NUL
    }
    return static_cast<socklen_t>(length);
  }
  const base::ByteSpan bytes = ip_.bytes();
  if (ip_.is_v4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port_);
    std::memcpy(&in->sin_addr, bytes.data(), bytes.size());
    return sizeof(*in);
  }
  auto* in = reinterpret_cast<sockaddr_in6*>(storage);
  in->sin6_family = AF_INET6;
  in->sin6_port = htons(port_);
  std::memcpy(&in->sin6_addr, bytes.data(), bytes.size());
  return sizeof(*in);
}

}  // namespace postern::net
