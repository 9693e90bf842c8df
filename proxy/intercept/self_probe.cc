// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/self_probe.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/status/status.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/intercept/rules.h"
#include "proxy/intercept/socket_table.h"
#include "proxy/net/errno_status.h"

namespace postern::intercept {
namespace {

using std::chrono::milliseconds;

// From the connect call, which loopback answers at once, to a worker's accept.
constexpr milliseconds kPatience{250};
// Once something is wrong its end is looked for more often.
constexpr milliseconds kLongestRetry{1000};
// A worker that is busy for a moment is late, which is no sign that rules are gone.
constexpr unsigned kElsewhereAtMost = 3;

base::IpAddress Loopback(bool v4) {
  return base::IpAddress::Parse(v4 ? "127.0.0.1" : "::1").value();
}

int PendingError(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

}  // namespace

net::SocketAddress ProbeTarget(uint16_t outbound_port, bool v4) {
  return {Loopback(v4), ProbePort(outbound_port)};
}

void ProbeSlot::Expect(bool v4, uint16_t port) {
  Family& family = families_[v4 ? 0 : 1];
  family.expected = 0;
  family.claimed = false;
  family.expected = port;
}

bool ProbeSlot::Claim(const net::SocketAddress& peer) {
  if (peer.is_unix()) {
    return false;
  }
  Family& family = families_[peer.ip().is_v4() ? 0 : 1];
  uint16_t port = peer.port();
  if (port == 0 || family.expected.load(std::memory_order_relaxed) != port ||
      !peer.ip().IsLoopback() || !family.expected.compare_exchange_strong(port, 0)) {
    return false;
  }
  family.claimed = true;
  return true;
}

bool ProbeSlot::IsClaimed(bool v4) const {
  return families_[v4 ? 0 : 1].claimed;
}

// Without rules nobody listens at the place that is dialled, and loopback says so at once, whatever
// this proxy is doing.
ProbeFinding Judge(const ProbeSight& sight) {
  if (sight.claimed || sight.at_outbound_port == true) {
    return ProbeFinding::kCaught;
  }
  if (sight.error == ECONNREFUSED) {
    return ProbeFinding::kNotCaught;
  }
  const bool reached_others = sight.connected && sight.at_outbound_port == false;
  if (sight.error != 0 || reached_others || !sight.gate_closed) {
    return ProbeFinding::kElsewhere;
  }
  return ProbeFinding::kNothing;
}

SelfProbe::SelfProbe(net::Loop& loop, const Options& options)
    : options_(options), timer_(loop, [this] { OnTimer(); }) {
  families_[1].v4 = false;
}

void SelfProbe::Start() {
  timer_.Start(milliseconds(0));
}

std::optional<bool> SelfProbe::IsCaught() const {
  const Verdict v4 = verdict(true);
  const Verdict v6 = verdict(false);
  if (v4 == Verdict::kNotCaught || v6 == Verdict::kNotCaught) {
    return false;
  }
  if (v4 == Verdict::kUnknown && v6 == Verdict::kUnknown) {
    return std::nullopt;
  }
  return true;
}

void SelfProbe::OnTimer() {
  if (next_ == Step::kLaunch) {
    for (Family& family : families_) {
      Launch(family);
    }
    next_ = Step::kJudge;
    timer_.Start(kPatience);
    return;
  }
  bool well = true;
  for (Family& family : families_) {
    Conclude(family);
    well = well && family.verdict != Verdict::kNotCaught && family.elsewhere == 0;
  }
  next_ = Step::kLaunch;
  timer_.Start(well ? options_.period : std::min(options_.period, kLongestRetry));
}

// Bound before it connects, so that the worker that accepts it knows it.
absl::Status SelfProbe::Prepare(Family& family) {
  const int fd =
      socket(family.v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return net::ErrnoStatus(errno, "socket");
  }
  family.socket = Descriptor(fd);
  const linger reset{1, 0};  // no port is to wait after it
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  if (options_.mark != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_MARK, &options_.mark, sizeof(options_.mark)) != 0) {
    return net::ErrnoStatus(errno, "SO_MARK (needs CAP_NET_ADMIN)");
  }
  sockaddr_storage storage{};
  socklen_t length = net::SocketAddress(Loopback(family.v4), 0).ToSockaddr(&storage);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) {
    return net::ErrnoStatus(errno, "bind");
  }
  const auto own = net::SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length);
  if (!own.ok()) {
    return own.status();
  }
  family.source = *own;
  family.gate_closed = slot_.HasClosedGate();
  slot_.Expect(family.v4, own->port());
  return absl::OkStatus();
}

