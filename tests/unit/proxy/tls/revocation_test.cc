// SPDX-License-Identifier: Apache-2.0
// Revocation inside the handshake, for both roles, in full handshakes and in resumed ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/x509/certificate.h"
#include "tests/testing/test_crl.h"
#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {
namespace {

using base::CloseReason;
using ::testing::HasSubstr;
using x509::RevokedBy;

constexpr int kAlertCertificateRevoked = 44;
constexpr char kClientId[] = "spiffe://example.org/client";
constexpr char kServerName[] = "spiffe://example.org/server";

class TlsRevocationTest : public ResumptionTest {
 protected:
  void SetUp() override {
    TlsOptions server = ServerOptions();
    server.revocations = at_server_;
    server_ = ServerContext(server_svid_, server);
    TlsOptions client = ClientOptions();
    client.revocations = at_client_;
    client_ = ClientContext(client_svid_, client);
  }
  static std::shared_ptr<const x509::RevocationSet> Only(RevokedBy by, std::string_view subject) {
    x509::Revocation revocation{.by = by, .reason = "key stolen"};
    revocation.subject = x509::CanonicalSubject(by, subject).value();
    return std::make_shared<const x509::RevocationSet>(std::vector{revocation});
  }
  // A handshake that fails: the pair as it ended.
  EnginePair Refused() {
    EnginePair pair{Client(), Server()};
    pair.Shake();
    return pair;
  }
  static void ExpectRevoked(const base::Failure& failure, std::string_view peer) {
    EXPECT_EQ(failure.reason, CloseReason::kPeerRevoked) << failure.detail;
    EXPECT_EQ(failure.peer_id, peer);
    EXPECT_EQ(failure.x509_error, X509_V_ERR_CERT_REVOKED);
    EXPECT_EQ(failure.alert_sent, kAlertCertificateRevoked);
    EXPECT_THAT(std::string(failure.detail.message()), HasSubstr("key stolen"));
  }

  std::shared_ptr<RevocationState> at_server_ = std::make_shared<RevocationState>();
  std::shared_ptr<RevocationState> at_client_ = std::make_shared<RevocationState>();
};

TEST_F(TlsRevocationTest, AServerRefusesARevokedClientAndSaysSo) {
  for (const auto& set :
       {Only(RevokedBy::kSpiffeId, kClientId), Only(RevokedBy::kSerial, client_svid_->serial()),
        Only(RevokedBy::kKey, base::ToHex(x509::Sha256OfKey(client_svid_->leaf())))}) {
    at_server_->set = set;
    const EnginePair pair = Refused();
    ExpectRevoked(pair.server.engine->failure(), kClientId);
    EXPECT_EQ(pair.client.engine->failure().alert_received, kAlertCertificateRevoked);
  }
}

TEST_F(TlsRevocationTest, AClientRefusesARevokedServerBeforeItShowsItself) {
  at_client_->set = Only(RevokedBy::kSpiffeId, kServerName);
  const EnginePair pair = Refused();
  ExpectRevoked(pair.client.engine->failure(), kServerName);
  EXPECT_EQ(pair.server.engine->peer(), std::nullopt);
}

TEST_F(TlsRevocationTest, AChainThatWasVerifiedBeforeIsStillRefused) {
  sessions_ = nullptr;
  SetUp();
  Connect();  // now both remember the other's chain
  at_server_->set = Only(RevokedBy::kSerial, client_svid_->serial());
  ExpectRevoked(Refused().server.engine->failure(), kClientId);
  at_server_->set = std::make_shared<const x509::RevocationSet>();
  Connect();  // lifted
}

TEST_F(TlsRevocationTest, ATicketOfARevokedClientIsNotTaken) {
  Connect();
  ASSERT_EQ(Use(), TicketUse::kResumed);
  // The binding alone would refuse it; here it stays as it was, so that the look at the facts does.
  at_server_->set = Only(RevokedBy::kSpiffeId, kClientId);
  const EnginePair pair = Refused();
  EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kChanged);
  ExpectRevoked(pair.server.engine->failure(), kClientId);
}

TEST_F(TlsRevocationTest, ANewListMakesEveryTicketWorthless) {
  Connect();
  ASSERT_EQ(Use(), TicketUse::kResumed);
  ++trust_->revocation_sequence;
  EXPECT_EQ(Use(), TicketUse::kChanged);
  EXPECT_EQ(Use(), TicketUse::kResumed);
}

TEST_F(TlsRevocationTest, ASessionWithARevokedServerIsNotOffered) {
  Connect();
  ASSERT_EQ(Use(), TicketUse::kResumed);
  at_client_->set = Only(RevokedBy::kSpiffeId, kServerName);
  const EnginePair pair = Refused();
  EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kNone);
  ExpectRevoked(pair.client.engine->failure(), kServerName);
}

TEST_F(TlsRevocationTest, ACrlThatIsOutOfDateRefusesFullAndResumedHandshakesAlike) {
  std::vector<x509::X509Ptr> authorities;
  authorities.push_back(ca_.Root());
  const auto crl =
      x509::VerifyCrl(testing::MakeCrl(ca_, {.next_update = clock_.Now() + absl::Minutes(5)}).get(),
                      "ca.crl", authorities)
          .value();
  at_server_->set = std::make_shared<const x509::RevocationSet>(
      std::vector<x509::Revocation>(), std::vector<std::shared_ptr<const x509::Crl>>{crl});
  Connect();
  ASSERT_EQ(Use(), TicketUse::kResumed);
  clock_.Advance(absl::Minutes(6));
  const EnginePair pair = Refused();
  EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kCrlExpired);
  EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kChanged);
  EXPECT_THAT(std::string(pair.server.engine->failure().detail.message()), HasSubstr("ca.crl"));
}

}  // namespace
}  // namespace postern::tls
