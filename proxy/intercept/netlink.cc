// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/netlink.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>

namespace postern::intercept {
namespace {

constexpr timeval kPatience{5, 0};  // the kernel answers at once

}  // namespace

Netlink::Netlink(int protocol) : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)) {
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
}

Netlink::~Netlink() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

int Netlink::Ask(nlmsghdr& header, const OnMessage& on_message) {
  header.nlmsg_flags = static_cast<uint16_t>(header.nlmsg_flags | NLM_F_REQUEST);
  if (fd_ < 0 || send(fd_, &header, header.nlmsg_len, 0) < 0) {
    return errno;
  }
  while (true) {
    const ssize_t got = recv(fd_, buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return errno;
    }
    if (const int end = Take(static_cast<size_t>(got), on_message); end >= 0) {
      return end;
    }
  }
}

// One datagram; -1: there is more to come.
int Netlink::Take(size_t size, const OnMessage& on_message) {
  auto left = static_cast<uint32_t>(size);
  const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data());
  for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
    if (header->nlmsg_type == NLMSG_DONE) {
      return 0;
    }
    if (header->nlmsg_type == NLMSG_ERROR) {
      return -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    }
    on_message(*header, NLMSG_DATA(header), header->nlmsg_len - NLMSG_HDRLEN);
  }
  return -1;
}

}  // namespace postern::intercept
