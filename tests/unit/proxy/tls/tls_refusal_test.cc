// SPDX-License-Identifier: Apache-2.0
// Who is refused, by whom, with which reason and which alert on both sides.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "proxy/tls/client_hello.h"
#include "proxy/tls/tls_engine.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/proxy/tls/engine_pair.h"
#include "tests/unit/proxy/tls/plain_peer.h"

namespace postern::tls {
namespace {

using base::CloseReason;
using testing::CertificateSpec;
using testing::LeafSpec;
using testing::Minted;
using testing::TestCa;

constexpr int kBadCertificate = 42;
constexpr int kCertificateExpired = 45;
constexpr int kUnknownCa = 48;
constexpr int kProtocolVersion = 70;
constexpr int kCertificateRequired = 116;

class RefusalTest : public EngineTest {
 protected:
  End ServerEnd(const TlsOptions& options = {}) {
    return {TlsEngine::CreateServer(ServerContext(server_svid_, options), scratch_).value(),
            &scratch_};
  }
  End ClientEnd(const Expected& expected = {}) {
    return {TlsEngine::CreateClient(ClientContext(client_svid_), scratch_, expected).value(),
            &scratch_};
  }
  Minted ExpiredLeaf(const char* uri) {
    CertificateSpec spec = LeafSpec(uri);
    spec.not_before = absl::Now() - absl::Hours(2);
    spec.not_after = absl::Now() - absl::Minutes(1);
    return ca_.Mint(spec);
  }
  // A client with this certificate meets our server; returns the server's failure.
  base::Failure ServerRefuses(const Minted* identity, const PlainPeer::Setup& setup = {}) {
    End server = ServerEnd();
    PlainPeer client = PlainPeer::Client(identity, setup);
    client.Talk(server);
    EXPECT_EQ(server.last, EngineOutcome::kFailed);
    client_reason_ = client.reason();
    EXPECT_FALSE(server.engine->failure().detail.message().empty());
    return server.engine->failure();
  }
  // A server with this certificate answers our client; returns the client's failure.
  base::Failure ClientRefuses(const Minted* identity, const Expected& expected = {},
                              const PlainPeer::Setup& setup = {}) {
    End client = ClientEnd(expected);
    client.Handshake();
    PlainPeer server = PlainPeer::Server(identity, setup);
    server.Talk(client);
    EXPECT_EQ(client.last, EngineOutcome::kFailed);
    EXPECT_FALSE(client.engine->failure().detail.message().empty());
    return client.engine->failure();
  }

