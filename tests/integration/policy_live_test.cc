// SPDX-License-Identifier: Apache-2.0
// Every kind of policy document takes effect on connections that are open: those that lost their
// right are closed, the others are left alone. What is in audit mode closes nothing and is told of.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "tests/integration/inbound_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;
using config::PeerMode;
using telemetry::PlaintextReason;

constexpr std::string_view kApi = "apiVersion: postern.dev/v1\n";

std::string Document(std::string_view kind, std::string_view spec) {
  return base::StrCat("---\n", kApi, "kind: ", kind, "\nmetadata: {name: it}\nspec: ", spec, "\n");
}

std::string Exchange(Socket& socket, std::string_view text) {
  socket.Send(text);
  return socket.ReadExactly(text.size());
}

class PolicyLiveTest : public InboundInterceptionTest {
 protected:
  void StartWith(const std::string& yaml, PeerMode mode) {
    Start(&Echo, mode);
    proxy_.PublishPolicy(yaml, kDb);
  }
  std::string ModeOfThePort(std::string_view mode) {
    return Document("PeerMode", base::StrCat("{ports: {\"", app_->port(), "\": ", mode, "}}"));
  }
  std::string Probe(std::string_view cidr) {
    return Document("ProbeExemption",
                    base::StrCat("{ports: [", app_->port(), "], cidrs: [\"", cidr, "\"]}"));
  }
  uint64_t Audited() { return proxy_.worker().metrics().audited[0].value(); }
};

