// SPDX-License-Identifier: Apache-2.0
#include "common/x509/chain_cache.h"

#include <gtest/gtest.h>

#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

constexpr absl::Time At(int minute) {
  return absl::FromUnixSeconds(1800000000 + minute * 60);
}

VerifiedPeer Peer(int from, int until) {
  return {SpiffeId::Parse("spiffe://example.org/web").value(), At(from), At(until), "01", {}, {}};
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
  const X509StackPtr rest = web.Untrusted();
  const auto whole = DigestOfPresented(web.leaf(), rest.get());
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole, DigestOfPresented(web.leaf(), ShareX509Stack(web.chain).get()))
      << "OpenSSL names the leaf twice";
  EXPECT_NE(whole, DigestOfPresented(web.leaf(), nullptr));
  EXPECT_NE(whole, DigestOfPresented(db.leaf(), rest.get()));
  EXPECT_NE(whole, DigestOfPresented(web.chain[1].get(), nullptr));
  EXPECT_EQ(DigestOfPresented(nullptr, rest.get()), std::nullopt);
}

}  // namespace
}  // namespace postern::x509
