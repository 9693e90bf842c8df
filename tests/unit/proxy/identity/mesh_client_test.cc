// SPDX-License-Identifier: Apache-2.0
// The Mesh stream, through IdentityManager, against a fake issuer on loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/fakes/shifted_clock.h"
#include "tests/unit/proxy/identity/issued_proxy.h"

namespace postern::identity {
namespace {

using testing::RunUntil;
using testing::TestCa;

class MeshClientTest : public IssuedProxyTest {
 protected:
  void Connect() {
    issuer_.Start();
    Start();
    ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().issuer_connected; }));
  }
  bool Acknowledges(int kind, bool well) {
    return RunUntil(*loop_, [&] {
      for (const auto& ack : issuer_.acks()) {
        if (ack.kind == kind && ack.error.empty() == well) {
          return true;
        }
      }
      return false;
    });
  }
  // The answer for a destination, waiting for it.
  std::optional<EndpointDirectory::Answer> Look(const std::string& destination) {
    std::optional<EndpointDirectory::Answer> answer;
    const auto query = manager_->directory().Lookup(
        *loop_, net::SocketAddress::Parse(destination).value(),
        [&answer](EndpointDirectory::Answer got) { answer = std::move(got); });
    RunUntil(
        *loop_, [&] { return answer.has_value(); }, std::chrono::seconds(5));
    return answer;
  }
  static std::string NameOf(const std::optional<EndpointDirectory::Answer>& answer) {
    if (!answer.has_value()) {
      return "unanswered";
    }
    if (!answer->ok()) {
      return absl::StatusCodeToString(answer->status().code());
    }
    return (*answer)->has_value() ? (**answer)->expected.front().ToString() : "plaintext";
  }
};

TEST_F(MeshClientTest, LetsNobodyInBeforeTheFirstPolicy) {
  Connect();
  ASSERT_EQ(policies_.size(), 1U);
  EXPECT_TRUE(policies_.back()->is_deny_all());
  EXPECT_FALSE(manager_->HasPolicy());
}

TEST_F(MeshClientTest, AppliesAndAcknowledgesPolicies) {
  Connect();
  issuer_.SetPolicy({{"p", AllowFrom("db")}});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Lets("db"); }));
  EXPECT_TRUE(Acknowledges(v1::KIND_POLICY, true));
  EXPECT_EQ(manager_->status().policy_source, "issuer");
  EXPECT_GT(manager_->gauges().policy_sequence, 0U);
  issuer_.SetPolicy({{"p", AllowFrom("other")}});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Lets("other"); }));
  EXPECT_FALSE(Lets("db"));
}

TEST_F(MeshClientTest, RefusesABadPolicyAndGoesOnWithTheLast) {
  Connect();
  issuer_.SetPolicy({{"p", AllowFrom("db")}});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Lets("db"); }));
  issuer_.SetPolicy({{"broken.yaml", "kind: Nonsense\n"}});
  EXPECT_TRUE(Acknowledges(v1::KIND_POLICY, false));
  EXPECT_NE(issuer_.acks().back().error.find("broken.yaml"), std::string::npos);
  EXPECT_TRUE(Lets("db"));
  EXPECT_NE(manager_->status().policy_error, "");
  issuer_.SetPolicy({});
  // Without a document the trust domain is let in.
  EXPECT_TRUE(RunUntil(*loop_, [&] { return Lets("anybody"); }));
}

TEST_F(MeshClientTest, LetsItsPolicyFileDecideAlone) {
  config_.policy_file = dir_.Write("policy.yaml", AllowFrom("db"));
  Connect();
  issuer_.SetPolicy({{"p", AllowFrom("other")}});
  EXPECT_TRUE(Acknowledges(v1::KIND_POLICY, false));
  EXPECT_TRUE(Lets("db"));
  EXPECT_FALSE(Lets("other"));
}

