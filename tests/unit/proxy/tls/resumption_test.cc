// SPDX-License-Identifier: Apache-2.0
// What a ticket is worth, and after what it is worth nothing.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {
namespace {

using base::CloseReason;

void ExpectSamePeer(const x509::VerifiedPeer& one, const x509::VerifiedPeer& other) {
  EXPECT_EQ(one.id, other.id);
  EXPECT_EQ(one.not_before, other.not_before);
  EXPECT_EQ(one.not_after, other.not_after);
  EXPECT_EQ(one.serial, other.serial);
  EXPECT_EQ(one.leaf_sha256, other.leaf_sha256);
  EXPECT_EQ(one.chain_sha256, other.chain_sha256);
}

TEST_F(ResumptionTest, ResumesAndBothSidesKnowWhatTheFullHandshakeFoundOut) {
  const EnginePair full = Connect();
  EXPECT_FALSE(full.client.engine->facts().resumed);
  EXPECT_EQ(full.server.engine->ticket_use(), TicketUse::kNone);
  ASSERT_EQ(sessions_->size(), 1U);
  for (int i = 0; i < 5; ++i) {  // one ticket serves many connections
    const EnginePair again = Connect();
    const TlsFacts facts = again.server.engine->facts();
    EXPECT_TRUE(facts.resumed);
    EXPECT_EQ(facts.version, "TLSv1.3");
    EXPECT_FALSE(facts.group.empty());  // a fresh key exchange
    EXPECT_EQ(facts.alpn, "postern/1");
    EXPECT_EQ(again.server.engine->ticket_use(), TicketUse::kResumed);
    EXPECT_EQ(again.client.engine->ticket_use(), TicketUse::kResumed);
    ExpectSamePeer(*again.server.engine->peer(), *full.server.engine->peer());
    ExpectSamePeer(*again.client.engine->peer(), *full.client.engine->peer());
    EXPECT_EQ(again.server.engine->peer()->id.uri(), "spiffe://example.org/client");
  }
}

TEST_F(ResumptionTest, RestoresAChainWithAnIntermediate) {
  const testing::TestCa below = ca_.Intermediate();
  client_svid_ = Share(below.Issue("spiffe://example.org/client"));
  server_svid_ = Share(below.Issue("spiffe://example.org/server"));
  Renew();
  const EnginePair full = Connect();
  const EnginePair again = Connect();
  ASSERT_TRUE(again.server.engine->facts().resumed);
  EXPECT_EQ(again.server.engine->peer()->chain_sha256.size(), 3U);
  ExpectSamePeer(*again.server.engine->peer(), *full.server.engine->peer());
  ExpectSamePeer(*again.client.engine->peer(), *full.client.engine->peer());
}

TEST_F(ResumptionTest, SendsTheTicketInFrontOfTheFirstBytesAndNotByItself) {
  EnginePair pair{Client(), Server()};
  pair.Shake();
  EXPECT_EQ(pair.server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_FALSE(pair.server.engine->HasOutput());
  pair.client.Write("request");
  pair.Pump();
  EXPECT_FALSE(pair.server.engine->HasOutput());
  EXPECT_EQ(sessions_->size(), 0U);
  pair.server.engine->Write(base::AsBytes("reply"));
  const size_t output = pair.server.engine->OutputBytes();
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.Pump();
  EXPECT_EQ(sessions_->size(), 1U);
  // One record of 22 bytes more than its text, and one for the ticket: no certificate is in it.
  EXPECT_LT(output - 27, 600U);
  RecordProperty("ticket_record_bytes", static_cast<int>(output - 27));
  pair.server.engine->Write(base::AsBytes("more"));
  EXPECT_EQ(pair.server.engine->OutputBytes(), 26U);  // no second one
}

// The buffers that a ticket makes OpenSSL set up are given back, but not from under a record that
// was read in part, or that has come in part.
TEST_F(ResumptionTest, LosesNoByteBehindATicketInSmallReadsAndPieces) {
  for (const size_t piece : {size_t{700}, size_t{20'000}}) {
    sessions_ = std::make_shared<SessionCache>();
    Renew();
    EnginePair pair{Client(), Server()};
    pair.Shake();
    const std::string text = Noise(30'000);
    pair.server.Write(text);
    std::string got;
    uint8_t small[1000];
    while (!pair.server.outbox.empty()) {
      const std::string some = pair.server.outbox.substr(0, piece);
      pair.server.outbox.erase(0, some.size());
      std::copy(some.begin(), some.end(), scratch_.input().begin());
      TlsEngine& client = *pair.client.engine;
      client.Feed(scratch_.input().first(some.size()));
      EngineResult result{EngineOutcome::kDone, 0};
      while (result.outcome == EngineOutcome::kDone) {
        result = client.Read(small);
        got.append(reinterpret_cast<const char*>(small), result.bytes);
        client.EndTurn();
        std::fill(scratch_.input().begin(), scratch_.input().end(), uint8_t{0xEE});
      }
      ASSERT_EQ(result.outcome, EngineOutcome::kWantRead);
    }
    EXPECT_TRUE(got == text) << piece;
    EXPECT_EQ(sessions_->size(), 1U);
  }
}

TEST_F(ResumptionTest, IssuesNoTicketOnAConnectionThatResumes) {
  Connect();
  EnginePair pair{Client(), Server()};
  pair.Shake();
  ASSERT_TRUE(pair.server.engine->facts().resumed);
  pair.server.engine->Write(base::AsBytes("reply"));
  EXPECT_EQ(pair.server.engine->OutputBytes(), 27U);
}

TEST_F(ResumptionTest, SealsItsAlertBehindATicketAndOnAConnectionThatResumes) {
  for (const bool resumed : {false, true}) {
    EnginePair pair = Connect();
    ASSERT_EQ(pair.server.engine->facts().resumed, resumed);
    pair.server.engine->SendAlert(49);
    pair.server.Drain();
    pair.server.engine->EndTurn();
    pair.Pump();
    EXPECT_EQ(pair.client.engine->failure().alert_received, 49);
  }
}

TEST_F(ResumptionTest, WithoutResumptionOnOneSideEachHandshakeIsFull) {
  for (const bool server_side : {false, true}) {
    Connect();
    (server_side ? server_ : client_) = server_side
                                            ? ServerContext(server_svid_, {.clock = &clock_})
                                            : ClientContext(client_svid_, {.clock = &clock_});
    for (int i = 0; i < 3; ++i) {
      EXPECT_FALSE(Connect().client.engine->facts().resumed);
    }
    Renew();
  }
}

// ---------------------------------------------------------------- worth nothing at the server

TEST_F(ResumptionTest, AfterARenewalOfTrustATicketIsOfAnUnknownKey) {
  Connect();
  keys_ = Keys(2);
  Renew();
  EXPECT_EQ(Use(), TicketUse::kUnknownKey);
  EXPECT_EQ(Use(), TicketUse::kResumed);  // by the ticket of the full handshake
}

TEST_F(ResumptionTest, AnyChangeOfTheStateOfTrustMeansAFullHandshake) {
  for (uint64_t TrustState::*const part :
       {&TrustState::bundle_epoch, &TrustState::bundle_sequence, &TrustState::policy_revision,
        &TrustState::policies_given, &TrustState::revocation_sequence}) {
    Connect();
    ASSERT_EQ(Use(), TicketUse::kResumed);
    ++((*trust_).*part);
    const EnginePair pair = Connect();
    EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kChanged);
    EXPECT_FALSE(pair.server.engine->facts().resumed);
    EXPECT_EQ(pair.server.engine->peer()->id.uri(), "spiffe://example.org/client");
    EXPECT_EQ(Use(), TicketUse::kResumed);
  }
}

TEST_F(ResumptionTest, ATicketIsBoundToWhatCountsWhenItIsMade) {
  EnginePair pair{Client(), Server()};
  pair.Shake();
  ++trust_->policy_revision;  // after the handshake, before the ticket: it was judged under both
  pair.server.Write("reply");
  pair.Pump();
  EXPECT_EQ(Use(), TicketUse::kResumed);
  --trust_->policy_revision;
  EXPECT_EQ(Use(), TicketUse::kChanged);
}

TEST_F(ResumptionTest, ATicketOfAnotherListenerIsWorthNothing) {
  Connect();
  const EnginePair pair = Connect(Client(), Server("inbound:127.0.0.1:9443"));
  EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kChanged);
  EXPECT_FALSE(pair.server.engine->facts().resumed);
}

TEST_F(ResumptionTest, AListenerWithoutClientAuthNeitherGivesNorTakesTickets) {
  TlsOptions options = ServerOptions();
  options.client_auth = ClientAuth::kNone;
  const auto lax = ServerContext(server_svid_, options);
  const auto Lax = [&] {
    return End{TlsEngine::CreateServer(lax, scratch_, kListener).value(), &scratch_};
  };
  const EnginePair first = Connect(Client(), Lax());
  EXPECT_FALSE(first.server.engine->peer().has_value());
  EXPECT_EQ(sessions_->size(), 0U);
  Connect();  // a ticket of the strict one
  ASSERT_EQ(sessions_->size(), 1U);
  EXPECT_FALSE(Connect(Client(), Lax()).server.engine->facts().resumed);
}

TEST_F(ResumptionTest, ADeadlineIsCountedFromTheFullHandshake) {
  client_svid_ = Share(ca_.Issue("spiffe://example.org/client", clock_.Now(), absl::Hours(8)));
  server_svid_ = Share(ca_.Issue("spiffe://example.org/server", clock_.Now(), absl::Hours(8)));
  Renew();
  Connect();
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(absl::Minutes(10));
    EXPECT_EQ(Use(), TicketUse::kResumed) << i;  // none of these lengthens it
  }
  // The client would know; what if it did not.
  const auto session =
      sessions_->Find(std::string(kDestination) + "\n" + std::string(kServerId), clock_.Now());
  ASSERT_NE(session, nullptr);
  EXPECT_LE(session->until - clock_.Now(), absl::Minutes(10));
  clock_.Advance(absl::Minutes(10));
  sessions_->Put(std::string(kDestination) + "\n" + std::string(kServerId),
                 std::make_shared<const CachedSession>(session->der, session->peer,
                                                       clock_.Now() + absl::Hours(1)));
  EXPECT_EQ(Use(), TicketUse::kExpired);
}

TEST_F(ResumptionTest, PastTheNotAfterOfEitherSideATicketIsWorthNothing) {
  const absl::Time now = clock_.Now();
  for (const bool of_client : {false, true}) {
    client_svid_ =
        Share(ca_.Issue("spiffe://example.org/client", now, absl::Minutes(of_client ? 10 : 60)));
    server_svid_ =
        Share(ca_.Issue("spiffe://example.org/server", now, absl::Minutes(of_client ? 60 : 10)));
    Renew();
    clock_.SetNow(now);
    Connect();
    ASSERT_EQ(Use(), TicketUse::kResumed);
    const std::string key = std::string(kDestination) + "\n" + std::string(kServerId);
    const auto session = sessions_->Find(key, now);
    ASSERT_NE(session, nullptr);
    EXPECT_LE(session->until, now + absl::Minutes(10));
    clock_.SetNow(now + absl::Minutes(11));
    EXPECT_EQ(sessions_->Find(key, clock_.Now()), nullptr);
    EXPECT_EQ(sessions_->size(), 0U);
    if (of_client) {  // a client that goes on with it all the same
      sessions_->Put(key, std::make_shared<const CachedSession>(session->der, session->peer,
                                                                now + absl::Hours(1)));
      EnginePair pair{Client(), Server()};
      pair.Shake();
      EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kExpired);
      EXPECT_EQ(pair.server.last, EngineOutcome::kFailed);
      EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerExpired);
    }
  }
}

