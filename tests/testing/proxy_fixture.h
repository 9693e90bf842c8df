// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/close_reason.h"
#include "common/base/failure.h"
#include "common/x509/revocation_set.h"
#include "proxy/config/proxy_config.h"
#include "proxy/policy/policy_set.h"
#include "proxy/session/worker.h"
#include "proxy/telemetry/access_record.h"
#include "tests/testing/sockets.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::testing {

// A data plane in this process: workers on loops of their own, fed by the test instead of an
// identity source. Set `config` and `shared` up, then Start.
class TestProxy {
 public:
  TestProxy();
  ~TestProxy();

  config::ProxyConfig config;
  session::WorkerShared shared;

  void AddTunnel(base::Direction direction, const std::string& listen, const std::string& target,
                 const std::vector<std::string>& peers, bool client_auth = true);
  void Start();
  void Stop();

  void PublishIdentity(const TestCa& ca, std::string_view id);
  void PublishIdentity(x509::Svid svid, x509::TrustBundleSet bundles);
  // Only the trust changes.
  void PublishBundles(x509::TrustBundleSet bundles);
  void PublishPolicy(std::shared_ptr<const policy::PolicySet> policy);
  void PublishPolicy(std::string_view yaml, std::string_view workload);
  void PublishRevocations(std::vector<x509::Revocation> revocations,
                          std::vector<std::shared_ptr<const x509::Crl>> crls = {});

  uint16_t Port(size_t listener = 0) const;
  uint16_t PortOf(std::string_view listener) const;  // "inbound", "outbound" of interception, IPv4
  Socket Connect(size_t listener = 0) const { return Socket::Connect("127.0.0.1", Port(listener)); }
  session::Worker& worker(size_t i = 0) { return *workers_[i]; }

  // Sums over the workers.
  uint64_t Opened() const;
  uint64_t Closed() const;
  uint64_t Closed(base::CloseReason reason) const;
  uint64_t Open() const { return Opened() - Closed(); }
  uint64_t Handshakes() const;
  uint64_t Resumed() const;
  uint64_t Refused(telemetry::TicketRefusal refusal) const;
  uint64_t Secured(telemetry::Security security) const;
  uint64_t Plaintext(telemetry::PlaintextReason reason) const;
  // Waits until as many connections have ended so.
  bool AwaitClosed(base::CloseReason reason, uint64_t count = 1) const;
  bool AwaitIdle() const;  // nothing open
  // What ended, for the message of a failed expectation.
  std::string Reasons() const;
  std::string Failures() const { return failures_.ToJson(); }
  // The access log so far, one JSON object for each line.
  std::string AccessLog();

 private:
  TempDir directory_;
  telemetry::FailureRing failures_;
  std::unique_ptr<telemetry::AccessLog> access_log_;
  std::vector<std::unique_ptr<session::Worker>> workers_;
  std::shared_ptr<const x509::Svid> svid_;
  uint64_t generation_ = 0;
};

inline net::SocketAddress Loopback(uint16_t port) {
  return {base::IpAddress::Parse("127.0.0.1").value(), port};
}

inline constexpr std::string_view kWeb = "spiffe://example.org/web";
inline constexpr std::string_view kDb = "spiffe://example.org/db";

// Policies about kWeb, for PublishPolicy.
inline constexpr std::string_view kAllowWeb = R"(
apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: web-only}
spec:
  action: ALLOW
  rules:
    - from: [{spiffeIds: ["spiffe://example.org/web"]}]
)";
inline constexpr std::string_view kDenyWeb = R"(
apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: no-web}
spec:
  action: DENY
  rules:
    - from: [{spiffeIds: ["spiffe://example.org/web"]}]
)";

// An application server, a proxy in front of it with an inbound tunnel, and a proxy of a client
// with an outbound tunnel to it:   test -> client -> mTLS -> server -> application.
class ProxyPair {
 public:
  explicit ProxyPair(Server::Serve serve, int receive_buffer = 0);
  ~ProxyPair();

  TestCa ca;
  Server app;
  TestProxy client;  // kWeb
  TestProxy server;  // kDb

  // What a test wants to be different is set on the members before.
  void Start();
  Socket Connect() const { return client.Connect(); }
};

}  // namespace postern::testing
