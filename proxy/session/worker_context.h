// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/base/failure.h"
#include "proxy/config/proxy_config.h"
#include "proxy/net/loop.h"
#include "proxy/net/name_cache.h"
#include "proxy/net/socket_address.h"
#include "proxy/policy/policy_set.h"
#include "proxy/session/own_addresses.h"
#include "proxy/session/worker.h"
#include "proxy/session/worker_identity.h"
#include "proxy/telemetry/worker_metrics.h"
#include "proxy/tls/tls_engine.h"

namespace postern::session {

class EndpointHealth;
class ExpiryWatch;
class SessionTable;

// What a listener is for: a tunnel's end, or one of the two interception ports. Made from the
// config when the worker opens its listeners, and as old as the worker.
struct ListenerSpec {
  std::string name;  // of the tunnel; "inbound" or "outbound" for interception
  base::Direction direction = base::Direction::kInbound;
  net::SocketAddress address;   // to listen on
  bool transparent = false;     // tproxy: the local address is the original destination
  bool takes_requests = false;  // an outbound proxy port: SOCKS5 and HTTP CONNECT
  // `postern run` hands it over: there is nobody to ask for the original destination.
  bool handed = false;
  const config::TunnelSpec* tunnel = nullptr;  // null: interception, or an outbound proxy port
  // The tunnel's, unless it is a host name; where the command of `postern run` itself accepts.
  std::optional<net::SocketAddress> target;
};

// What the sessions of one worker share. Owned by the worker, which alone changes it; its thread.
struct WorkerContext {
  const WorkerShared& shared;
  net::Loop& loop;
  telemetry::WorkerMetrics& metrics;
  SessionTable& table;
  tls::EngineScratch& tls_scratch;
  base::MutableByteSpan relay_scratch;  // holds what one read of a transport can give
  const OwnAddresses& own;
  std::shared_ptr<const policy::PolicySet> policy;  // null: none has come, nothing is let in
  std::shared_ptr<const WorkerIdentity> identity;   // null: none yet
  // What session tickets are bound to; kept up to date with the two above. Null: no resumption.
  std::shared_ptr<tls::TrustState> trust;
  ExpiryWatch& expiry;
  // What no peer may be, whatever vouches for it.
  std::shared_ptr<tls::RevocationState> revocations = std::make_shared<tls::RevocationState>();
  net::NameCache* names = nullptr;  // never null once the worker stands, as the next
  EndpointHealth* endpoints = nullptr;
  size_t connection_limit = 0;  // of this worker
  size_t handshake_limit = 0;   // likewise, in each direction

  const config::ProxyConfig& config() const { return *shared.config; }
};

}  // namespace postern::session