TEST_F(ResumptionTest, APeerThatExpiresWithinTheHandshakeIsRefusedByBoth) {
  const absl::Time now = clock_.Now();
  for (const bool of_client : {false, true}) {
    client_svid_ =
        Share(ca_.Issue("spiffe://example.org/client", now, absl::Minutes(of_client ? 10 : 60)));
    server_svid_ =
        Share(ca_.Issue("spiffe://example.org/server", now, absl::Minutes(of_client ? 60 : 10)));
    Renew();
    clock_.SetNow(now);
    Connect();
    EnginePair pair{Client(), Server()};
    pair.client.Handshake();
    pair.server.Turn(std::exchange(pair.client.outbox, ""));
    clock_.Advance(absl::Minutes(11));
    pair.Pump();
    End& judge = of_client ? pair.server : pair.client;
    EXPECT_EQ(judge.last, EngineOutcome::kFailed);
    EXPECT_EQ(judge.engine->failure().reason, CloseReason::kPeerExpired);
    EXPECT_EQ(judge.engine->failure().alert_sent, 45);
    EXPECT_FALSE(judge.engine->peer().has_value());
    EXPECT_EQ((of_client ? pair.client : pair.server).engine->failure().alert_received, 45);
  }
}

// ---------------------------------------------------------------- the client's cache