// A keep-alive says that nothing has changed; but what the issuer wants is not what is in force.
TEST_F(MeshClientTest, APolicyThatItRefusedIsNotConfirmedUntilOneIsApplied) {
  Connect();
  issuer_.SetPolicy({{"p", AllowFrom("db")}});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Lets("db"); }));
  issuer_.SetPolicy({{"broken.yaml", "kind: Nonsense\n"}});
  ASSERT_TRUE(Acknowledges(v1::KIND_POLICY, false));
  const auto policy = manager_->status().confirmed[1];
  const TestCa other("other.org");
  issuer_.SetBundles({&other});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return manager_->status().confirmed[0] > policy; }));
  EXPECT_EQ(manager_->status().confirmed[1], policy);
  EXPECT_EQ(manager_->times().confirmed(), policy) << "the oldest counts for --max-stale";
  issuer_.SetPolicy({{"p", AllowFrom("other")}});
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().confirmed[1] > policy; }));
}

TEST_F(MeshClientTest, AnIssuersPolicyThatIsNotAskedForIsNotStale) {
  config_.policy_file = dir_.Write("policy.yaml", AllowFrom("db"));
  Connect();
  issuer_.SetPolicy({{"p", AllowFrom("other")}});
  ASSERT_TRUE(Acknowledges(v1::KIND_POLICY, false));
  const auto before = manager_->status().confirmed[1];
  const TestCa other("other.org");
  issuer_.SetBundles({&other});
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().confirmed[1] > before; }));
}

TEST_F(MeshClientTest, PublishesChangedBundles) {
  Connect();
  const size_t before = snapshots_.size();
  const TestCa other("other.org");
  issuer_.SetBundles({&other});
  ASSERT_TRUE(RunUntil(*loop_, [&] { return snapshots_.size() > before; }));
  EXPECT_NE(snapshots_.back()->bundles->Find("other.org"), nullptr);
  EXPECT_EQ(snapshots_.back()->svid, snapshots_.front()->svid);
  EXPECT_EQ(snapshots_.back()->obtained, snapshots_.front()->obtained);
  EXPECT_GT(snapshots_.back()->bundle_version, snapshots_.front()->bundle_version);
  EXPECT_TRUE(Acknowledges(v1::KIND_BUNDLES, true));
  // What was withdrawn is gone.
  issuer_.SetBundles({});
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return snapshots_.back()->bundles->Find("other.org") == nullptr; }));
}

TEST_F(MeshClientTest, RefusesBundlesThatItsCertificateDoesNotVerifyAgainstAndRenews) {
  Connect();
  const TestCa next;
  const size_t asked = issuer_.requests().size();
  issuer_.WithdrawRoot(next);
  EXPECT_TRUE(Acknowledges(v1::KIND_BUNDLES, false));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return issuer_.requests().size() > asked; }));
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_TRUE(manager_->HasUsableIdentity());
}

TEST_F(MeshClientTest, AnswersWhoIsBehindADestination) {
  issuer_.SetEndpoint("198.18.0.5", 5432, {"spiffe://example.org/db"});
  Connect();
  EXPECT_EQ(NameOf(Look("198.18.0.5:5432")), "spiffe://example.org/db");
  EXPECT_EQ(NameOf(Look("198.18.0.6:80")), "plaintext");
  EXPECT_EQ(issuer_.subscriptions(), 2U);
  EXPECT_TRUE(manager_->directory().IsMeshMember(base::IpAddress::Parse("198.18.0.5").value()));
}

TEST_F(MeshClientTest, FollowsWhatTheIssuerChanges) {
  Connect();
  EXPECT_EQ(NameOf(Look("198.18.0.5:80")), "plaintext");
  issuer_.SetEndpoint("198.18.0.5", 80, {"spiffe://example.org/a"});
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return NameOf(Look("198.18.0.5:80")) == "spiffe://example.org/a"; }));
  issuer_.SetEndpoint("198.18.0.5", 80, {});
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return NameOf(Look("198.18.0.5:80")) == "FAILED_PRECONDITION"; }));
}