void SelfProbe::Launch(Family& family) {
  if (const absl::Status prepared = Prepare(family); !prepared.ok()) {
    SPDLOG_DEBUG("interception probe: {}", base::Message(prepared));
    family.socket.Close();
    return;
  }
  sockaddr_storage storage{};
  const socklen_t length = ProbeTarget(options_.outbound_port, family.v4).ToSockaddr(&storage);
  const int called = connect(family.socket.get(), reinterpret_cast<sockaddr*>(&storage), length);
  family.error = called == 0 || errno == EINPROGRESS ? 0 : errno;
}

ProbeSight SelfProbe::Look(const Family& family) const {
  const int fd = family.socket.get();
  ProbeSight sight;
  sight.claimed = slot_.IsClaimed(family.v4);
  if (sight.claimed) {
    return sight;
  }
  sight.error = family.error != 0 ? family.error : PendingError(fd);
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  sight.connected =
      sight.error == 0 && getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) == 0;
  if (sight.error == 0) {
    const net::SocketAddress outbound(Loopback(family.v4), options_.outbound_port);
    const absl::StatusOr<bool> there = HasTcpConnection(outbound, family.source);
    if (there.ok()) {
      sight.at_outbound_port = *there;
    } else {
      // The workers then have no descriptor to accept with, either.
      const int why = net::ErrnoOf(there.status());
      sight.gate_closed = why == EMFILE || why == ENFILE;
    }
  }
  // Again, after the question where it is: a worker may have taken it in between.
  sight.claimed = slot_.IsClaimed(family.v4);
  sight.gate_closed = sight.gate_closed || family.gate_closed || slot_.HasClosedGate();
  return sight;
}

void SelfProbe::Conclude(Family& family) {
  if (family.socket.get() < 0) {
    return;  // the host has no such family, or no descriptor: nothing is learned
  }
  const ProbeFinding finding = Judge(Look(family));
  slot_.Expect(family.v4, 0);
  family.socket.Close();
  family.elsewhere = finding == ProbeFinding::kElsewhere ? family.elsewhere + 1 : 0;
  if (finding == ProbeFinding::kCaught) {
    Decide(family, Verdict::kCaught);
  } else if (finding == ProbeFinding::kNotCaught || family.elsewhere >= kElsewhereAtMost) {
    Decide(family, Verdict::kNotCaught);
  }
}

void SelfProbe::Decide(Family& family, Verdict verdict) {
  if (family.verdict.exchange(verdict) == verdict) {
    return;
  }
  const std::string_view name = family.v4 ? "IPv4" : "IPv6";
  if (verdict == Verdict::kCaught) {
    spdlog::info("interception rules are in force ({})", name);
  } else {
    spdlog::error(
        "interception rules are NOT in force ({}): connections of the application may go past this "
        "proxy, in plaintext; see `postern intercept show` and `postern intercept diff`",
        name);
  }
}

std::string_view Token(SelfProbe::Verdict verdict) {
  switch (verdict) {
    case SelfProbe::Verdict::kCaught:
      return "caught";
    case SelfProbe::Verdict::kNotCaught:
      return "not_caught";
    case SelfProbe::Verdict::kUnknown:
      break;
  }
  return "unknown";
}

}  // namespace postern::intercept
