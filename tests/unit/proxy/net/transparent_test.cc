// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/transparent.h"

#include <gtest/gtest.h>

namespace postern::net {
namespace {

base::IpAddress Ip(const char* text) {
  return base::IpAddress::Parse(text).value();
}

TEST(CanStandForClientTest, TakesAddressesThatMeanSomethingWithoutMore) {
  for (const char* good : {"198.18.1.1", "10.0.0.1", "fd00:5b::1", "2001:db8::1"}) {
    EXPECT_TRUE(CanStandForClient(Ip(good))) << good;
  }
  for (const char* bad : {"0.0.0.0", "::", "127.0.0.1", "127.8.8.8", "::1", "fe80::1", "febf::1",
                          "::ffff:127.0.0.1"}) {
    EXPECT_FALSE(CanStandForClient(Ip(bad))) << bad;
  }
}

}  // namespace
}  // namespace postern::net
