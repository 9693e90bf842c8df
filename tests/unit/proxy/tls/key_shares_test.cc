// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/key_shares.h"

#include <gtest/gtest.h>
#include <openssl/obj_mac.h>
#include <openssl/ssl.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "tests/unit/proxy/tls/engine_pair.h"
#include "tests/unit/proxy/tls/plain_peer.h"

namespace postern::tls {
namespace {

constexpr std::string_view kDestination = "192.0.2.1:8443";
constexpr std::string_view kOther = "192.0.2.2:8443";
constexpr size_t kRecordHeader = 5;

// How many shares a ClientHello has; SSL_client_hello_get0_ext's extension is a list of (group,
// length, share), behind its own length (RFC 8446 section 4.2.8).
int CountShares(SSL* ssl, int* /*alert*/, void* count) {
  const unsigned char* list = nullptr;
  size_t size = 0;
  *static_cast<int*>(count) = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_key_share, &list, &size) == 1) {
    for (size_t at = 2; at + 4 <= size; ++*static_cast<int*>(count)) {
      at += 4 + static_cast<size_t>(list[at + 2] * 256 + list[at + 3]);
    }
  }
  return SSL_CLIENT_HELLO_SUCCESS;
}

// A HelloRetryRequest is a ServerHello with the SHA-256 of its name in place of the random (RFC
// 8446 section 4.1.3).
bool AsksAgain(std::string_view flight) {
  constexpr std::string_view kBegin = "\xCF\x21\xAD\x74\xE5\x9A\x61\x11";
  return flight.substr(kRecordHeader + 4 + 2, kBegin.size()) == kBegin;
}

class KeySharesTest : public EngineTest {
 protected:
  // A handshake of this context with a peer that has only these groups (null: with one of ours).
  // Whether the peer had to ask for another share.
  bool VisitAsksAgain(const std::shared_ptr<const TlsContext>& client, const char* groups,
                      std::string_view destination = kDestination) {
    End end{TlsEngine::CreateClient(client, scratch_, {}, destination).value(), &scratch_};
    bool asked = false;
    if (groups == nullptr) {
      End server{TlsEngine::CreateServer(ServerContext(server_svid_), scratch_).value(), &scratch_};
      end.Handshake();
      server.Turn(std::exchange(end.outbox, ""));
      asked = AsksAgain(server.outbox);
      EnginePair pair{std::move(end), std::move(server)};
      pair.Pump();
      group_ = pair.client.engine->facts().group;
      EXPECT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone);
      return asked;
    }
    PlainPeer server = PlainPeer::Server(&identity_, [&](SSL_CTX* ctx) {
      EXPECT_EQ(SSL_CTX_set1_groups_list(ctx, groups), 1);
      SSL_CTX_set_client_hello_cb(ctx, &CountShares, &shares_);
    });
    end.Handshake();
    EXPECT_EQ(end.outbox.size(), kRecordHeader + static_cast<uint8_t>(end.outbox[3]) * 256U +
                                     static_cast<uint8_t>(end.outbox[4]))
        << "the hello leaves in one record";
    server.Feed(std::exchange(end.outbox, ""));
    server.Turn();
    const std::string flight = server.TakeOutput();
    asked = AsksAgain(flight);
    end.Turn(flight);
    server.Feed(std::exchange(end.outbox, ""));
    server.Talk(end);
    EXPECT_EQ(end.engine->Handshake().outcome, EngineOutcome::kDone)
        << end.engine->failure().detail;
    EXPECT_EQ(shares_, 1);
    group_ = end.engine->facts().group;
    return asked;
  }

  const testing::Minted identity_ = ca_.Mint("spiffe://example.org/server");
  int shares_ = 0;     // of the last hello
  std::string group_;  // of the last handshake
};

TEST_F(KeySharesTest, SendsOneShareAndNeedsNoSecondRoundWithItsLike) {
  const auto client = ClientContext(client_svid_);
  EXPECT_FALSE(VisitAsksAgain(client, nullptr));
  EXPECT_FALSE(VisitAsksAgain(client, nullptr));
}

TEST_F(KeySharesTest, RemembersWhatAPeerTakes) {
  for (const char* groups : {"P-256", "X25519"}) {
    const auto client = ClientContext(client_svid_);
    VisitAsksAgain(client, groups);
    const std::string first = group_;
    for (int i = 0; i < 3; ++i) {
      EXPECT_FALSE(VisitAsksAgain(client, groups)) << groups << " " << i;
      EXPECT_EQ(group_, first);
    }
  }
}

TEST_F(KeySharesTest, AsksOnceMoreWhenAPeerHasChanged) {
  const auto client = ClientContext(client_svid_);
  EXPECT_TRUE(VisitAsksAgain(client, "P-256"));
  EXPECT_TRUE(VisitAsksAgain(client, "X25519"));
  EXPECT_FALSE(VisitAsksAgain(client, "X25519"));
}

TEST_F(KeySharesTest, KnowsNothingOfAnotherDestinationOrContext) {
  const auto client = ClientContext(client_svid_);
  EXPECT_TRUE(VisitAsksAgain(client, "P-256"));
  EXPECT_TRUE(VisitAsksAgain(client, "P-256", kOther));
  EXPECT_FALSE(VisitAsksAgain(client, "P-256"));
  EXPECT_TRUE(VisitAsksAgain(ClientContext(client_svid_), "P-256"));
}

// Whoever answered with a weaker group once, and has the first by now, gets the first.
TEST_F(KeySharesTest, ComesBackToTheFirstGroupWithAServerOfOurs) {
  const auto client = ClientContext(client_svid_);
  VisitAsksAgain(client, nullptr);
  const std::string first = group_;
  VisitAsksAgain(client, "X25519");
  VisitAsksAgain(client, nullptr);
  EXPECT_EQ(group_, first);
  EXPECT_FALSE(VisitAsksAgain(client, nullptr));
  EXPECT_EQ(group_, first);
}

TEST_F(KeySharesTest, LearnsNothingFromAHandshakeThatFails) {
  const auto client = ClientContext(client_svid_);
  const testing::TestCa other("example.org");
  const testing::Minted forged = other.Mint("spiffe://example.org/server");
  End end{TlsEngine::CreateClient(client, scratch_, {}, kDestination).value(), &scratch_};
  PlainPeer server =
      PlainPeer::Server(&forged, [](SSL_CTX* ctx) { SSL_CTX_set1_groups_list(ctx, "P-256"); });
  end.Handshake();
  server.Feed(std::exchange(end.outbox, ""));
  server.Talk(end);
  EXPECT_EQ(end.last, EngineOutcome::kFailed);
  EXPECT_TRUE(VisitAsksAgain(client, "P-256"));
}

TEST(KeySharesMemoryTest, IsBoundedAndForgetsTheOldest) {
  const x509::SslCtxPtr ctx(SSL_CTX_new(TLS_client_method()));
  KeyShares shares;
  ASSERT_TRUE(shares.Configure(ctx.get()).ok());
  for (size_t i = 0; i < 3 * KeyShares::kGeneration; ++i) {
    shares.Learn(std::to_string(i), NID_X9_62_prime256v1);
    EXPECT_LE(shares.size(), 2 * KeyShares::kGeneration);
  }
  EXPECT_GE(shares.size(), KeyShares::kGeneration);
  KeyShares empty;
  ASSERT_TRUE(empty.Configure(ctx.get()).ok());
  empty.Learn("", NID_X9_62_prime256v1);
  empty.Learn("of a group that we do not have", NID_secp384r1);
  EXPECT_EQ(empty.size(), 0U);
}

}  // namespace
}  // namespace postern::tls
