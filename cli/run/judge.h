// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "common/base/bytes.h"
#include "common/base/ip.h"

namespace postern::run {

// What a socket is. A value, read from the socket itself.
struct SocketFacts {
  int domain = 0;
  int type = 0;
  int protocol = 0;
  bool non_blocking = false;
  ino_t inode = 0;  // names the open socket as long as it is open

  // TCP and MPTCP over IPv4 or IPv6.
  bool is_tcp() const;
};

// 0, or ENOTSOCK and the like.
int ReadSocketFacts(int socket, SocketFacts* facts);

// What to do with a call and its address. Pure.
enum class Course : uint8_t {
  kAsAsked,  // performed on this socket with the address that was read
  kCaught,   // the proxy is what it is connected with; bound to loopback instead
  kRefused,  // answered with `error`
};
struct Judgement {
  Course course = Course::kRefused;
  int error = 0;
  base::IpAddress ip;  // of kCaught: where to, or what to bind
  uint16_t port = 0;
};

// Whatever is no TCP is kAsAsked, but for streams of other kinds over IP, which could carry what
// nobody sees. TCP to loopback and to no address is this host's own and kAsAsked.
Judgement JudgeConnect(const SocketFacts& socket, base::ByteSpan address);
// For TCP alone.
Judgement JudgeBind(const SocketFacts& socket, base::ByteSpan address);

}  // namespace postern::run
