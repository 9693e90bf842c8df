// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "proxy/intercept/nft_process.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/timer.h"

namespace postern::intercept {

// Where the proxy of that outbound port dials itself; rules lead it to the outbound port.
net::SocketAddress ProbeTarget(uint16_t outbound_port, bool v4);

// What the main loop and the workers share of the probes: the source ports that are expected at the
// outbound listener, one for each family. Any thread, no lock.
class ProbeSlot {
 public:
  // From now on a connection from this port of the loopback address is a probe; 0: none is.
  void Expect(bool v4, uint16_t port);
  // Whether the connection that was accepted at the outbound port is the expected probe, which it
  // is once.
  bool Claim(const net::SocketAddress& peer);
  // Whether it was claimed.
  bool IsClaimed(bool v4) const;

  // A worker has stopped to accept at the outbound port because it is at a limit, or goes on.
  void GateClosed() { closed_gates_.fetch_add(1, std::memory_order_relaxed); }
  void GateOpened() { closed_gates_.fetch_sub(1, std::memory_order_relaxed); }
  // Whether a probe may have to wait for its accept.
  bool HasClosedGate() const { return closed_gates_.load(std::memory_order_relaxed) > 0; }

 private:
  struct Family {
    std::atomic<uint16_t> expected{0};
    std::atomic<bool> claimed{false};
  };
  std::array<Family, 2> families_;
  std::atomic<unsigned> closed_gates_{0};
};

// What was seen of one probe when its time was over. A value.
struct ProbeSight {
  bool claimed = false;    // a worker has accepted it
  int error = 0;           // of its connect
  bool connected = false;  // it stands, or did
  // Whether what it has reached is this proxy's outbound port, as the kernel says; nullopt: the
  // kernel does not say.
  std::optional<bool> at_outbound_port = std::nullopt;
  bool gate_closed = false;  // a worker does not accept: it is at a limit, or has no descriptor
};
enum class ProbeFinding : uint8_t {
  kCaught,     // the rules have led it here
  kNotCaught,  // the host itself has refused it, as it does without rules
  kElsewhere,  // nobody here has seen it; which once or twice has other reasons
  kNothing,    // it waits where nobody accepts: it proves nothing
};
// Pure.
ProbeFinding Judge(const ProbeSight& sight);

// Notices that the rules of `postern intercept` are no longer in force, by dialling in each period
// the place that they lead back to this proxy's outbound port, in IPv4 and (where the host has it)
// IPv6. Without rules the connection is refused by the host itself at once: nothing leaves it. What
// that proves: the table is there and its output chain works for this proxy. While a worker is at
// its limit and accepts nothing, the kernel is asked where the probe's connection stands; where it
// cannot say, the verdict stays as it was. Main loop's thread, but for verdict and slot.
class SelfProbe {
 public:
  enum class Verdict : uint8_t { kUnknown, kCaught, kNotCaught };
  struct Options {
    uint16_t outbound_port = 0;
    uint32_t mark = 0;  // SO_MARK, as on every connection of the proxy; 0: none
    std::chrono::milliseconds period{5000};
  };

  SelfProbe(net::Loop& loop, const Options& options);
  SelfProbe(const SelfProbe&) = delete;
  SelfProbe& operator=(const SelfProbe&) = delete;

  void Start();

  ProbeSlot& slot() { return slot_; }
  Verdict verdict(bool v4) const { return families_[v4 ? 0 : 1].verdict.load(); }
  // False when a family is not caught, true when all that are known are; nullopt: nothing is known.
  std::optional<bool> IsCaught() const;

 private:
  struct Family {
    bool v4 = true;
    Descriptor socket;
    net::SocketAddress source;
    int error = 0;             // of the connect call
    bool gate_closed = false;  // at the launch
    unsigned elsewhere = 0;    // probes in a row
    std::atomic<Verdict> verdict{Verdict::kUnknown};
  };
  enum class Step : uint8_t { kLaunch, kJudge };

  void OnTimer();
  void Launch(Family& family);
  absl::Status Prepare(Family& family);
  void Conclude(Family& family);
  ProbeSight Look(const Family& family) const;
  void Decide(Family& family, Verdict verdict);

  const Options options_;
  ProbeSlot slot_;
  std::array<Family, 2> families_;
  Step next_ = Step::kLaunch;
  net::Timer timer_;
};

// "caught", "not_caught", "unknown".
std::string_view Token(SelfProbe::Verdict verdict);

}  // namespace postern::intercept
