// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/issuer_channel.h"
#include "proxy/identity/address_key.h"
#include "proxy/identity/backoff.h"
#include "proxy/identity/deadline_timer.h"
#include "proxy/identity/freshness.h"
#include "proxy/identity/mesh_stream.h"
#include "proxy/identity/snapshot.h"
#include "proxy/net/loop.h"

namespace postern::v1 {
class BundleSet;
class MeshRequest;
class PolicyDocuments;
class SignedRevocations;
class MeshResponse_EndpointUpdate_Answer;
}  // namespace postern::v1

namespace postern::identity {

// Keeps a Mesh stream to the issuer up: says Hello with what is held, applies and acknowledges what
// comes, asks for endpoints, reconnects with a growing delay (1 s to 10 s), which Hurry cuts short.
// A new identity gets a new stream beside the old one, which ends when the new one has spoken. Main
// loop only.
class MeshClient {
 public:
  static constexpr absl::Duration kLongestPause = absl::Seconds(10);
  // How long a new stream may stand in silence before the one that it replaces goes all the same.
  static constexpr absl::Duration kHandover = absl::Seconds(5);
  static constexpr int kMostAddressesPerRequest = 256;
  // Between two attempts while somebody is waiting, and how long after Hurry that is believed: a
  // connection is given up by then.
  static constexpr absl::Duration kHurriedPause = absl::Seconds(1);
  static constexpr absl::Duration kHurried = absl::Seconds(5);

  // What the stream works for. Called on the main loop; outlives the client.
  class Delegate {
   public:
    virtual ~Delegate() = default;
    // An error is sent back to the issuer (nack); what was applied before goes on.
    virtual absl::Status OnBundles(const v1::BundleSet& bundles) = 0;
    virtual absl::Status OnPolicy(const v1::PolicyDocuments& documents) = 0;
    virtual absl::Status OnRevocations(const v1::SignedRevocations& revocations) = 0;
    virtual void OnAnswer(const v1::MeshResponse_EndpointUpdate_Answer& answer) = 0;
    virtual void OnAnswersEnd() = 0;  // after the last answer of one message
    // A message came: what is held is fresh. `skew`: this clock minus the issuer's.
    virtual void OnHeard(absl::Duration skew) = 0;
    // A new state of this kind was applied, or refused.
    virtual void OnApplied(TrustKind kind, bool ok) = 0;
    // The stream has begun or ended; see connected() and last_error().
    virtual void OnConnection() = 0;

    // For the Hello.
    virtual std::optional<Version> HeldBundles() const = 0;
    virtual std::optional<Version> HeldPolicy() const = 0;
    virtual std::optional<Version> HeldRevocations() const = 0;
    virtual std::vector<AddressKey> Subscriptions() const = 0;
  };

  // `serving`: the ports on which this proxy takes mesh connections; 0: every one.
  MeshClient(net::Loop& loop, const base::Clock& clock, RandomFraction random, Delegate& delegate,
             std::vector<uint16_t> serving);
  ~MeshClient();

  // Opens a stream with this identity and trust now, and uses them for reconnecting from now on.
  void Connect(rpc::IssuerChannelOptions options);

  // Uses them for reconnecting from now on, without touching a stream that stands.
  void UseForReconnect(rpc::IssuerChannelOptions options) { options_ = std::move(options); }

  void Subscribe(const std::vector<AddressKey>& keys);
  void Unsubscribe(const std::vector<AddressKey>& keys);

  // A connection waits for an answer: without a stream, tries again at once, and then every second
  // for a while; never more often than that.
  void Hurry();

  // Something was heard on a stream that still stands.
  bool connected() const { return current_.heard || draining_.heard; }
  // Why the last stream ended, or could not begin; OK before the first.
  const absl::Status& last_error() const { return last_error_; }

 private:
  struct Stream {
    std::unique_ptr<MeshStream> stream;
    uint64_t number = 0;  // tells callbacks of streams apart; 0: none
    bool heard = false;
  };

  void Open();
  void SendHello();
  Stream* Find(uint64_t number);
  void OnMessage(uint64_t number, const v1::MeshResponse& message);
  void OnEnd(uint64_t number, absl::Status status);
  void HurryReconnect();
  void OnHandoverTime();
  void Apply(Stream& from, const v1::MeshResponse& message);
  // Tells the delegate and the issuer what became of a new state.
  void Applied(Stream& from, TrustKind kind, const Version& version, const absl::Status& applied);
  static void Acknowledge(Stream& to, int kind, const Version& version,
                          const absl::Status& applied);
  void Drop(Stream& stream);

  net::Loop& loop_;
  const base::Clock& clock_;
  Delegate& delegate_;
  const std::vector<uint16_t> serving_;
  std::optional<rpc::IssuerChannelOptions> options_;
  Backoff backoff_;
  absl::Duration last_attempt_ = -absl::InfiniteDuration();   // SinceBoot
  absl::Duration hurried_until_ = -absl::InfiniteDuration();  // SinceBoot
  DeadlineTimer reconnect_;
  DeadlineTimer handover_;
  uint64_t last_number_ = 0;
  Stream current_;
  Stream draining_;  // of the former identity, until the new stream has spoken
  absl::Status last_error_;
};

}  // namespace postern::identity
