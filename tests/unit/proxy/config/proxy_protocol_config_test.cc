// SPDX-License-Identifier: Apache-2.0
// What asks for the PROXY protocol: the knob of intercepted ports, and a tunnel's part.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/proxy/config/parse_arguments.h"

namespace postern::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ProxyProtocolConfigTest, ReadsThePortsWhoseApplicationsAreToldOfTheirClients) {
  const ParseOutcome outcome = Parse(Plus(
      kRedirect, {"--proxy-protocol", "8080", "--proxy-protocol", "25", "--proxy-protocol", "25"}));
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  EXPECT_THAT(outcome.config->proxy_protocol_ports, ElementsAre(25, 8080));
  const auto shown = nlohmann::json::parse(ConfigAsJson(*outcome.config));
  EXPECT_EQ(shown["proxy-protocol"]["value"], nlohmann::json::array({"25", "8080"}));
  for (const std::string port : {"0", "65536", "http", ""}) {
    EXPECT_THAT(Refusal(Plus(kRedirect, {"--proxy-protocol", port})),
                HasSubstr("is no port from 1 to 65535"));
  }
}

TEST(ProxyProtocolConfigTest, ProxyProtocolOfAPortIsNothingWithoutInterception) {
  const ParseOutcome outcome = Parse(
      Plus(kFiles, {"--tunnel", "inbound,listen=127.0.0.1:1,target=127.0.0.1:2,peer=spiffe://td/a",
                    "--proxy-protocol", "25"}));
  ASSERT_TRUE(outcome.exit.has_value());
  EXPECT_THAT(outcome.exit->text, HasSubstr("write proxy-protocol=v2 into the --tunnel"));
}

TEST(ProxyProtocolConfigTest, ATunnelCanAskForTheProxyProtocol) {
  const std::string inbound = "inbound,listen=127.0.0.1:1,target=127.0.0.1:2,peer=spiffe://td/a";
  const auto with = TunnelSpec::Parse(inbound + ",proxy-protocol=v2");
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_TRUE(with->proxy_protocol);
  const auto without = TunnelSpec::Parse(inbound);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_FALSE(without->proxy_protocol);
  const ParseOutcome outcome = Parse(Plus(kRedirect, {"--tunnel", inbound + ",proxy-protocol=v2"}));
  ASSERT_TRUE(outcome.config.has_value()) << outcome.exit->text;
  const auto shown = nlohmann::json::parse(ConfigAsJson(*outcome.config));
  EXPECT_EQ(shown["tunnel"]["value"][0], inbound + ",proxy-protocol=v2");
}

TEST(ProxyProtocolConfigTest, ATunnelsProxyProtocolIsVersionTwoAndForInboundOnly) {
  const std::string ends = ",listen=127.0.0.1:1,target=127.0.0.1:2,peer=spiffe://td/a";
  EXPECT_THAT(Refusal(Plus(kRedirect, {"--tunnel", "inbound" + ends + ",proxy-protocol=v1"})),
              HasSubstr("proxy-protocol: 'v1' is not v2"));
  EXPECT_THAT(Refusal(Plus(kRedirect, {"--tunnel", "outbound" + ends + ",proxy-protocol=v2"})),
              HasSubstr("proxy-protocol is for inbound tunnels only"));
}

}  // namespace
}  // namespace postern::config