  TestCa foreign_{"example.org"};  // the same name, another key
  int client_reason_ = 0;
};

TEST_F(RefusalTest, RefusesAClientWithoutCertificate) {
  const base::Failure failure = ServerRefuses(nullptr);
  EXPECT_EQ(failure.reason, CloseReason::kPeerNoCertificate);
  EXPECT_EQ(failure.alert_sent, kCertificateRequired);
  EXPECT_EQ(failure.alert_received, -1);
  EXPECT_EQ(client_reason_, SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED);
}

TEST_F(RefusalTest, LetsAClientWithoutCertificateInWhereNoneIsAsked) {
  End server = ServerEnd({.client_auth = ClientAuth::kNone});
  PlainPeer client = PlainPeer::Client(nullptr);
  client.Talk(server);
  ASSERT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_FALSE(server.engine->peer().has_value());
  client.Write("hello");
  client.Talk(server);
  EXPECT_EQ(server.received, "hello");
}

TEST_F(RefusalTest, RefusesAClientOfAnotherCa) {
  const Minted stranger = foreign_.Mint("spiffe://example.org/client");
  const base::Failure failure = ServerRefuses(&stranger);
  EXPECT_EQ(failure.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(failure.alert_sent, kUnknownCa);
  EXPECT_NE(failure.x509_error, 0);
  EXPECT_EQ(failure.peer_id, "spiffe://example.org/client");
  EXPECT_EQ(client_reason_, SSL_R_TLSV1_ALERT_UNKNOWN_CA);
}

TEST_F(RefusalTest, RefusesAClientOfAnUnknownTrustDomain) {
  const TestCa other("elsewhere.example");
  const Minted stranger = other.Mint("spiffe://elsewhere.example/client");
  EXPECT_EQ(ServerRefuses(&stranger).reason, CloseReason::kTrustDomainUnknown);
}

TEST_F(RefusalTest, RefusesAnExpiredClient) {
  const Minted expired = ExpiredLeaf("spiffe://example.org/client");
  const base::Failure failure = ServerRefuses(&expired);
  EXPECT_EQ(failure.reason, CloseReason::kPeerExpired);
  EXPECT_EQ(failure.alert_sent, kCertificateExpired);
  EXPECT_EQ(failure.x509_depth, 0);
}

TEST_F(RefusalTest, JudgesTimeByTheInjectedClock) {
  const fakes::FakeClock clock(absl::Now() + absl::Hours(5));
  End server = ServerEnd({.clock = &clock});
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  PlainPeer client = PlainPeer::Client(&identity);
  client.Talk(server);
  EXPECT_EQ(server.engine->failure().reason, CloseReason::kPeerExpired);
}

TEST_F(RefusalTest, RefusesAClientCertificateThatIsNoSvid) {
  CertificateSpec spec = LeafSpec("spiffe://example.org/client");
  spec.uris.push_back("spiffe://example.org/second");
  const Minted two_names = ca_.Mint(spec);
  EXPECT_EQ(ServerRefuses(&two_names).reason, CloseReason::kPeerBadCertificate);
  CertificateSpec server_only = LeafSpec("spiffe://example.org/client");
  server_only.extended_key_usage = "serverAuth";
  const Minted wrong_usage = ca_.Mint(server_only);
  EXPECT_EQ(ServerRefuses(&wrong_usage).reason, CloseReason::kPeerWrongUsage);
}

TEST_F(RefusalTest, RefusesAServerOfAnotherCaOrAnExpiredOne) {
  const Minted stranger = foreign_.Mint("spiffe://example.org/server");
  const base::Failure failure = ClientRefuses(&stranger);
  EXPECT_EQ(failure.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(failure.alert_sent, kUnknownCa);
  const Minted expired = ExpiredLeaf("spiffe://example.org/server");
  EXPECT_EQ(ClientRefuses(&expired).reason, CloseReason::kPeerExpired);
}

TEST_F(RefusalTest, RefusesTheWrongServerBeforeItShowsItsOwnCertificate) {
  const Minted imposter = ca_.Mint("spiffe://example.org/imposter");
  size_t client_chain = 99;
  End client = ClientEnd(Only("spiffe://example.org/server"));
  client.Handshake();
  PlainPeer server = PlainPeer::Server(
      &imposter, [](SSL_CTX* ctx) { SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr); });
  server.Talk(client);
  client_chain = SSL_get0_peer_certificate(server.ssl()) == nullptr ? 0 : 1;
  EXPECT_EQ(client_chain, 0U);
  const base::Failure& failure = client.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kIdentityMismatch);
  EXPECT_EQ(failure.alert_sent, kBadCertificate);
  EXPECT_EQ(failure.peer_id, "spiffe://example.org/imposter");
  EXPECT_NE(failure.detail.message().find("spiffe://example.org/server"), absl::string_view::npos);
  EXPECT_FALSE(client.engine->peer().has_value());
}

TEST_F(RefusalTest, AcceptsAnyOfTheExpectedServers) {
  Expected expected = Only("spiffe://example.org/other");
  expected.push_back(x509::SpiffeIdPattern::Parse("spiffe://example.org/*").value());
  EnginePair pair = MakePair(expected);
  pair.Shake();
  EXPECT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone);
}

TEST_F(RefusalTest, TellsTheClientOnItsFirstReadThatTheServerRefusedIt) {
  EnginePair pair =
      MakePair(TlsContext::CreateClient(Share(foreign_.Issue("spiffe://example.org/client")),
                                        Bundles(ca_), {})
                   .value(),
               ServerContext(server_svid_));
  pair.client.Handshake();
  pair.server.Turn(std::exchange(pair.client.outbox, ""));
  pair.client.Turn(std::exchange(pair.server.outbox, ""));
  // The client is through: the server has not judged yet.
  EXPECT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone);
  pair.Pump();
  EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(pair.client.last, EngineOutcome::kFailed);
  const base::Failure& failure = pair.client.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kRejectedByPeer);
  EXPECT_EQ(failure.alert_received, kUnknownCa);
  EXPECT_EQ(failure.alert_sent, -1);
  EXPECT_EQ(failure.peer_id, "spiffe://example.org/server");
  EXPECT_EQ(failure.x509_error, 0);
}

TEST_F(RefusalTest, TellsTheServerThatTheClientRefusedIt) {
  EnginePair pair = MakePair(Only("spiffe://example.org/other"));
  pair.Shake();
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kIdentityMismatch);
  const base::Failure& failure = pair.server.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kRejectedByPeer);
  EXPECT_EQ(failure.alert_received, kBadCertificate);
}

TEST_F(RefusalTest, RefusesEveryOlderVersionOfTls) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION}) {
    const base::Failure failure = ServerRefuses(
        &identity, [&](SSL_CTX* ctx) { SSL_CTX_set_max_proto_version(ctx, version); });
    EXPECT_EQ(failure.reason, CloseReason::kTlsVersion) << version;
    EXPECT_EQ(failure.alert_sent, kProtocolVersion) << version;
  }
}

