// SPDX-License-Identifier: Apache-2.0
#include "common/handover/handover.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "common/base/strings.h"

namespace postern::handover {
namespace {

constexpr size_t kMaxDescriptors = 2;
// kind, length of the address, port in network order, the address's bytes.
constexpr size_t kHead = 4;
constexpr size_t kPacketBytes = kHead + 16;

std::string ErrorText(int error) {
  return std::generic_category().message(error);
}

std::array<uint8_t, kPacketBytes> Encode(const Message& message) {
  std::array<uint8_t, kPacketBytes> packet{};
  const base::ByteSpan ip = message.ip.bytes();
  packet[0] = static_cast<uint8_t>(message.kind);
  packet[1] = static_cast<uint8_t>(ip.size());
  packet[2] = static_cast<uint8_t>(message.port >> 8U);
  packet[3] = static_cast<uint8_t>(message.port & 0xffU);
  std::memcpy(packet.data() + kHead, ip.data(), ip.size());
  return packet;
}

absl::StatusOr<Message> Decode(base::ByteSpan packet) {
  const absl::Status unknown = absl::InvalidArgumentError("a packet that is none of ours");
  if (packet.size() != kPacketBytes || packet[0] < static_cast<uint8_t>(Kind::kOutbound) ||
      packet[0] > static_cast<uint8_t>(Kind::kReady) || (packet[1] != 4 && packet[1] != 16)) {
    return unknown;
  }
  Message message;
  message.kind = static_cast<Kind>(packet[0]);
  message.port = static_cast<uint16_t>(packet[2] << 8U | packet[3]);
  const auto ip = base::IpAddress::FromBytes(packet.subspan(kHead, packet[1]));
  if (!ip.ok()) {
    return unknown;
  }
  message.ip = *ip;
  return message;
}

std::vector<base::UniqueFd> TakeDescriptors(msghdr& header) {
  std::vector<base::UniqueFd> taken;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      taken.emplace_back(fd);
    }
  }
  return taken;
}

}  // namespace

absl::StatusOr<std::pair<base::UniqueFd, base::UniqueFd>> MakeChannel() {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return absl::InternalError(base::StrCat("socketpair: ", ErrorText(errno)));
  }
  return std::pair(base::UniqueFd(ends[0]), base::UniqueFd(ends[1]));
}

absl::Status AdoptChannel(int fd) {
  int domain = 0;
  int type = 0;
  socklen_t length = sizeof(int);
  const bool is_channel = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
                          getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
                          domain == AF_UNIX && type == SOCK_SEQPACKET;
  if (!is_channel) {
    return absl::InvalidArgumentError(
        base::StrCat("descriptor ", fd, " is no channel to `postern run`"));
  }
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::InvalidArgumentError(base::StrCat("descriptor ", fd, ": ", ErrorText(errno)));
  }
  return absl::OkStatus();
}

absl::Status Send(int channel, const Message& message, std::span<const int> descriptors) {
  std::array<uint8_t, kPacketBytes> packet = Encode(message);
  iovec bytes{packet.data(), packet.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (descriptors.size() > kMaxDescriptors) {
    return absl::InvalidArgumentError("too many descriptors");
  }
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
  }
  while (sendmsg(channel, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    const int error = errno;
    if (error == EINTR) {
      continue;
    }
    const bool full = error == EAGAIN || error == ENOBUFS || error == ETOOMANYREFS;
    return full ? absl::ResourceExhaustedError(ErrorText(error))
                : absl::UnavailableError(ErrorText(error));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Received>> Receive(int channel) {
  std::array<uint8_t, kPacketBytes + 1> packet{};
  iovec bytes{packet.data(), packet.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = recvmsg(channel, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return std::optional<Received>();
    }
    return absl::UnavailableError(ErrorText(errno));
  }
  if (got == 0) {
    return absl::UnavailableError("the other end is gone");
  }
  Received received;
  received.descriptors = TakeDescriptors(header);
  const absl::StatusOr<Message> message =
      Decode(base::ByteSpan(packet).first(static_cast<size_t>(got)));
  if (!message.ok()) {
    return message.status();
  }
  received.message = *message;
  return std::optional<Received>(std::move(received));
}

void WriteOutcome(int pipe, int error) {
  // An empty pipe has room for four bytes. Whoever does not read them any more needs none.
  const ssize_t written = write(pipe, &error, sizeof(error));
  static_cast<void>(written);
}

std::optional<int> ReadOutcome(int pipe) {
  int error = ECONNREFUSED;
  const ssize_t got = read(pipe, &error, sizeof(error));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return std::nullopt;
  }
  return got == static_cast<ssize_t>(sizeof(error)) ? error : ECONNREFUSED;
}

}  // namespace postern::handover
