// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "control/mesh/types.h"
#include "control/store/store.h"

namespace postern::mesh {

inline constexpr size_t kMaxSubscriptions = 16384;  // addresses of one session
inline constexpr size_t kMaxServing = 1024;
// Of one entry from one address: a proxy has one, and a second while it hands over. What one
// certificate can make the issuer remember is bounded by this times the two above.
inline constexpr size_t kMaxSessionsFromOneSource = 32;
inline constexpr size_t kMaxAnswersPerUpdate = 256;  // Take again for the rest

// For how long a proxy that has gone is still counted as serving: a reconnect must not make its
// address look, for a moment, as if it were outside of the mesh. A restart of the issuer counts as
// the going of all that were connected.
inline constexpr absl::Duration kLinger = absl::Minutes(5);

// Who is at the other end of a mesh stream: from its verified certificate and its connection, never
// from its word.
struct ProxyFacts {
  x509::SpiffeId id;
  std::string entry_id;     // that its certificate was issued under (FindBySerial)
  base::IpAddress source;   // of its connection
  std::string serial = {};  // of its certificate; empty: it showed none (unix socket)
};

class MeshState;

// One connected proxy's view of the mesh. Owned by the stream that serves it; destroying it takes
// the proxy out of the registry and its connection's address out of the directory. Thread-safe.
//
// The stream's loop: after Connect, and after each call below, and whenever `wake` was called:
// Take, and write what it gives. At most one Take's worth is in flight, so a slow proxy costs no
// queue: what changed meanwhile is folded into the next Take.
class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // What a proxy says at first that it has, from an earlier stream or with its certificate: counts
  // as acknowledged, and is not sent again if it is the present one. Endpoints are always answered
  // afresh.
  void SetHeld(Kind kind, Version version);

  // Replaces the ports on which it takes mesh connections (Hello). InvalidArgument: too many.
  absl::Status SetServing(std::span<const Serving> serving);

  // Each address is answered once by Take, and again whenever its answer changes. Repeating one
  // asks again. ResourceExhausted: more than kMaxSubscriptions; none of these was added.
  absl::Status Subscribe(std::span<const Address> addresses);
  void Unsubscribe(std::span<const Address> addresses);

  // The proxy applied (`error` empty) or refused a version that was sent to it.
  void Acknowledge(Kind kind, Version version, std::string_view error);

  // What the proxy lacks, and counts it as sent.
  Updates Take();

 private:
  friend class MeshState;
  struct Waker;
  Session(std::shared_ptr<MeshState> state, uint64_t id, std::shared_ptr<Waker> waker);

  const std::shared_ptr<MeshState> state_;
  const uint64_t id_;
  const std::shared_ptr<Waker> waker_;
};

// The state that all mesh streams share: bundles, policy, the endpoint directory, and who is
// connected and has acknowledged what. Made by main; `store` and `clock` outlive it and its
// sessions. Thread-safe; only the Reload calls and Maintain block (on the store), and
// AwaitRevocations (on the proxies). `wake` callbacks run without this state's lock held.
//
// Directory. An entry's single-address allowances (/32, /128) are published even while its proxy is
// away. The source address of a proxy's connection is published only if its entry says
// publish_connection_address, lies in allowed_addresses (when there are any), and, unless allowed
// explicitly, is neither loopback nor unspecified. Ports: the entry's; if it names none, those that
// its connected proxies serve; if none is connected, any. A connection's own address is published
// for what this proxy serves and the entry allows. Two entries at one (address, port): both
// identities are expected there. An exact port wins over "any".
class MeshState : public std::enable_shared_from_this<MeshState> {
 public:
  // Reads entries and policy. The store's errors pass through.
  static absl::StatusOr<std::shared_ptr<MeshState>> Create(store::Store& store,
                                                           const base::Clock& clock);
  ~MeshState();
  MeshState(const MeshState&) = delete;
  MeshState& operator=(const MeshState&) = delete;

  // The present roots, at start and after each change of them (from ca::CaSigner::bundles).
  void SetBundles(BundleSet bundles);

  // What is revoked, signed: at start, and after each change of it or of the CA that signs.
  void SetRevocations(SignedRevocations revocations);

  // How far the connected proxies have followed a version of the revocations.
  struct Followed {
    size_t connected = 0;
    size_t acknowledged = 0;  // of these: this version or a newer one
  };
  // Waits until every connected proxy has acknowledged `version`, or for `patience`. Blocks.
  Followed AwaitRevocations(Version version, absl::Duration patience) const;

  // Reads the policy documents again, after PolicyStore::PutPolicy. On error the old ones stay.
  absl::Status ReloadPolicy();

  // Reads all entries again: at the start, and now and then in case a ReloadEntry failed. On error
  // the old ones stay.
  absl::Status ReloadEntries();

  // Reads one entry again, after it was made or deleted; its cost does not grow with their number.
  // On error what was known of it stays.
  absl::Status ReloadEntry(const std::string& id);

  // Forgets proxies that went longer than kLinger ago, and stores who is connected, for a restart.
  // For a timer, about every second. The store's errors pass through; the next call tries again.
  absl::Status Maintain();

  // A proxy's stream has begun; it counts as serving from its first SetServing on. `wake` is
  // called, from any thread, when Take has something new that was not caused by this session's own
  // calls; it must not block and must not destroy the session. It is neither running nor called any
  // more once ~Session has returned: so hold no lock there that `wake` takes. NotFound: the entry
  // does not exist (any more), or has another identity. ResourceExhausted: more than
  // kMaxSessionsFromOneSource.
  absl::StatusOr<std::unique_ptr<Session>> Connect(const ProxyFacts& facts,
                                                   std::function<void()> wake);

  std::shared_ptr<const BundleSet> bundles() const;
  std::shared_ptr<const PolicyDocuments> policy() const;
  std::shared_ptr<const SignedRevocations> revocations() const;  // null before the first

  // What a subscriber of `asked` would be told now. Port 0 asks for every port of the address.
  Answer Lookup(const Address& asked) const;

  std::vector<ProxyStatus> Proxies() const;
  size_t connected() const;
  size_t subscriptions() const;

 private:
  friend class Session;
  struct Impl;
  absl::Status LoadSpeakers();
  void ExpireLingering();
  MeshState(store::Store& store, const base::Clock& clock);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace postern::mesh
