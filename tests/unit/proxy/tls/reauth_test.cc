// SPDX-License-Identifier: Apache-2.0
// Authentication of a client inside the connection: between two engines, and between an engine and
// plain OpenSSL in either role.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <array>
#include <string>
#include <utility>

#include "tests/unit/proxy/tls/reauth_fixture.h"

namespace postern::tls {
namespace {

using testing::Minted;

constexpr std::array<const char*, 3> kSuites = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                                "TLS_CHACHA20_POLY1305_SHA256"};

int AcceptAny(int /*ok*/, X509_STORE_CTX* /*ctx*/) {
  return 1;
}

std::string PeerOf(SSL* ssl) {
  const x509::X509Ptr leaf(SSL_get1_peer_certificate(ssl));
  return leaf == nullptr ? "" : base::ToHex(x509::Sha256OfCertificate(leaf.get()));
}
std::string LeafOf(const x509::Svid& svid) {
  return base::ToHex(x509::Sha256OfCertificate(svid.leaf()));
}

// The server of a pair asks, and both talk until all is said.
void AskAndPump(EnginePair& pair) {
  ASSERT_TRUE(pair.server.engine->AskClientAgain());
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.Pump();
}

class ReauthEngineTest : public ReauthTest {
 protected:
  using ReauthTest::LeafOf;

  // Both say something, and hear it.
  static void Exchange(EnginePair& pair) {
    pair.client.received.clear();
    pair.server.received.clear();
    pair.client.Write("up");
    pair.server.Write("down");
    pair.Pump();
    EXPECT_EQ(pair.server.received, "up");
    EXPECT_EQ(pair.client.received, "down");
  }
  // Both sides of the worker have certificates that live for `ttl` from now on.
  void RenewBoth(absl::Duration ttl) {
    client_svid_ = Share(ca_.Issue(kClientId, clock_.Now(), ttl));
    server_svid_ = Share(ca_.Issue(kServerId, clock_.Now(), ttl));
    Renew();
    scratch_.Publish(client_, server_);
  }
};

TEST_F(ReauthEngineTest, TheClientShowsItsNewestCertificateAndTheServerTakesIt) {
  RenewBoth(absl::Minutes(10));
  EnginePair pair = Connect();
  const absl::Time before = pair.server.engine->peer()->not_after;
  for (uint64_t i = 1; i <= 20; ++i) {
    clock_.Advance(absl::Minutes(8));
    RenewBoth(absl::Minutes(10));
    AskAndPump(pair);
    EXPECT_EQ(pair.server.engine->reauth(), ReauthState::kIdle);
    EXPECT_EQ(LeafOf(*pair.server.engine), postern::tls::LeafOf(*client_svid_));
    EXPECT_EQ(scratch_.reauths().renewed, i);
    EXPECT_EQ(scratch_.reauths().answered, i);
    Exchange(pair);
  }
  EXPECT_EQ(pair.server.engine->peer()->id.uri(), kClientId);
  EXPECT_GT(pair.server.engine->peer()->not_after, before + absl::Minutes(150));
}

TEST_F(ReauthEngineTest, FactsOutliveTheContextOfTheHandshake) {
  RenewBoth(absl::Minutes(10));
  EnginePair pair = Connect();
  const TlsFacts before = pair.server.engine->facts();
  ASSERT_FALSE(before.group.empty());
  for (int i = 0; i < 2; ++i) {
    clock_.Advance(absl::Minutes(8));
    RenewBoth(absl::Minutes(10));
    AskAndPump(pair);
  }
  for (const TlsEngine* engine : {pair.client.engine.get(), pair.server.engine.get()}) {
    EXPECT_EQ(engine->facts().group, before.group);
    EXPECT_EQ(engine->facts().cipher, before.cipher);
  }
}

TEST_F(ReauthEngineTest, AResumedConnectionCanBeAskedToo) {
  RenewBoth(absl::Hours(1));
  Connect();
  EnginePair pair = Connect();
  ASSERT_TRUE(pair.server.engine->facts().resumed);
  scratch_.Publish(ClientContext(Share(ca_.Issue(kClientId, clock_.Now(), absl::Hours(2)))),
                   server_);
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().renewed, 1U) << pair.server.engine->failure().detail;
  Exchange(pair);
}