TEST_F(ResumptionTest, ASessionIsForItsDestinationAndItsExpectationsAlone) {
  Connect();
  ASSERT_EQ(sessions_->size(), 1U);
  EXPECT_EQ(Connect(Client("127.0.0.1:9443"), Server()).server.engine->ticket_use(),
            TicketUse::kNone);
  EXPECT_EQ(
      Connect(Client(kDestination, "spiffe://example.org/*"), Server()).server.engine->ticket_use(),
      TicketUse::kNone);
  EXPECT_EQ(sessions_->size(), 3U);
  EnginePair wrong{Client(kDestination, "spiffe://example.org/other"), Server()};
  wrong.Shake();
  EXPECT_EQ(wrong.client.engine->failure().reason, CloseReason::kIdentityMismatch);
  EXPECT_EQ(sessions_->size(), 3U);
}

TEST_F(ResumptionTest, ASessionOfOneServerIsNotUsedWhereAnotherIsExpected) {
  Connect();
  const std::string key = std::string(kDestination) + "\n" + std::string(kServerId);
  const auto session = sessions_->Find(key, clock_.Now());
  // A fault of ours that puts it under a key where it does not belong.
  const std::string other = std::string(kDestination) + "\nspiffe://example.org/other";
  sessions_->Put(other, session);
  EnginePair pair{Client(kDestination, "spiffe://example.org/other"), Server()};
  pair.Shake();
  EXPECT_EQ(pair.server.engine->ticket_use(), TicketUse::kNone);  // not even offered
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kIdentityMismatch);
}