TEST_F(MeshClientTest, RemembersTheMeshThroughARestart) {
  issuer_.SetEndpoint("198.18.0.5", 80, {"spiffe://example.org/a"});
  Connect();
  EXPECT_EQ(NameOf(Look("198.18.0.5:80")), "spiffe://example.org/a");
  testing::RunFor(*loop_, std::chrono::milliseconds(1300));  // written after a second
  Stop();
  issuer_.Stop();
  Start();
  // The issuer is away: the last answer counts.
  EXPECT_EQ(NameOf(Look("198.18.0.5:80")), "spiffe://example.org/a");
  Stop();
  issuer_.SetEndpoint("198.18.0.5", 80, {});
  issuer_.Start();
  Start();
  EXPECT_TRUE(
      RunUntil(*loop_, [&] { return NameOf(Look("198.18.0.5:80")) == "FAILED_PRECONDITION"; }));
}

TEST_F(MeshClientTest, TheIssuerCountsAsHeardWhileItConfirmsAndForAWhileAfter) {
  fakes::ShiftedClock clock;
  clock_ = &clock;
  Start();
  EXPECT_FALSE(manager_->HearsIssuer());
  Stop();
  Connect();
  EXPECT_TRUE(manager_->HearsIssuer());
  issuer_.Stop();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !manager_->status().issuer_connected; }));
  EXPECT_TRUE(manager_->HearsIssuer());
  clock.Sleep(IdentityManager::kIssuerHeardFor - absl::Minutes(1));
  EXPECT_TRUE(manager_->HearsIssuer());
  clock.Sleep(absl::Minutes(2));
  EXPECT_FALSE(manager_->HearsIssuer());
  Stop();  // the manager outlives no clock
}

TEST_F(MeshClientTest, HoldsALookupUntilTheIssuerIsBack) {
  Connect();
  issuer_.Stop();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !manager_->status().issuer_connected; }));
  EXPECT_NE(manager_->status().issuer_error, "");
  std::optional<EndpointDirectory::Answer> answer;
  const auto query = manager_->directory().Lookup(
      *loop_, net::SocketAddress::Parse("198.18.0.9:80").value(),
      [&answer](EndpointDirectory::Answer got) { answer = std::move(got); });
  testing::RunFor(*loop_, std::chrono::milliseconds(100));
  EXPECT_FALSE(answer.has_value());
  issuer_.SetEndpoint("198.18.0.9", 80, {"spiffe://example.org/a"});
  issuer_.Start();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return answer.has_value(); }));
  EXPECT_EQ(NameOf(answer), "spiffe://example.org/a");
}

TEST_F(MeshClientTest, ReconnectsWithWhatItHolds) {
  issuer_.SetEndpoint("198.18.0.5", 80, {"spiffe://example.org/a"});
  issuer_.SetPolicy({{"p", AllowFrom("db")}});
  Connect();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return Lets("db"); }));
  EXPECT_EQ(NameOf(Look("198.18.0.5:80")), "spiffe://example.org/a");
  const size_t published = policies_.size();
  issuer_.BreakStreams();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return issuer_.hellos().size() == 2; }));
  EXPECT_EQ(issuer_.hellos().back().held_size(), 2);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return issuer_.subscriptions() == 1; }));
  EXPECT_EQ(policies_.size(), published);
}

TEST_F(MeshClientTest, SaysOnWhichPortsItServes) {
  config_.tunnels.resize(3);
  config_.tunnels[0].listen = config::AddressSpec::Parse("127.0.0.1:8443").value();
  config_.tunnels[1].listen = config::AddressSpec::Parse("127.0.0.1:9000").value();
  config_.tunnels[1].direction = base::Direction::kOutbound;
  config_.tunnels[2].listen = config::AddressSpec::Parse("unix:/run/x").value();
  Connect();
  ASSERT_EQ(issuer_.hellos().front().serving_size(), 1);
  EXPECT_EQ(issuer_.hellos().front().serving(0).port(), 8443U);
  Stop();
  config_.intercept = config::InterceptMode::kRedirect;
  Start();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return issuer_.hellos().size() == 2; }));
  ASSERT_EQ(issuer_.hellos().back().serving_size(), 1);
  EXPECT_EQ(issuer_.hellos().back().serving(0).port(), 0U);
}

}  // namespace
}  // namespace postern::identity
