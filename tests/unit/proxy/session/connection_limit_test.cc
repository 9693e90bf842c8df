// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/connection_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "common/x509/key_memory.h"

namespace postern::session {
namespace {

TEST(ConnectionLimitTest, FollowsTheLimitOfFileDescriptors) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(ConnectionLimit(config::ProxyConfig()), ConnectionsFor(limit.rlim_cur));
  EXPECT_EQ(ConnectionsFor(1064), 500U);
  EXPECT_EQ(ConnectionsFor(66), 1U);
  EXPECT_EQ(ConnectionsFor(0), 1U);
}

TEST(ConnectionLimitTest, IsWhatWasAskedFor) {
  config::ProxyConfig config;
  config.max_connections = 1'000'000;
  EXPECT_EQ(ConnectionLimit(config), 1'000'000U);
}

TEST(ConnectionLimitTest, UnaskedIsWhatLockedMemoryHasRoomFor) {
  EXPECT_EQ(ConnectionsFor(RLIM_INFINITY), kMostConnectionsUnasked);
  EXPECT_EQ(x509::KeyMemorySize(kMostConnectionsUnasked), 8U << 20U);
}

}  // namespace
}  // namespace postern::session
