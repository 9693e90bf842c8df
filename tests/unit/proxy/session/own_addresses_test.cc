// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/own_addresses.h"

#include <gtest/gtest.h>

namespace postern::session {
namespace {

net::SocketAddress At(std::string_view text) {
  return net::SocketAddress::Parse(text).value();
}

TEST(OwnAddressesTest, KnowsAListenerByItsExactAddress) {
  OwnAddresses own;
  own.Add(At("192.0.2.1:8443"));
  EXPECT_TRUE(own.Contains(At("192.0.2.1:8443")));
  EXPECT_FALSE(own.Contains(At("192.0.2.1:8444")));
  EXPECT_FALSE(own.Contains(At("192.0.2.2:8443")));
}

TEST(OwnAddressesTest, TakesAWildcardListenerForEveryLocalAddressAndNoOther) {
  OwnAddresses own;
  own.Add(At("0.0.0.0:15006"));
  own.Add(At("[::]:15006"));
  EXPECT_TRUE(own.Contains(At("127.0.0.1:15006")));
  EXPECT_TRUE(own.Contains(At("127.9.9.9:15006")));
  EXPECT_TRUE(own.Contains(At("[::1]:15006")));
  EXPECT_TRUE(own.Contains(At("[::ffff:127.0.0.1]:15006"))) << "v4-mapped is the same host";
  EXPECT_FALSE(own.Contains(At("192.0.2.77:15006"))) << "somebody else's intercept port";
}

TEST(OwnAddressesTest, GuardsTheAdminAndMetricsPorts) {
  config::ProxyConfig config;
  config.admin = "127.0.0.1:15000";
  config.metrics = "0.0.0.0:15020";
  OwnAddresses own;
  own.AddAdminPorts(config);
  EXPECT_TRUE(own.Contains(At("127.0.0.1:15000")));
  EXPECT_TRUE(own.Contains(At("127.0.0.1:15020")));
  EXPECT_FALSE(own.Contains(At("127.0.0.1:8080")));
}

TEST(OwnAddressesTest, ComparesUnixSocketsByPath) {
  OwnAddresses own;
  own.Add(net::SocketAddress::Unix("/run/postern/in"));
  EXPECT_TRUE(own.Contains(net::SocketAddress::Unix("/run/postern/in")));
  EXPECT_FALSE(own.Contains(net::SocketAddress::Unix("/run/postern/other")));
  EXPECT_FALSE(own.Contains(At("127.0.0.1:1")));
}

}  // namespace
}  // namespace postern::session
