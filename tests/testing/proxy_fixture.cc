// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/proxy_fixture.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "proxy/session/connection_limit.h"
#include "proxy/session/source_limits.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using base::Direction;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

config::AddressSpec Address(const std::string& text) {
  config::AddressSpec spec;
  if (text.rfind("unix:", 0) == 0) {
    spec.unix_path = text.substr(5);
    return spec;
  }
  const size_t colon = text.rfind(':');
  spec.host = text.substr(0, colon);
  spec.port = static_cast<uint16_t>(std::stoi(text.substr(colon + 1)));
  return spec;
}

template <typename Sum>
uint64_t SumOf(const std::vector<std::unique_ptr<session::Worker>>& workers, Sum sum) {
  uint64_t total = 0;
  for (const auto& worker : workers) {
    total += sum(worker->metrics());
  }
  return total;
}

}  // namespace

TestProxy::TestProxy() {
  std::signal(SIGPIPE, SIG_IGN);
  config.admin = "";
  config.metrics = "";
  shared.config = &config;
  shared.failures = &failures_;
  auto log = telemetry::AccessLog::Open(directory_.Path("access.log"));
  if (!log.ok()) {
    Die(log.status().ToString());
  }
  access_log_ = *std::move(log);
  shared.access_log = access_log_.get();
}

TestProxy::~TestProxy() {
  Stop();
}

void TestProxy::AddTunnel(Direction direction, const std::string& listen, const std::string& target,
                          const std::vector<std::string>& peers, bool client_auth) {
  config::TunnelSpec tunnel;
  tunnel.direction = direction;
  tunnel.listen = Address(listen);
  tunnel.target = Address(target);
  for (const std::string& peer : peers) {
    tunnel.peers.push_back(x509::SpiffeIdPattern::Parse(peer).value());
  }
  tunnel.client_auth = client_auth;
  tunnel.name = base::StrCat(base::Token(direction), ":", listen);
  config.tunnels.push_back(std::move(tunnel));
}

void TestProxy::Start() {
  shared.limits = std::make_shared<session::SourceLimits>(config, session::ConnectionLimit(config));
  for (unsigned i = 0; i < config.workers; ++i) {
    auto worker = session::Worker::Create(i, shared);
    if (!worker.ok()) {
      Die(worker.status().ToString());
    }
    workers_.push_back(*std::move(worker));
  }
  for (const auto& worker : workers_) {
    worker->Start();
  }
}

void TestProxy::Stop() {
  for (const auto& worker : workers_) {
    worker->Stop();
  }
}

void TestProxy::PublishIdentity(const TestCa& ca, std::string_view id) {
  PublishIdentity(ca.Issue(id), ca.BundleSet());
}

void TestProxy::PublishIdentity(x509::Svid svid, x509::TrustBundleSet bundles) {
  svid_ = std::make_shared<const x509::Svid>(std::move(svid));
  PublishBundles(std::move(bundles));
}

void TestProxy::PublishBundles(x509::TrustBundleSet bundles) {
  auto snapshot = std::make_shared<identity::IdentitySnapshot>();
  snapshot->svid = svid_;
  snapshot->bundles = std::make_shared<const x509::TrustBundleSet>(std::move(bundles));
  snapshot->obtained = absl::Now();
  snapshot->generation = ++generation_;
  snapshot->ticket_secret = identity::TicketSecret::Make();
  for (const auto& worker : workers_) {
    worker->PublishIdentity(snapshot);
  }
}

void TestProxy::PublishPolicy(std::shared_ptr<const policy::PolicySet> policy) {
  for (const auto& worker : workers_) {
    worker->PublishPolicy(policy);
  }
}

void TestProxy::PublishPolicy(std::string_view yaml, std::string_view workload) {
  auto compiled = policy::PolicySet::Compile({{"test.yaml", std::string(yaml)}},
                                             x509::SpiffeId::Parse(workload).value(), 1);
  if (!compiled.ok()) {
    Die(compiled.status().ToString());
  }
  PublishPolicy(*compiled);
}

