// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/revocation_set.h"
#include "proxy/config/proxy_config.h"
#include "proxy/identity/endpoint_directory.h"
#include "proxy/identity/snapshot.h"
#include "proxy/identity/trust_clock.h"
#include "proxy/intercept/original_destination.h"
#include "proxy/intercept/self_probe.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"
#include "proxy/policy/policy_set.h"
#include "proxy/session/handed_over.h"
#include "proxy/session/port_memory.h"
#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/worker_metrics.h"

namespace postern::session {

class ListenerShare;
class SourceLimits;
std::shared_ptr<ListenerShare> NewListenerShare();

// What every worker is given by main and shares with the others; outlives them.
struct WorkerShared {
  const config::ProxyConfig* config = nullptr;
  const base::Clock* clock = &base::Clock::System();
  telemetry::AccessLog* access_log = nullptr;        // may be null
  telemetry::FailureRing* failures = nullptr;        // may be null
  identity::EndpointDirectory* endpoints = nullptr;  // may be null: nothing is in the mesh
  const identity::TrustClock* times = nullptr;       // may be null: no issuer says what time it is
  // Whether the issuer is heard, so that it could tell of a peer that has lost its identity; any
  // thread. Null: there is none.
  std::function<bool()> hears_issuer;
  // How an intercepted connection says where it was going.
  std::function<absl::StatusOr<net::SocketAddress>(const net::Stream& accepted, bool transparent)>
      original_destination = &intercept::OriginalDestination;
  // The proxy's own probes of its interception rules; null: there are none.
  intercept::ProbeSlot* probe = nullptr;
  // What was learned of the application's ports.
  std::shared_ptr<PortMemory> ports = std::make_shared<PortMemory>();
  // Ports that the first worker picked and sockets that it opened, for the others to share.
  std::shared_ptr<ListenerShare> listener_share = NewListenerShare();
  // What one source may have, counted over all workers. Null: sources are not counted.
  std::shared_ptr<SourceLimits> limits;
};

// One open connection, for /connections. A value.
struct ConnectionInfo {
  uint64_t id = 0;
  base::Direction direction = base::Direction::kInbound;
  std::string phase;
  std::string tunnel, downstream_address, destination, upstream_address;
  std::string peer_id;
  absl::Time peer_not_after = absl::InfiniteFuture();  // unless there is a verified peer
  uint32_t reauthentications = 0;                      // of the peer, inside the connection
  telemetry::Security security = telemetry::Security::kNone;
  absl::Time opened;
  uint64_t bytes_from_downstream = 0, bytes_from_upstream = 0;
};

// One loop, its thread, its listeners and its sessions, which never leave it. Made (the loop and
// listeners on its own thread) and destroyed by main; Publish functions: any thread.
class Worker {
 public:
  // Opens every listener that the config names (tunnels, interception) with SO_REUSEPORT, or adopts
  // duplicates for unix sockets. Errors name flag and address; nothing is accepted before Start.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(unsigned index, const WorkerShared& shared);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Start();  // its thread runs

  // New state for new connections, and for the open ones: policy and bundle changes re-check them
  // and close those that lost (policy_revoked). Before the first identity, connections that need
  // one are held up to the handshake deadline and then closed with no_identity.
  void PublishIdentity(std::shared_ptr<const identity::IdentitySnapshot> snapshot);
  void PublishPolicy(std::shared_ptr<const policy::PolicySet> policy);
  // What is revoked, the whole of it: handshakes with it are refused from now on, no session made
  // before is resumed, and open connections with it are closed (peer_revoked).
  void PublishRevocations(std::shared_ptr<const x509::RevocationSet> revocations);

  // What `postern run` has taken from its command. The listening socket is `postern run`'s or the
  // other workers' as well: a duplicate is made. `target`: where the command itself accepts.
  void TakeConnection(HandedConnection handed);
  void TakeListener(std::shared_ptr<const base::UniqueFd> listening,
                    const net::SocketAddress& target);

  // Drain: inbound goes on accepting for `delay`, then stops; outbound goes on. `done` is called on
  // the worker's thread when no connection is left, or at `deadline` after the rest was closed with
  // drain_deadline. A second call can only shorten; one after `done` waits for what was dialled
  // since.
  void Drain(std::chrono::milliseconds delay, std::chrono::milliseconds deadline,
             std::function<void()> done);
  // Ends at once: every connection is reset, the thread joined. Idempotent.
  void Stop();

  // Calls `done` on the worker's thread with what is open (at most `limit`).
  void ListConnections(size_t limit, std::function<void(std::vector<ConnectionInfo>)> done);

  const telemetry::WorkerMetrics& metrics() const;
  // The bound addresses, in the order inbound and outbound listeners were configured: for tests
  // that asked for port 0, and for /status. Fixed after Create.
  struct BoundListener {
    std::string name;  // tunnel name, "inbound" or "outbound"
    net::SocketAddress address;
  };
  const std::vector<BoundListener>& listeners() const;

 private:
  struct Impl;
  explicit Worker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::session
