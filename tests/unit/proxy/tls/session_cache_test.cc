// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/session_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace postern::tls {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1767225600);

std::shared_ptr<const CachedSession> Session(size_t bytes = 500,
                                             absl::Time until = kNow + absl::Hours(1)) {
  return std::make_shared<const CachedSession>(
      std::vector<uint8_t>(bytes, uint8_t{1}),
      x509::VerifiedPeer{x509::SpiffeId::Parse("spiffe://example.org/a").value(),
                         kNow - absl::Hours(1),
                         kNow + absl::Hours(1),
                         "01",
                         {},
                         {{}}},
      until);
}

TEST(SessionCacheTest, FindsWhatWasPutAndTheNewestOfIt) {
  SessionCache cache;
  EXPECT_EQ(cache.Find("a", kNow), nullptr);
  const auto first = Session();
  const auto second = Session();
  cache.Put("a", first);
  EXPECT_EQ(cache.Find("a", kNow), first);
  EXPECT_EQ(cache.Find("a", kNow), first);  // it stays
  EXPECT_EQ(cache.Find("ab", kNow), nullptr);
  cache.Put("a", second);
  EXPECT_EQ(cache.Find("a", kNow), second);
  EXPECT_EQ(cache.size(), 1U);
}

TEST(SessionCacheTest, TheLeastRecentlyUsedLeavesFirst) {
  SessionCache cache(3);
  for (const char* key : {"a", "b", "c"}) {
    cache.Put(key, Session());
  }
  cache.Find("a", kNow);
  cache.Put("d", Session());
  EXPECT_EQ(cache.size(), 3U);
  EXPECT_EQ(cache.Find("b", kNow), nullptr);
  for (const char* key : {"a", "c", "d"}) {
    EXPECT_NE(cache.Find(key, kNow), nullptr) << key;
  }
  cache.Put("c", Session());  // replacing is use
  cache.Put("e", Session());
  EXPECT_EQ(cache.Find("a", kNow), nullptr);
  EXPECT_NE(cache.Find("c", kNow), nullptr);
}

TEST(SessionCacheTest, IsBoundedInNumberAndInBytes) {
  SessionCache cache;
  for (int i = 0; i < 10'000; ++i) {
    cache.Put(std::to_string(i), Session(SessionCache::kMaxSessionBytes));
  }
  EXPECT_EQ(cache.size(), SessionCache::kMaxSessions);
  cache.Put("large", Session(SessionCache::kMaxSessionBytes + 1));
  EXPECT_EQ(cache.Find("large", kNow), nullptr);
  SessionCache none(0);
  none.Put("a", Session());
  EXPECT_EQ(none.size(), 0U);
}

TEST(SessionCacheTest, WhatIsOverOrNotYetValidIsTakenOut) {
  SessionCache cache;
  cache.Put("a", Session(500, kNow));
  EXPECT_EQ(cache.Find("a", kNow), nullptr);
  EXPECT_EQ(cache.size(), 0U);
  cache.Put("a", Session(500, kNow + absl::Seconds(1)));
  EXPECT_NE(cache.Find("a", kNow), nullptr);
  EXPECT_EQ(cache.Find("a", kNow - absl::Hours(2)), nullptr);  // the clock was set back
  EXPECT_EQ(cache.size(), 0U);
}

TEST(SessionCacheTest, ForgetsThisSessionAndNotALaterOne) {
  SessionCache cache;
  const auto first = Session();
  const auto second = Session();
  cache.Put("a", first);
  cache.Put("a", second);
  cache.Forget("a", *first);
  EXPECT_EQ(cache.Find("a", kNow), second);
  cache.Forget("b", *second);
  cache.Forget("a", *second);
  EXPECT_EQ(cache.size(), 0U);
}

}  // namespace
}  // namespace postern::tls
