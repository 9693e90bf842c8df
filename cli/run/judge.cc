// SPDX-License-Identifier: Apache-2.0
#include "cli/run/judge.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace postern::run {
namespace {

constexpr int kMptcp = 262;
constexpr int kRds = 21;
constexpr int kSmc = 43;
// RFC 2133's sockaddr_in6 had no scope; the kernel takes that length still.
constexpr size_t kShortestIn6 = 24;

bool IsInet(int domain) {
  return domain == AF_INET || domain == AF_INET6;
}

sa_family_t FamilyOf(base::ByteSpan address) {
  sa_family_t family = AF_UNSPEC;
  std::memcpy(&family, address.data(), sizeof(family));
  return family;
}

Judgement Refused(int error) {
  Judgement judgement;
  judgement.error = error;
  return judgement;
}

Judgement AsAsked() {
  Judgement judgement;
  judgement.course = Course::kAsAsked;
  return judgement;
}

// The IP address and port that `address` holds for a socket of `domain`, as kCaught.
Judgement Parse(int domain, base::ByteSpan address) {
  const bool v4 = domain == AF_INET;
  if (address.size() < (v4 ? sizeof(sockaddr_in) : kShortestIn6)) {
    return Refused(EINVAL);
  }
  if (FamilyOf(address) != domain) {
    return Refused(EAFNOSUPPORT);
  }
  // The port lies at the same place in both.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  const base::ByteSpan port = address.subspan(offsetof(sockaddr_in, sin_port), 2);
  const auto ip =
      base::IpAddress::FromBytes(v4 ? address.subspan(offsetof(sockaddr_in, sin_addr), 4)
                                    : address.subspan(offsetof(sockaddr_in6, sin6_addr), 16));
  if (!ip.ok()) {
    return Refused(EINVAL);
  }
  Judgement judgement;
  judgement.course = Course::kCaught;
  judgement.ip = *ip;
  judgement.port = static_cast<uint16_t>(port[0] << 8U | port[1]);
  return judgement;
}

}  // namespace

bool SocketFacts::is_tcp() const {
  return IsInet(domain) && type == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == kMptcp);
}

int ReadSocketFacts(int socket, SocketFacts* facts) {
  const auto ask = [socket](int option, int* value) {
    socklen_t length = sizeof(*value);
    return getsockopt(socket, SOL_SOCKET, option, value, &length) == 0;
  };
  struct stat info {};
  if (!ask(SO_DOMAIN, &facts->domain) || !ask(SO_TYPE, &facts->type) ||
      !ask(SO_PROTOCOL, &facts->protocol) || fstat(socket, &info) != 0) {
    return errno;
  }
  const int flags = fcntl(socket, F_GETFL);
  facts->non_blocking = flags >= 0 && (flags & O_NONBLOCK) != 0;
  facts->inode = info.st_ino;
  return 0;
}

Judgement JudgeConnect(const SocketFacts& socket, base::ByteSpan address) {
  const bool other_stream = IsInet(socket.domain) && !socket.is_tcp() &&
                            socket.type != SOCK_DGRAM && socket.type != SOCK_RAW;
  if (other_stream || socket.domain == kRds || socket.domain == kSmc) {
    return Refused(EACCES);
  }
  if (!socket.is_tcp()) {
    return AsAsked();
  }
  if (address.size() < sizeof(sa_family_t)) {
    return Refused(EINVAL);
  }
  if (FamilyOf(address) == AF_UNSPEC) {
    return AsAsked();  // lets go of a connection
  }
  const Judgement judgement = Parse(socket.domain, address);
  const bool local = judgement.course == Course::kCaught &&
                     (judgement.ip.IsLoopback() || judgement.ip.IsUnspecified());
  return local ? AsAsked() : judgement;
}

Judgement JudgeBind(const SocketFacts& socket, base::ByteSpan address) {
  if (address.size() < sizeof(sa_family_t)) {
    return Refused(EINVAL);
  }
  const Judgement judgement = Parse(socket.domain, address);
  const bool loopback = judgement.course == Course::kCaught && judgement.ip.IsLoopback();
  return loopback ? AsAsked() : judgement;
}

}  // namespace postern::run