void TestProxy::PublishRevocations(std::vector<x509::Revocation> revocations,
                                   std::vector<std::shared_ptr<const x509::Crl>> crls) {
  const auto set =
      std::make_shared<const x509::RevocationSet>(std::move(revocations), std::move(crls));
  for (const auto& worker : workers_) {
    worker->PublishRevocations(set);
  }
}

uint16_t TestProxy::Port(size_t listener) const {
  return workers_.front()->listeners().at(listener).address.port();
}

uint16_t TestProxy::PortOf(std::string_view listener) const {
  for (const session::Worker::BoundListener& bound : workers_.front()->listeners()) {
    if (bound.name == listener && bound.address.ip().is_v4()) {
      return bound.address.port();
    }
  }
  Die("no such listener");
}

uint64_t TestProxy::Opened() const {
  return SumOf(workers_, [](const telemetry::WorkerMetrics& m) {
    return m.opened[0].value() + m.opened[1].value();
  });
}

uint64_t TestProxy::Closed() const {
  uint64_t total = 0;
  for (const CloseReason reason : base::kAllCloseReasons) {
    total += Closed(reason);
  }
  return total;
}

uint64_t TestProxy::Closed(CloseReason reason) const {
  return SumOf(workers_, [reason](const telemetry::WorkerMetrics& m) {
    const auto at = static_cast<size_t>(reason);
    return m.closed[0][at].value() + m.closed[1][at].value();
  });
}

uint64_t TestProxy::Handshakes() const {
  return SumOf(workers_, [](const telemetry::WorkerMetrics& m) {
    return m.handshakes[0].value() + m.handshakes[1].value();
  });
}

uint64_t TestProxy::Resumed() const {
  return SumOf(workers_, [](const telemetry::WorkerMetrics& m) {
    return m.resumed[0].value() + m.resumed[1].value();
  });
}

uint64_t TestProxy::Refused(telemetry::TicketRefusal refusal) const {
  return SumOf(workers_, [refusal](const telemetry::WorkerMetrics& m) {
    return m.tickets_refused[static_cast<size_t>(refusal)].value();
  });
}

uint64_t TestProxy::Secured(telemetry::Security security) const {
  return SumOf(workers_, [security](const telemetry::WorkerMetrics& m) {
    const auto at = static_cast<size_t>(security);
    return m.secured[0][at].value() + m.secured[1][at].value();
  });
}

uint64_t TestProxy::Plaintext(telemetry::PlaintextReason reason) const {
  return SumOf(workers_, [reason](const telemetry::WorkerMetrics& m) {
    return m.plaintext[static_cast<size_t>(reason)].value();
  });
}

bool TestProxy::AwaitClosed(CloseReason reason, uint64_t count) const {
  return Await([this, reason, count] { return Closed(reason) >= count; });
}

bool TestProxy::AwaitIdle() const {
  return Await([this] { return Open() == 0; });
}

std::string TestProxy::Reasons() const {
  std::string text = base::StrCat("opened ", Opened());
  for (const CloseReason reason : base::kAllCloseReasons) {
    if (Closed(reason) > 0) {
      base::StrAppend(text, ", ", base::Token(reason), " ", Closed(reason));
    }
  }
  return text;
}

std::string TestProxy::AccessLog() {
  Stop();
  shared.access_log = nullptr;
  workers_.clear();
  access_log_.reset();  // writes out what is queued
  return base::ReadFile(directory_.Path("access.log")).value_or("");
}

ProxyPair::ProxyPair(Server::Serve serve, int receive_buffer)
    : app(std::move(serve), receive_buffer) {}

// The proxies go first, so that the application's threads see their connections end.
ProxyPair::~ProxyPair() {
  client.Stop();
  server.Stop();
}

void ProxyPair::Start() {
  server.AddTunnel(Direction::kInbound, "127.0.0.1:0", base::StrCat("127.0.0.1:", app.port()),
                   {std::string(kWeb)});
  server.Start();
  server.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  server.PublishIdentity(ca, kDb);
  client.AddTunnel(Direction::kOutbound, "127.0.0.1:0", base::StrCat("127.0.0.1:", server.Port()),
                   {std::string(kDb)});
  client.Start();
  client.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kWeb).value()));
  client.PublishIdentity(ca, kWeb);
}

}  // namespace postern::testing
