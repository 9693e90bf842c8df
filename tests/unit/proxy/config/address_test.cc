// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/strings.h"
#include "proxy/config/proxy_config.h"

namespace postern::config {
namespace {

using testing::HasSubstr;

TEST(AddressSpecTest, ReadsEachForm) {
  struct Row {
    std::string text, host;
    uint16_t port;
    std::string path, again;
  };
  const std::vector<Row> rows = {
      {"127.0.0.1:80", "127.0.0.1", 80, "", "127.0.0.1:80"},
      {"0.0.0.0:0", "0.0.0.0", 0, "", "0.0.0.0:0"},
      {"[2001:DB8:0::1]:65535", "2001:db8::1", 65535, "", "[2001:db8::1]:65535"},
      {"[::ffff:192.0.2.1]:1", "192.0.2.1", 1, "", "192.0.2.1:1"},
      {"localhost:15012", "localhost", 15012, "", "localhost:15012"},
      {"db-1.my_ns.svc:1", "db-1.my_ns.svc", 1, "", "db-1.my_ns.svc:1"},
      {"unix:/run/a b.sock", "", 0, "/run/a b.sock", "unix:/run/a b.sock"},
  };
  for (const Row& row : rows) {
    const auto address = AddressSpec::Parse(row.text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->host, row.host);
    EXPECT_EQ(address->port, row.port);
    EXPECT_EQ(address->unix_path, row.path);
    EXPECT_EQ(address->is_unix(), !row.path.empty());
    EXPECT_EQ(address->ToString(), row.again);
  }
}

TEST(AddressSpecTest, RefusesWhatIsNoAddress) {
  for (const std::string& text : {std::string(""),
                                  std::string(":80"),
                                  std::string("127.0.0.1"),
                                  std::string("127.0.0.1:"),
                                  std::string("127.0.0.1:65536"),
                                  std::string("127.0.0.1:-1"),
                                  std::string("127.0.0.1:8 0"),
                                  std::string("::1:80"),
                                  std::string("[::1]"),
                                  std::string("[127.0.0.1]:80"),
                                  std::string("[name]:80"),
                                  std::string("999.1.1.1:80"),
                                  std::string("1.2.3:80"),
                                  std::string("a..b:80"),
                                  std::string("a b:80"),
                                  std::string("[fe80::1%eth0]:80"),
                                  std::string("unix:"),
                                  "unix:/" + std::string(107, 'a'),
                                  "unix:/a" + std::string(1, '\0'),
                                  std::string(64, 'a') + ":80",
                                  std::string("http://a:80")}) {
    EXPECT_FALSE(AddressSpec::Parse(text).ok()) << text;
  }
}

TEST(TunnelSpecTest, ReadsAllParts) {
  const auto tunnel = TunnelSpec::Parse(
      "outbound,listen=127.0.0.1:5432,target=db.example.org:8443,peer=spiffe://td/db,"
      "peer=spiffe://td/db/*");
  ASSERT_TRUE(tunnel.ok()) << tunnel.status();
  EXPECT_EQ(tunnel->direction, base::Direction::kOutbound);
  EXPECT_EQ(tunnel->listen.ToString(), "127.0.0.1:5432");
  EXPECT_EQ(tunnel->target.host, "db.example.org");
  ASSERT_EQ(tunnel->peers.size(), 2u);
  EXPECT_EQ(tunnel->peers[1].ToString(), "spiffe://td/db/*");
  EXPECT_TRUE(tunnel->client_auth);
  EXPECT_EQ(tunnel->name, "outbound:127.0.0.1:5432");
}

TEST(TunnelSpecTest, ReadsTheTlsOnlyMode) {
  const auto tunnel =
      TunnelSpec::Parse("inbound,listen=[::]:443,target=unix:/run/app.sock,client-auth=none");
  ASSERT_TRUE(tunnel.ok()) << tunnel.status();
  EXPECT_FALSE(tunnel->client_auth);
  EXPECT_TRUE(tunnel->target.is_unix());
  EXPECT_EQ(tunnel->name, "inbound:[::]:443");
}

TEST(TunnelSpecTest, ReadsPinsOfAnOutboundTunnel) {
  const std::string one = "sha256:" + std::string(64, '1');
  const std::string two = "sha256:" + std::string(64, '2');
  const std::string text =
      "outbound,listen=127.0.0.1:1,target=127.0.0.1:2,peer=spiffe://td/a,pin-ca=" + one +
      ",pin-ca=" + two + ",pin-key=" + two;
  const auto tunnel = TunnelSpec::Parse(text);
  ASSERT_TRUE(tunnel.ok()) << tunnel.status();
  ASSERT_NE(tunnel->pins, nullptr);
  EXPECT_EQ(tunnel->pins->ca_sha256.size(), 2U);
  ASSERT_EQ(tunnel->pins->key_sha256.size(), 1U);
  EXPECT_EQ(x509::PinText(tunnel->pins->key_sha256[0]), two);
  const auto without = TunnelSpec::Parse(text.substr(0, text.find(",pin")));
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(without->pins, nullptr);
}

TEST(TunnelSpecTest, SaysWhatIsWrong) {
  const std::string ends = "listen=127.0.0.1:1,target=127.0.0.1:2";
  struct Row {
    std::string text, expected;
  };
  const std::vector<Row> rows = {
      {"", "is no direction"},
      {"sideways," + ends, "'sideways' is no direction"},
      {"inbound", "listen is missing"},
      {"inbound,listen=127.0.0.1:1", "target is missing"},
      {"inbound," + ends, "peer is missing"},
      {"outbound," + ends + ",client-auth=none", "inbound tunnels only"},
      {"inbound," + ends + ",client-auth=none,peer=spiffe://td/a", "leave one of them out"},
      {"inbound," + ends + ",client-auth=maybe", "client-auth: 'maybe' is not one of"},
      {"inbound," + ends + ",peer=td/a", "peer: "},
      {"inbound," + ends + ",peer=spiffe://td/a*", "peer: "},
      {"inbound," + ends + ",per=spiffe://td/a", "'per' is no part of a tunnel"},
      {"inbound," + ends + ",spiffe://td/a", "'spiffe://td/a' is no part of a tunnel"},
      {"inbound," + ends + ",listen=127.0.0.1:3", "listen is given twice"},
      {"inbound,listen=127.0.0.1,target=127.0.0.1:2", "listen: '127.0.0.1' is no address"},
      {"inbound,listen=127.0.0.1:1,target=127.0.0.1:0,peer=spiffe://td/a", "target: port 0"},
      {"outbound," + ends + ",peer=spiffe://td/a,pin-ca=abc", "pin-ca: 'abc' is no pin"},
      {"outbound," + ends + ",peer=spiffe://td/a,pin-key=", "pin-key: '' is no pin"},
      {"inbound," + ends + ",peer=spiffe://td/a,pin-key=sha256:" + std::string(64, '1'),
       "outbound tunnels only"},
  };
  for (const Row& row : rows) {
    const auto tunnel = TunnelSpec::Parse(row.text);
    EXPECT_EQ(tunnel.status().code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_THAT(std::string(base::Message(tunnel.status())), HasSubstr(row.expected));
  }
}

}  // namespace
}  // namespace postern::config