TEST_F(RefusalTest, SaysTlsVersionOfAServerThatHasNoTls13) {
  const Minted identity = ca_.Mint("spiffe://example.org/server");
  const base::Failure failure = ClientRefuses(
      &identity, {}, [](SSL_CTX* ctx) { SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION); });
  EXPECT_EQ(failure.reason, CloseReason::kTlsVersion);
}

TEST_F(RefusalTest, NamesOpensslsReasonForWhatIsNoTls) {
  End server = ServerEnd();
  server.Turn("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
  EXPECT_EQ(server.last, EngineOutcome::kFailed);
  EXPECT_EQ(server.engine->failure().reason, CloseReason::kHandshakeFailed);
  EXPECT_NE(server.engine->failure().detail.message().find("http request"),
            absl::string_view::npos);
  End client = ClientEnd();
  client.Handshake();
  client.Turn("220 mail.example.org ESMTP\r\n");
  EXPECT_EQ(client.engine->failure().reason, CloseReason::kHandshakeFailed);
  EXPECT_FALSE(client.engine->failure().detail.message().empty());
}

TEST_F(RefusalTest, RefusesGroupsAndSignaturesThatItDoesNotOffer) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  const base::Failure failure = ServerRefuses(
      &identity, [](SSL_CTX* ctx) { SSL_CTX_set1_groups_list(ctx, "ffdhe2048:P-521"); });
  EXPECT_EQ(failure.reason, CloseReason::kHandshakeFailed);
}

TEST_F(RefusalTest, MeetsAPeerThatNeedsASecondHello) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  End server = ServerEnd();
  PlainPeer client = PlainPeer::Client(
      &identity, [](SSL_CTX* ctx) { SSL_CTX_set1_groups_list(ctx, "P-521:P-256"); });
  client.Talk(server);
  EXPECT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_EQ(server.engine->facts().alpn, "");  // not of the mesh, but taken where all TLS is ours
}

TEST_F(RefusalTest, AcceptsForeignKeysOfGoodStrength) {
  for (const testing::KeyType type :
       {testing::KeyType::kP384, testing::KeyType::kRsa2048, testing::KeyType::kEd25519}) {
    CertificateSpec spec = LeafSpec("spiffe://example.org/client");
    spec.key_type = type;
    const Minted identity = ca_.Mint(spec);
    End server = ServerEnd();
    PlainPeer client = PlainPeer::Client(&identity);
    client.Talk(server);
    EXPECT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone)
        << static_cast<int>(type) << server.engine->failure().detail;
  }
}

TEST_F(RefusalTest, RefusesAChainThatIsTooLong) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  const base::Failure failure = ServerRefuses(&identity, [&](SSL_CTX* ctx) {
    for (int i = 0; i < 300; ++i) {
      SSL_CTX_add1_chain_cert(ctx, ca_.root());
    }
  });
  EXPECT_EQ(failure.reason, CloseReason::kHandshakeFailed);
  EXPECT_NE(failure.detail.message().find("excessive message size"), absl::string_view::npos)
      << failure.detail;
}

TEST_F(RefusalTest, NamesNoCertificateAuthorityInItsRequest) {
  // Two hundred roots in the bundle: the server's flight is as long as with one.
  std::vector<TestCa> cas;
  std::vector<const TestCa*> all = {&ca_};
  for (int i = 0; i < 20; ++i) {
    cas.emplace_back("td" + std::to_string(i) + ".example");
  }
  for (const TestCa& ca : cas) {
    all.push_back(&ca);
  }
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  const auto many = std::make_shared<const x509::TrustBundleSet>(testing::BundleSetOf(all));
  End server{
      TlsEngine::CreateServer(TlsContext::CreateServer(server_svid_, many, {}).value(), scratch_)
          .value(),
      &scratch_};
  PlainPeer client = PlainPeer::Client(&identity);
  client.Talk(server);
  EXPECT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_EQ(sk_X509_NAME_num(SSL_get0_peer_CA_list(client.ssl())), -1);
}

TEST_F(RefusalTest, NeverResumes) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  int tickets = 0;
  PlainPeer client = PlainPeer::Client(&identity, [&](SSL_CTX* ctx) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_set_ex_data(ctx, 0, &tickets);
    SSL_CTX_sess_set_new_cb(ctx, [](SSL* ssl, SSL_SESSION*) {
      ++*static_cast<int*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0));
      return 0;
    });
  });
  End server = ServerEnd();
  client.Talk(server);
  client.Write("x");
  client.Talk(server);
  EXPECT_EQ(server.received, "x");
  EXPECT_EQ(tickets, 0);
  EXPECT_EQ(SSL_SESSION_is_resumable(SSL_get0_session(client.ssl())), 0);
}