TEST_F(ReauthEngineTest, WithNothingNewerItIsNoNewsAndNoHarm) {
  RenewBoth(absl::Hours(1));
  EnginePair pair = Connect();
  const std::string leaf = LeafOf(*pair.server.engine);
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().unchanged, 1U);
  // Another certificate of the same identity that ends sooner.
  scratch_.Publish(ClientContext(Share(ca_.Issue(kClientId, clock_.Now(), absl::Minutes(1)))),
                   server_);
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().unchanged, 2U);
  // And, when it is read at last, one that is over.
  clock_.Advance(absl::Minutes(2));
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().unchanged, 3U);
  // The one that is known, past its end.
  clock_.Advance(absl::Hours(1));
  scratch_.Publish(client_, server_);
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().unchanged, 4U);
  EXPECT_EQ(LeafOf(*pair.server.engine), leaf);
  Exchange(pair);
}

TEST_F(ReauthEngineTest, AServerThatOwesATicketGivesItFirst) {
  RenewBoth(absl::Hours(1));
  EnginePair pair{Client(), Server()};
  pair.Shake();
  AskAndPump(pair);
  EXPECT_EQ(scratch_.reauths().unchanged, 1U) << pair.server.engine->failure().detail;
  EXPECT_EQ(sessions_->size(), 1U);
  Exchange(pair);
  EXPECT_TRUE(Connect().server.engine->facts().resumed);
}

