// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/chain_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "proxy/tls/tls_context_impl.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/proxy/tls/engine_pair.h"

namespace postern::tls {
namespace {

using base::CloseReason;

constexpr absl::Time At(int minute) {
  return absl::FromUnixSeconds(1800000000 + minute * 60);
}

x509::VerifiedPeer Peer(int from, int until) {
  return {
      x509::SpiffeId::Parse("spiffe://example.org/web").value(), At(from), At(until), "01", {}, {}};
}

base::Sha256Digest Key(uint32_t number) {
  base::Sha256Digest key{};
  for (size_t i = 0; i < sizeof(number); ++i) {
    key[i] = static_cast<uint8_t>(number >> (8 * i));
  }
  return key;
}

TEST(ChainCacheTest, RemembersAVerdictWhileItsWholePathIsValid) {
  ChainCache cache;
  cache.Add(Key(1), Peer(10, 20));
  EXPECT_EQ(cache.Find(Key(1), At(9)), nullptr) << "the clock may go back";
  ASSERT_NE(cache.Find(Key(1), At(10)), nullptr);
  EXPECT_EQ(cache.Find(Key(1), At(19))->id.uri(), "spiffe://example.org/web");
  EXPECT_EQ(cache.Find(Key(1), At(20)), nullptr);
  EXPECT_EQ(cache.Find(Key(2), At(15)), nullptr);
}

TEST(ChainCacheTest, IsBoundedAndKeepsWhatIsUsed) {
  ChainCache cache;
  cache.Add(Key(0), Peer(0, 20));
  for (uint32_t i = 1; i <= 10 * ChainCache::kGeneration; ++i) {
    cache.Add(Key(i), Peer(0, 20));
    ASSERT_NE(cache.Find(Key(0), At(1)), nullptr) << i;
    ASSERT_LE(cache.size(), 2 * ChainCache::kGeneration);
  }
  EXPECT_EQ(cache.Find(Key(1), At(1)), nullptr);
}

TEST(ChainCacheTest, DigestsWhatWasPresentedInItsOrder) {
  const testing::TestCa root("example.org");
  const testing::TestCa middle = root.Intermediate();
  const testing::Minted web = middle.Mint("spiffe://example.org/web");
  const testing::Minted db = middle.Mint("spiffe://example.org/db");
  const x509::X509StackPtr rest = web.Untrusted();
  const auto whole = DigestOfPresented(web.leaf(), rest.get());
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole, DigestOfPresented(web.leaf(), x509::ShareX509Stack(web.chain).get()))
      << "OpenSSL names the leaf twice";
  EXPECT_NE(whole, DigestOfPresented(web.leaf(), nullptr));
  EXPECT_NE(whole, DigestOfPresented(db.leaf(), rest.get()));
  EXPECT_NE(whole, DigestOfPresented(web.chain[1].get(), nullptr));
  EXPECT_EQ(DigestOfPresented(nullptr, rest.get()), std::nullopt);
}

class CachedChainTest : public EngineTest {
 protected:
  CachedChainTest() {
    options_.clock = &clock_;
    client_ = ClientContext(client_svid_, options_);
    server_ = ServerContext(server_svid_, options_);
  }
  EnginePair Shake(const Expected& expected = {}) {
    EnginePair pair = MakePair(client_, server_, expected);
    pair.Shake();
    return pair;
  }

  fakes::FakeClock clock_{absl::Now()};
  TlsOptions options_;
  std::shared_ptr<const TlsContext> client_;
  std::shared_ptr<const TlsContext> server_;
};

TEST_F(CachedChainTest, IsVerifiedOnceAndGivesTheSameFacts) {
  const EnginePair first = Shake();
  const EnginePair second = Shake();
  ASSERT_TRUE(first.server.engine->peer().has_value());
  ASSERT_TRUE(second.server.engine->peer().has_value());
  EXPECT_EQ(server_->impl().verified_chains.size(), 1U);
  EXPECT_EQ(client_->impl().verified_chains.size(), 1U);
  EXPECT_EQ(first.server.engine->peer()->chain_sha256, second.server.engine->peer()->chain_sha256);
  EXPECT_EQ(first.server.engine->peer()->serial, second.server.engine->peer()->serial);
  EXPECT_EQ(second.client.engine->peer()->id.uri(), "spiffe://example.org/server");
}

TEST_F(CachedChainTest, IsStillJudgedByWhoWasExpected) {
  Shake();
  const EnginePair pair = Shake(Only("spiffe://example.org/other"));
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kIdentityMismatch);
}

TEST_F(CachedChainTest, ExpiresWithTheCertificate) {
  Shake();
  clock_.Advance(absl::Hours(3));
  const EnginePair pair = Shake();
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kPeerExpired);
}

TEST_F(CachedChainTest, DoesNotOutliveItsTrust) {
  Shake();
  const testing::TestCa other("example.org");
  server_ = TlsContext::CreateServer(server_svid_, Bundles(other), options_).value();
  const EnginePair pair = Shake();
  EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerUntrusted);
}

TEST_F(CachedChainTest, KeepsNoBadVerdict) {
  const testing::TestCa other("example.org");
  const auto stranger = Share(other.Issue("spiffe://example.org/client"));
  client_ = ClientContext(stranger, options_);
  for (int i = 0; i < 2; ++i) {
    const EnginePair pair = Shake();
    EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerUntrusted);
  }
  EXPECT_EQ(server_->impl().verified_chains.size(), 0U);
}

}  // namespace
}  // namespace postern::tls
