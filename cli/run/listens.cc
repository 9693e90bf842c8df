// SPDX-License-Identifier: Apache-2.0
#include "cli/run/listens.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace postern::run {
namespace {

constexpr int kOuterBacklog = 1024;
// Clients may bind as well, and never listen.
constexpr size_t kMostMoved = 16'384;

// SO_REUSEPORT on a socket for as long as this lives, so that it and the outer listener, which has
// the same user, may have overlapping addresses. Afterwards it is as the command has set it.
class SharesPort {
 public:
  SharesPort(int socket, bool wanted)
      : socket_(socket), changes_(wanted && IntOption(socket, SOL_SOCKET, SO_REUSEPORT) == 0) {
    if (changes_) {
      SetIntOption(socket_, SOL_SOCKET, SO_REUSEPORT, 1);
    }
  }
  ~SharesPort() {
    if (changes_) {
      SetIntOption(socket_, SOL_SOCKET, SO_REUSEPORT, 0);
    }
  }
  SharesPort(const SharesPort&) = delete;
  SharesPort& operator=(const SharesPort&) = delete;

 private:
  const int socket_;
  const bool changes_;
};

// Whether a socket of this host's listens at exactly 127.0.0.1 or ::1 and this port: as the kernel
// writes it into the table, in its own byte order.
bool ListensOnLoopback(const base::IpAddress& ip, uint16_t port) {
  std::array<char, 8> suffix{};
  std::snprintf(suffix.data(), suffix.size(), ":%04X", port);
  const bool v4 = ip.is_v4();
  for (const auto& [table, address] :
       {std::pair("/proc/self/net/tcp", v4 ? "0100007F" : ""),
        std::pair("/proc/self/net/tcp6",
                  v4 ? "0000000000000000FFFF00000100007F" : "00000000000000000000000001000000")}) {
    const std::string wanted = std::string(address) + suffix.data();
    std::ifstream rows(table);
    std::string number, local, remote, state;
    for (std::string row; std::getline(rows, row);) {
      std::istringstream(row) >> number >> local >> remote >> state;
      if (local == wanted && state == "0A") {
        return true;
      }
    }
  }
  return false;
}

bool IsV6Only(int socket, int domain) {
  return domain == AF_INET6 && IntOption(socket, IPPROTO_IPV6, IPV6_V6ONLY) != 0;
}

// Where a socket listens that asked for `asked`. One for both families serves 127.0.0.1, which is
// what most programs mean by this host.
base::IpAddress LoopbackFor(int domain, const Place& asked, bool v6_only) {
  const bool v4 = domain == AF_INET || asked.ip.is_v4() || (asked.ip.IsUnspecified() && !v6_only);
  return base::IpAddress::Parse(v4 ? "127.0.0.1" : "::1").value();
}

int Bind(int socket, int domain, const base::IpAddress& ip, uint16_t port) {
  const Address address = MakeAddress(domain, ip, port);
  return bind(socket, reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0
             ? 0
             : errno;
}

// The listener that the outside reaches.
int OpenOuter(int domain, const Place& asked, bool v6_only, base::UniqueFd* outer) {
  outer->Reset(socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!outer->is_open()) {
    return errno;
  }
  int error = SetIntOption(outer->get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (error == 0) {
    error = SetIntOption(outer->get(), SOL_SOCKET, SO_REUSEPORT, 1);
  }
  if (error == 0 && domain == AF_INET6) {
    error = SetIntOption(outer->get(), IPPROTO_IPV6, IPV6_V6ONLY, v6_only ? 1 : 0);
  }
  if (error == 0) {
    error = Bind(outer->get(), domain, asked.ip, asked.port);
  }
  if (error == 0 && listen(outer->get(), kOuterBacklog) != 0) {
    error = errno;
  }
  return error;
}

}  // namespace

void Listens::HandleBind(const Call& call, const Caller& caller) {
  base::UniqueFd socket;
  SocketFacts facts;
  int error = caller.TakeDescriptor(call.int_argument(0), &socket);
  if (error == 0) {
    error = ReadSocketFacts(socket.get(), &facts);
  }
  if (error == 0 && !facts.is_tcp()) {
    // Names of files, their owner and their mode are the thread's own affair. Should the descriptor
    // be a TCP socket when the kernel looks at it: it cannot listen where others reach it.
    notifier_.Pass(call.id);
    return;
  }
  std::vector<uint8_t> address;
  if (error == 0) {
    error = caller.ReadAddress(&address);
  }
  if (error != 0) {
    notifier_.Answer(call.id, error);
    return;
  }
  if (answers_.AnswerAgain(call, facts.inode, address) != LateAnswers::Again::kAnswered) {
    answers_.Answer(call, facts.inode, address, BindTo(socket.get(), facts, address));
  }
}

int Listens::BindTo(int socket, const SocketFacts& facts, base::ByteSpan address) {
  const Judgement judgement = JudgeBind(facts, address);
  switch (judgement.course) {
    case Course::kRefused:
      break;
    case Course::kAsAsked:
      return bind(socket, reinterpret_cast<const sockaddr*>(address.data()),
                  static_cast<socklen_t>(address.size())) == 0
                 ? 0
                 : errno;
    case Course::kCaught:
      return Move(socket, facts, {judgement.ip, judgement.port});
  }
  return judgement.error;
}

int Listens::Move(int socket, const SocketFacts& facts, const Place& asked) {
  Moved moved{asked, IsV6Only(socket, facts.domain)};
  const base::IpAddress loopback = LoopbackFor(facts.domain, asked, moved.v6_only);
  // Beside the outer listener, which is there still when the command's own is not any more.
  const bool shares_port = asked.port != 0 && HasOuter(asked.port);
  if (shares_port && IntOption(socket, SOL_SOCKET, SO_REUSEPORT) == 0 &&
      ListensOnLoopback(loopback, asked.port)) {
    return EADDRINUSE;  // of two that may share a port the kernel does not ask this
  }
  int error = 0;
  {
    const SharesPort shares(socket, shares_port);
    error = Bind(socket, facts.domain, loopback, asked.port);
  }
  Place bound;
  if (error == 0) {
    error = LocalPlace(socket, &bound);
  }
  if (error == 0) {
    moved.asked.port = bound.port;
    Remember(facts.inode, moved);
  }
  return error;
}

void Listens::HandleListen(const Call& call, const Caller& caller) {
  base::UniqueFd socket;
  SocketFacts facts;
  const int backlog = call.int_argument(1);
  int error = caller.TakeDescriptor(call.int_argument(0), &socket);
  if (error == 0) {
    error = ReadSocketFacts(socket.get(), &facts);
  }
  if (error == 0 && facts.is_tcp()) {
    error = ListenTcp(socket.get(), facts, backlog);
  } else if (error == 0) {
    error = listen(socket.get(), backlog) == 0 ? 0 : errno;
  }
  notifier_.Answer(call.id, error);
}

int Listens::ListenTcp(int socket, const SocketFacts& facts, int backlog) {
  Place local;
  int error = LocalPlace(socket, &local);
  if (error == 0 && local.port == 0) {
    // Never bound: the kernel would take any port, on every address.
    const Place any{base::IpAddress::Parse(facts.domain == AF_INET ? "0.0.0.0" : "::").value(), 0};
    error = Move(socket, facts, any);
    if (error == 0) {
      error = LocalPlace(socket, &local);
    }
  }
  if (error != 0) {
    return error;
  }
  if (!local.ip.IsLoopback()) {
    return EACCES;  // bound before the command began, or behind our back
  }
  if (const auto moved = moved_.find(facts.inode); moved != moved_.end()) {
    return ListenMoved(socket, facts, moved->second, backlog);
  }
  return listen(socket, backlog) == 0 ? 0 : errno;
}

int Listens::ListenMoved(int socket, const SocketFacts& facts, const Moved& moved, int backlog) {
  const Outer key{facts.domain, moved.asked.ip, moved.asked.port};
  Place inner;
  if (const int error = LocalPlace(socket, &inner); error != 0) {
    return error;
  }
  const SharesPort shares(socket, true);
  base::UniqueFd outer;
  if (const auto known = outer_.find(key);
      known == outer_.end() || known->second != moved.v6_only) {
    if (!link_.is_open()) {
      return EACCES;
    }
    if (const int error = OpenOuter(facts.domain, moved.asked, moved.v6_only, &outer); error != 0) {
      return error;
    }
  }
  if (listen(socket, backlog) != 0) {
    return errno;
  }
  if (outer.is_open()) {
    outer_.insert_or_assign(key, moved.v6_only);
    handover::Message message;
    message.kind = handover::Kind::kListener;
    message.ip = inner.ip;
    message.port = inner.port;
    std::vector<base::UniqueFd> descriptors;
    descriptors.push_back(std::move(outer));
    link_.Hand(message, std::move(descriptors));
  }
  return 0;
}

bool Listens::HasOuter(uint16_t port) const {
  return std::ranges::any_of(outer_,
                             [port](const auto& it) { return std::get<2>(it.first) == port; });
}

void Listens::Remember(ino_t inode, const Moved& moved) {
  moved_.insert_or_assign(inode, moved);
  moved_order_.push_back(inode);
  if (moved_order_.size() > kMostMoved) {
    moved_.erase(moved_order_.front());
    moved_order_.pop_front();
  }
}

}  // namespace postern::run