TEST_F(ReauthEngineTest, BytesGoOnInBothDirectionsMeanwhile) {
  RenewBoth(absl::Hours(1));
  EnginePair pair = Connect();
  const std::string up = Noise(300'000, 1);
  const std::string down = Noise(300'000, 2);
  pair.client.received.clear();
  pair.server.received.clear();
  pair.client.Write(up);
  pair.server.Write(down);
  ASSERT_TRUE(pair.server.engine->AskClientAgain());
  EXPECT_FALSE(pair.server.engine->AskClientAgain()) << "one at a time";
  EXPECT_EQ(pair.server.engine->reauth(), ReauthState::kUnderWay);
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.server.Write(down);
  pair.client.Write(up);
  pair.Pump(5000);
  EXPECT_EQ(scratch_.reauths().unchanged, 1U);
  EXPECT_TRUE(pair.server.received == up + up);
  EXPECT_TRUE(pair.client.received == down + down);
}

TEST_F(ReauthEngineTest, WhoHasEndedItsDirectionNeitherAsksNorAnswers) {
  EnginePair pair = Connect();
  pair.client.engine->CloseWrite();
  pair.client.Drain();
  pair.client.engine->EndTurn();
  ASSERT_TRUE(pair.server.engine->AskClientAgain());  // it does not know yet
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.Pump();
  EXPECT_EQ(pair.client.last, EngineOutcome::kWantRead) << pair.client.engine->failure().detail;
  EXPECT_EQ(scratch_.reauths().answered, 0U);
  EXPECT_FALSE(pair.server.engine->AskClientAgain());
  pair.server.Write("still heard");
  pair.Pump();
  EXPECT_EQ(pair.client.received, "replystill heard");
  EnginePair other = Connect();
  other.server.engine->CloseWrite();
  EXPECT_FALSE(other.server.engine->AskClientAgain());
  other.server.engine->EndTurn();
}

TEST_F(ReauthEngineTest, WhoHasNotOfferedItIsNotAsked) {
  TlsOptions options;
  options.post_handshake_auth = false;
  EnginePair pair = MakePair(ClientContext(client_svid_, options), ServerContext(server_svid_));
  pair.Shake();
  EXPECT_EQ(pair.server.engine->reauth(), ReauthState::kUnable);
  EXPECT_FALSE(pair.server.engine->AskClientAgain());
  EXPECT_EQ(pair.client.engine->reauth(), ReauthState::kUnable);
  // Nor by a server that asks for no certificate at all.
  options = {};
  options.client_auth = ClientAuth::kNone;
  EnginePair anyone = MakePair(ClientContext(client_svid_), ServerContext(server_svid_, options));
  anyone.Shake();
  EXPECT_EQ(anyone.server.engine->reauth(), ReauthState::kUnable);
  // Nor a server by its client.
  EnginePair both = MakePair();
  both.Shake();
  EXPECT_EQ(both.server.engine->reauth(), ReauthState::kIdle);
  EXPECT_FALSE(both.client.engine->AskClientAgain());
}

TEST_F(ReauthEngineTest, AnotherIdentityOrAForeignRootEndsTheConnection) {
  for (const bool foreign : {false, true}) {
    RenewBoth(absl::Hours(1));
    EnginePair pair = Connect();
    const testing::TestCa stranger("example.org");
    const testing::TestCa& ca = foreign ? stranger : ca_;
    const std::string_view id = foreign ? kClientId : "spiffe://example.org/other";
    scratch_.Publish(ClientContext(Share(ca.Issue(id, clock_.Now(), absl::Hours(2)))), server_);
    AskAndPump(pair);
    EXPECT_EQ(pair.server.last, EngineOutcome::kFailed);
    const base::Failure& failure = pair.server.engine->failure();
    EXPECT_EQ(failure.reason, base::CloseReason::kReauthFailed);
    EXPECT_EQ(failure.peer_id, kClientId);
    EXPECT_NE(failure.x509_error, 0);
    EXPECT_EQ(failure.alert_sent, foreign ? SSL_AD_UNKNOWN_CA : SSL_AD_BAD_CERTIFICATE)
        << failure.detail;
    EXPECT_EQ(pair.client.engine->failure().alert_received, failure.alert_sent);
    EXPECT_EQ(scratch_.reauths().failed, 1U);
    scratch_.reauths() = {};
  }
}

// ---------------------------------------------------------------- against plain OpenSSL

TEST_F(ReauthEngineTest, APlainClientAnswersUnderEachSuiteAndAfterKeyUpdates) {
  for (const char* suite : kSuites) {
    const Minted first = Leaf(kClientId, absl::Minutes(10));
    const Minted second = Leaf(kClientId, absl::Minutes(20));
    PlainPeer client = PlainPeer::Client(&first, [&](SSL_CTX* ctx) {
      SSL_CTX_set_ciphersuites(ctx, suite);
      SSL_CTX_set_post_handshake_auth(ctx, 1);
    });
    End server = Server();
    client.Talk(server);
    ASSERT_EQ(server.engine->reauth(), ReauthState::kIdle);
    EXPECT_EQ(LeafOf(*server.engine), LeafOf(first));
    SSL_use_certificate(client.ssl(), second.leaf());
    SSL_use_PrivateKey(client.ssl(), second.key.get());
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(server.engine->AskClientAgain());
      server.Drain();
      server.engine->EndTurn();
      client.Talk(server);
      ASSERT_EQ(server.last, EngineOutcome::kWantRead) << server.engine->failure().detail;
      EXPECT_EQ(server.engine->reauth(), ReauthState::kIdle);
      EXPECT_EQ(LeafOf(*server.engine), LeafOf(second));
      ASSERT_EQ(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
      client.Write("up");
      client.Talk(server);
      server.Write("down");
      client.Talk(server);
    }
    EXPECT_EQ(server.received, "upupup");
    EXPECT_EQ(client.received(), "downdowndown");
  }
}

// Behind a HelloRetryRequest the transcript begins with the hash of the first hello.
TEST_F(ReauthEngineTest, APlainClientAnswersAfterAHelloRetryRequest) {
  const Minted identity = Leaf(kClientId, absl::Minutes(10));
  for (const char* suite : {kSuites[0], kSuites[1]}) {
    unsigned hellos = 0;
    PlainPeer client = PlainPeer::Client(&identity, [&](SSL_CTX* ctx) {
      SSL_CTX_set_ciphersuites(ctx, suite);
      SSL_CTX_set_post_handshake_auth(ctx, 1);
      ASSERT_EQ(SSL_CTX_set1_groups_list(ctx, "P-384:P-256"), 1);
      SSL_CTX_set_ex_data(ctx, 0, &hellos);
      SSL_CTX_set_msg_callback(
          ctx, [](int write, int, int type, const void* bytes, size_t size, SSL* ssl, void*) {
            if (write != 0 && type == SSL3_RT_HANDSHAKE && size > 0 &&
                *static_cast<const uint8_t*>(bytes) == SSL3_MT_CLIENT_HELLO) {
              ++*static_cast<unsigned*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0));
            }
          });
    });
    End server = Server();
    client.Talk(server);
    ASSERT_EQ(hellos, 2U);
    ASSERT_TRUE(server.engine->AskClientAgain());
    server.Drain();
    server.engine->EndTurn();
    client.Talk(server);
    EXPECT_EQ(server.engine->reauth(), ReauthState::kIdle) << server.engine->failure().detail;
  }
}