TEST_F(ResumptionTest, WithoutADestinationOrAnExpectationNothingIsKept) {
  Connect(Client(""), Server());
  Connect({TlsEngine::CreateClient(client_, scratch_, {}, kDestination).value(), &scratch_},
          Server());
  EXPECT_EQ(sessions_->size(), 0U);
}

TEST_F(ResumptionTest, ASessionThatTheServerRefusedIsForgotten) {
  Connect();
  server_ = ServerContext(server_svid_, {.clock = &clock_});  // resumption was switched off there
  Connect();
  EXPECT_EQ(sessions_->size(), 0U);
}

TEST_F(ResumptionTest, ASessionWithWhichAHandshakeFailedIsForgotten) {
  Connect();
  {
    End client = Client();
    client.Handshake();
    client.Turn(std::string("\x15\x03\x03\x00\x02\x02\x33", 7));  // decrypt_error
    EXPECT_EQ(client.last, EngineOutcome::kFailed);
    EXPECT_EQ(sessions_->size(), 0U);
  }
  Connect();
  {
    End client = Client();  // the server goes away without a word
    client.Handshake();
    EXPECT_EQ(sessions_->size(), 1U);
  }
  EXPECT_EQ(sessions_->size(), 0U);
}

TEST_F(ResumptionTest, AConnectionThatIsCutDoesNotSpoilTheSession) {
  for (int i = 0; i < 3; ++i) {
    const EnginePair cut = Connect();  // destroyed without close_notify
    EXPECT_EQ(cut.client.engine->facts().resumed, i > 0);
  }
  EXPECT_EQ(Use(), TicketUse::kResumed);
}

TEST_F(ResumptionTest, EachContextHasItsOwnCache) {
  Connect();
  client_svid_ = Share(ca_.Issue("spiffe://example.org/client"));
  sessions_ = std::make_shared<SessionCache>();  // as each renewal makes one
  Renew();
  EXPECT_EQ(Use(), TicketUse::kNone);
}

}  // namespace
}  // namespace postern::tls