// Offers a session that we have never seen, with leave to send early data.
int UseForeignSession(SSL* ssl, const EVP_MD* /*digest*/, const unsigned char** id,
                      size_t* id_length, SSL_SESSION** session) {
  static const unsigned char kName[] = "somebody else's";
  const unsigned char key[32] = {7};
  const unsigned char suite[] = {0x13, 0x01};
  SSL_SESSION* made = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(made, key, sizeof(key));
  SSL_SESSION_set_cipher(made, SSL_CIPHER_find(ssl, suite));
  SSL_SESSION_set_protocol_version(made, TLS1_3_VERSION);
  SSL_SESSION_set_max_early_data(made, 4096);
  *id = kName;
  *id_length = sizeof(kName) - 1;
  *session = made;
  return 1;
}

TEST_F(RefusalTest, SkipsEarlyDataAndNeverDeliversIt) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  End server = ServerEnd();
  PlainPeer client = PlainPeer::Client(&identity, [](SSL_CTX* ctx) {
    SSL_CTX_set_psk_use_session_callback(ctx, &UseForeignSession);
  });
  size_t written = 0;
  ASSERT_EQ(SSL_write_early_data(client.ssl(), "replayed", 8, &written), 1);
  ASSERT_EQ(written, 8U);
  client.Talk(server);
  ASSERT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone)
      << server.engine->failure().detail;
  EXPECT_EQ(SSL_get_early_data_status(client.ssl()), SSL_EARLY_DATA_REJECTED);
  EXPECT_FALSE(server.engine->facts().resumed);
  client.Write("fresh");
  client.Talk(server);
  EXPECT_EQ(server.received, "fresh");
}

TEST_F(RefusalTest, SurvivesUpdatesOfKeysButNotAFloodOfThem) {
  fakes::FakeClock clock(absl::Now());
  End server = ServerEnd({.clock = &clock});
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  PlainPeer client = PlainPeer::Client(&identity);
  client.Talk(server);
  ASSERT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone);
  // One a second, each asking for ours: for ever.
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    client.Write("a");
    client.Talk(server);
    server.Write("b");
    client.Talk(server);
    clock.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(server.received.size(), 500U);
  EXPECT_EQ(client.received().size(), 500U);
  // A flood within one moment.
  std::string flood;
  for (int i = 0; i < 2000; ++i) {
    SSL_key_update(client.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
    SSL_do_handshake(client.ssl());
    flood += client.TakeOutput();
  }
  server.Turn(std::string_view(flood).substr(0, 60'000));
  EXPECT_EQ(server.last, EngineOutcome::kFailed);
  const base::Failure& failure = server.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kHandshakeFailed);
  EXPECT_NE(failure.detail.message().find("too many records"), absl::string_view::npos);
  EXPECT_EQ(failure.alert_sent, 10);
  // The alert is sealed with the keys that the updates of our own side led to.
  client.Feed(std::exchange(server.outbox, ""));
  client.Turn();
  EXPECT_EQ(client.reason(), SSL_R_SSLV3_ALERT_UNEXPECTED_MESSAGE);
}

TEST_F(RefusalTest, SealsItsAlertUnderEachCipherSuite) {
  const Minted identity = ca_.Mint("spiffe://example.org/client");
  for (const char* suite :
       {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}) {
    End server = ServerEnd();
    PlainPeer client =
        PlainPeer::Client(&identity, [&](SSL_CTX* ctx) { SSL_CTX_set_ciphersuites(ctx, suite); });
    client.Talk(server);
    ASSERT_EQ(server.engine->facts().cipher, suite);
    server.Write("so far");
    server.engine->SendAlert(49);
    server.Drain();
    server.engine->EndTurn();
    client.Feed(std::exchange(server.outbox, ""));
    client.Turn();
    EXPECT_EQ(client.received(), "so far") << suite;
    EXPECT_EQ(client.reason(), SSL_R_TLSV1_ALERT_ACCESS_DENIED) << suite;
  }
}

TEST_F(RefusalTest, TakesManyTicketsOfAForeignServerOnlyUpToABound) {
  const Minted identity = ca_.Mint("spiffe://example.org/server");
  const PlainPeer::Setup setup = [](SSL_CTX* ctx) { SSL_CTX_set_num_tickets(ctx, 4); };
  End client = ClientEnd();
  client.Handshake();
  PlainPeer server = PlainPeer::Server(&identity, setup);
  server.Talk(client);
  ASSERT_EQ(client.engine->Handshake().outcome, EngineOutcome::kDone);
  server.Write("hello");
  server.Talk(client);
  EXPECT_EQ(client.received, "hello");
  for (int i = 0; i < 500 && client.last != EngineOutcome::kFailed; ++i) {
    SSL_new_session_ticket(server.ssl());
    server.Write("x");
    client.Turn(server.TakeOutput());
  }
  EXPECT_EQ(client.last, EngineOutcome::kFailed);
  EXPECT_LT(client.received.size(), 100U);
}

}  // namespace
}  // namespace postern::tls