TEST_F(ReauthEngineTest, APlainClientAnswersOnASessionThatItResumes) {
  const Minted identity = Leaf(kClientId, absl::Hours(1));
  x509::OpensslPtr<SSL_SESSION, SSL_SESSION_free> session;
  for (const bool resumes : {false, true}) {
    PlainPeer client =
        PlainPeer::Client(&identity, [](SSL_CTX* ctx) { SSL_CTX_set_post_handshake_auth(ctx, 1); });
    if (resumes) {
      ASSERT_EQ(SSL_set_session(client.ssl(), session.get()), 1);
    }
    End server = Server();
    client.Talk(server);
    server.Write("x");
    client.Talk(server);
    EXPECT_EQ(server.engine->facts().resumed, resumes);
    session.reset(SSL_SESSION_dup(SSL_get0_session(client.ssl())));
    ASSERT_TRUE(server.engine->AskClientAgain());
    server.Drain();
    server.engine->EndTurn();
    client.Talk(server);
    EXPECT_EQ(server.engine->reauth(), ReauthState::kIdle) << server.engine->failure().detail;
  }
}

TEST_F(ReauthEngineTest, APlainServerIsAnsweredUnderEachSuiteWithTheNewestCertificate) {
  const Minted identity = Leaf(kServerId, absl::Hours(1));
  for (const char* suite : kSuites) {
    for (const bool retry : {false, true}) {
      RenewBoth(absl::Hours(1));
      End client = Client();
      PlainPeer server = PlainPeer::Server(&identity, [&](SSL_CTX* ctx) {
        SSL_CTX_set_ciphersuites(ctx, suite);
        SSL_CTX_set1_groups_list(ctx, retry ? "P-256" : "X25519");
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, &AcceptAny);
      });
      client.Handshake();
      server.Talk(client);
      EXPECT_EQ(PeerOf(server.ssl()), postern::tls::LeafOf(*client_svid_));
      for (int i = 0; i < 3; ++i) {
        clock_.Advance(absl::Minutes(1));
        RenewBoth(absl::Hours(1));
        ASSERT_EQ(SSL_verify_client_post_handshake(server.ssl()), 1) << "it was not offered";
        server.Talk(client);
        ASSERT_EQ(client.last, EngineOutcome::kWantRead) << client.engine->failure().detail;
        EXPECT_EQ(PeerOf(server.ssl()), postern::tls::LeafOf(*client_svid_)) << server.reason();
        ASSERT_EQ(SSL_key_update(server.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
        server.Write("down");
        server.Talk(client);
        client.Write("up");
        server.Talk(client);
      }
      EXPECT_EQ(server.received(), "upupup");
      EXPECT_EQ(client.received, "downdowndown");
    }
  }
}

TEST_F(ReauthEngineTest, AServerThatAsksWithoutEndIsCutOff) {
  const Minted identity = Leaf(kServerId, absl::Hours(1));
  PlainPeer server = PlainPeer::Server(
      &identity, [](SSL_CTX* ctx) { SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, &AcceptAny); });
  End client = Client();
  client.Handshake();
  server.Talk(client);
  for (int i = 0; i < 100; ++i) {  // at a pace that may go on for ever
    clock_.Advance(absl::Seconds(1));
    ASSERT_EQ(SSL_verify_client_post_handshake(server.ssl()), 1);
    server.Talk(client);
    ASSERT_EQ(client.last, EngineOutcome::kWantRead) << client.engine->failure().detail;
  }
  int asked = 0;
  while (client.last == EngineOutcome::kWantRead && asked < 100) {
    SSL_verify_client_post_handshake(server.ssl());
    server.Talk(client);
    ++asked;
  }
  EXPECT_LT(asked, 20);
  EXPECT_EQ(client.engine->failure().reason, base::CloseReason::kReauthFailed);
  EXPECT_EQ(client.engine->failure().detail.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ReauthEngineTest, AServerThatTakesNoneOfOurSignaturesIsShownNoCertificate) {
  const Minted identity = Leaf(kServerId, absl::Hours(1));
  PlainPeer server = PlainPeer::Server(
      &identity, [](SSL_CTX* ctx) { SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, &AcceptAny); });
  End client = Client();
  client.Handshake();
  server.Talk(client);
  const std::string before = PeerOf(server.ssl());
  EXPECT_NE(before, "");
  ASSERT_EQ(SSL_set1_sigalgs_list(server.ssl(), "ed25519"), 1);
  ASSERT_EQ(SSL_set1_client_sigalgs_list(server.ssl(), "ed25519"), 1);
  ASSERT_EQ(SSL_verify_client_post_handshake(server.ssl()), 1);
  server.Talk(client);
  EXPECT_EQ(client.last, EngineOutcome::kWantRead) << client.engine->failure().detail;
  EXPECT_EQ(scratch_.reauths().answered, 1U);
  EXPECT_EQ(PeerOf(server.ssl()), "");  // and the server lets it be
}

}  // namespace
}  // namespace postern::tls
