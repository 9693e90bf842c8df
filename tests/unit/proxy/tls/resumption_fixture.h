// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/tls/session_cache.h"
#include "proxy/tls/ticket_keys.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/proxy/tls/engine_pair.h"
#include "tests/unit/proxy/tls/plain_peer.h"

namespace postern::tls {

// Two workloads that resume: the server's keys and state of trust and the client's cache are the
// test's to change between two connections.
class ResumptionTest : public EngineTest {
 protected:
  static constexpr std::string_view kListener = "inbound:127.0.0.1:8443";
  static constexpr std::string_view kDestination = "127.0.0.1:8443";
  static constexpr std::string_view kServerId = "spiffe://example.org/server";

  static std::shared_ptr<const TicketKeys> Keys(uint8_t seed) {
    std::array<uint8_t, TicketKeys::kSecretBytes> secret{};
    secret.fill(seed);
    return TicketKeys::Create(secret).value();
  }
  TlsOptions ServerOptions() const {
    TlsOptions options;
    options.clock = &clock_;
    options.ticket_keys = keys_;
    options.trust = trust_;
    return options;
  }
  TlsOptions ClientOptions() const {
    TlsOptions options;
    options.clock = &clock_;
    options.sessions = sessions_;
    return options;
  }
  End Server(std::string_view listener = kListener) {
    return {TlsEngine::CreateServer(server_, scratch_, listener).value(), &scratch_};
  }
  End Client(std::string_view destination = kDestination, std::string_view expected = kServerId) {
    return {TlsEngine::CreateClient(client_, scratch_, Only(expected), destination).value(),
            &scratch_};
  }
  // What was changed above takes effect.
  void Renew() {
    server_ = ServerContext(server_svid_, ServerOptions());
    client_ = ClientContext(client_svid_, ClientOptions());
  }
  // A connection on which each side says something, so that the ticket comes; still open.
  EnginePair Connect(End client, End server) {
    EnginePair pair{std::move(client), std::move(server)};
    pair.Shake();
    EXPECT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone)
        << pair.client.engine->failure().detail;
    EXPECT_EQ(pair.server.engine->Handshake().outcome, EngineOutcome::kDone)
        << pair.server.engine->failure().detail;
    pair.client.Write("request");
    pair.Pump();
    pair.server.Write("reply");
    pair.Pump();
    EXPECT_EQ(pair.server.received, "request");
    EXPECT_EQ(pair.client.received, "reply");
    EXPECT_EQ(pair.client.engine->facts().resumed, pair.server.engine->facts().resumed);
    return pair;
  }
  EnginePair Connect() { return Connect(Client(), Server()); }
  // The same; what became of the ticket, as the server sees it.
  TicketUse Use() { return Connect().server.engine->ticket_use(); }

  fakes::FakeClock clock_{absl::Now()};
  std::shared_ptr<const TicketKeys> keys_ = Keys(1);
  std::shared_ptr<TrustState> trust_ = std::make_shared<TrustState>();
  std::shared_ptr<SessionCache> sessions_ = std::make_shared<SessionCache>();
  std::shared_ptr<const TlsContext> server_ = ServerContext(server_svid_, ServerOptions());
  std::shared_ptr<const TlsContext> client_ = ClientContext(client_svid_, ClientOptions());
};

}  // namespace postern::tls