TEST_F(PolicyLiveTest, APortThatTurnsStrictEndsThePlaintextAndKeepsTheMesh) {
  Start(&Echo, PeerMode::kPermissive);
  Socket plain = Connect();
  EXPECT_EQ(Exchange(plain, "plain"), "plain");
  RawTls mesh(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  mesh.Send("mesh");
  EXPECT_EQ(mesh.ReadExactly(4), "mesh");
  proxy_.PublishPolicy(ModeOfThePort("strict"), kDb);
  EXPECT_EQ(Name(plain.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << proxy_.Reasons();
  mesh.Send("still");
  EXPECT_EQ(mesh.ReadExactly(5), "still");
  EXPECT_EQ(proxy_.Closed(), 1U) << proxy_.Reasons();
}

// What a client says is looked at before anything is judged, and policy may change meanwhile.
TEST_F(PolicyLiveTest, WhatWasHalfSaidIsPassedOnByThePolicyOfThen) {
  proxy_.config.sniff_timeout = std::chrono::milliseconds(10);
  Start(&Echo, PeerMode::kPermissive);
  Socket socket = Connect();
  ASSERT_TRUE(Await([&] { return app_->accepted() == 1; })) << "let in while it is silent";
  socket.Send("\x16\x03\x01");
  const auto is_sniffed = [this] {
    std::promise<std::string> phase;
    proxy_.worker().ListConnections(1, [&phase](std::vector<session::ConnectionInfo> open) {
      phase.set_value(open.empty() ? "" : open.front().phase);
    });
    return phase.get_future().get() == "sniff";
  };
  ASSERT_TRUE(Await(is_sniffed));
  proxy_.PublishPolicy(policy::PolicySet::DenyAll());
  socket.Send("no hello");
  EXPECT_EQ(Name(socket.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << proxy_.Reasons();
}

TEST_F(PolicyLiveTest, APortThatTurnsPermissiveEndsNothing) {
  Start(&Echo, PeerMode::kStrict);
  RawTls mesh(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  mesh.Send("mesh");
  EXPECT_EQ(mesh.ReadExactly(4), "mesh");
  proxy_.PublishPolicy(ModeOfThePort("permissive"), kDb);
  Socket plain = Connect();
  EXPECT_EQ(Exchange(plain, "plain"), "plain");
  mesh.Send("still");
  EXPECT_EQ(mesh.ReadExactly(5), "still");
  EXPECT_EQ(proxy_.Closed(), 0U) << proxy_.Reasons();
}

TEST_F(PolicyLiveTest, ADefaultThatNoLongerCoversAClientEndsIt) {
  StartWith(Document("DefaultPolicy", "{default: everybody}"), PeerMode::kPermissive);
  Socket plain = Connect();
  EXPECT_EQ(Exchange(plain, "plain"), "plain");
  RawTls mesh(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  mesh.Send("mesh");
  EXPECT_EQ(mesh.ReadExactly(4), "mesh");
  proxy_.PublishPolicy(Document("DefaultPolicy", "{default: any-identity}"), kDb);
  EXPECT_EQ(Name(plain.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << proxy_.Reasons();
  mesh.Send("still");
  EXPECT_EQ(mesh.ReadExactly(5), "still");
  proxy_.PublishPolicy(Document("DefaultPolicy", "{default: nobody}"), kDb);
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked, 2)) << proxy_.Reasons();
}

TEST_F(PolicyLiveTest, WhatIsInAuditModePassesAndIsCountedAndRecorded) {
  StartWith(Document("AuthorizationPolicy",
                     "{action: DENY, mode: audit, rules: [{from: [{unauthenticated: true}]}]}"),
            PeerMode::kPermissive);
  {
    Socket plain = Connect();
    EXPECT_EQ(Exchange(plain, "plain"), "plain");
    RawTls mesh(Connect(), {.certificate = &web_, .alpn = "postern/1"});
    mesh.Send("mesh");
    EXPECT_EQ(mesh.ReadExactly(4), "mesh");
    EXPECT_EQ(Audited(), 1U);
    plain.ShutdownWrite();
    EXPECT_EQ(plain.DrainToEnd(), ReadEnd::kEnd);
  }
  ASSERT_TRUE(proxy_.AwaitIdle());
  const std::string log = proxy_.AccessLog();
  const size_t plain_line = log.find("\"security\":\"plaintext\"");
  ASSERT_NE(plain_line, std::string::npos) << log;
  EXPECT_NE(log.find("\"policy_audit\":\"it / rule 1\""), std::string::npos) << log;
  EXPECT_EQ(log.find("policy_audit"), log.rfind("policy_audit")) << "of the mesh none: " << log;
}

TEST_F(PolicyLiveTest, AuditThatBeginsUnderAnOpenConnectionCountsItAndEnforcingEndsIt) {
  Start(&Echo, PeerMode::kPermissive);
  Socket plain = Connect();
  EXPECT_EQ(Exchange(plain, "plain"), "plain");
  EXPECT_EQ(Audited(), 0U);
  proxy_.PublishPolicy(Document("AuthorizationPolicy", "{action: ALLOW, mode: audit, rules: []}"),
                       kDb);
  ASSERT_TRUE(Await([&] { return Audited() == 1; }));
  EXPECT_EQ(Exchange(plain, "still"), "still");
  proxy_.PublishPolicy(Document("AuthorizationPolicy", "{action: ALLOW, mode: enforce, rules: []}"),
                       kDb);
  EXPECT_EQ(Name(plain.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << proxy_.Reasons();
}

TEST_F(PolicyLiveTest, AProbeGetsIntoAStrictPortInPlaintextAndNobodyElse) {
  Start(&Echo, PeerMode::kStrict);
  proxy_.PublishPolicy(base::StrCat(Probe("127.0.0.1"), "---", kDenyWeb), kDb);
  Socket probe = Connect();
  EXPECT_EQ(Exchange(probe, "GET /healthz"), "GET /healthz");
  EXPECT_EQ(proxy_.Plaintext(PlaintextReason::kProbe), 1U);
  // The mesh is judged as ever at the same port and address.
  RawTls mesh(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  mesh.Send("x");
  EXPECT_EQ(mesh.Read(1), "");
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyDenied)) << proxy_.Reasons();
  // The exemption is taken away, and with it the right.
  proxy_.PublishPolicy(Probe("192.0.2.0/24"), kDb);
  EXPECT_EQ(Name(probe.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPolicyRevoked)) << proxy_.Reasons();
  Socket other = Connect();
  other.Send("GET /healthz");
  EXPECT_EQ(Name(other.DrainToEnd()), Name(ReadEnd::kReset));
  EXPECT_TRUE(proxy_.AwaitClosed(CloseReason::kPlaintextRefused)) << proxy_.Reasons();
}

}  // namespace
}  // namespace postern::testing
