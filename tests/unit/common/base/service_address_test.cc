// SPDX-License-Identifier: Apache-2.0
#include "common/base/service_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"

namespace postern::base {
namespace {

TEST(ServiceAddressTest, ReadsAServiceAsItWritesIt) {
  for (const std::string_view text : {"10.96.0.10:5432", "10.96.0.10:5432=15432",
                                      "[2001:db8::10]:80", "[2001:db8::10]:80=8080"}) {
    const auto service = ServiceAddress::Parse(text);
    ASSERT_TRUE(service.ok()) << service.status();
    EXPECT_EQ(service->ToString(), text);
  }
  const auto service = ServiceAddress::Parse("[2001:db8::10]:80=8080");
  EXPECT_EQ(service->ip.ToString(), "2001:db8::10");
  EXPECT_EQ(service->port, 80);
  EXPECT_EQ(service->target_port, 8080);
  EXPECT_EQ(ServiceAddress::Parse("10.96.0.10:80=80")->ToString(), "10.96.0.10:80");
}

TEST(ServiceAddressTest, RefusesWhatIsNone) {
  for (const std::string_view text : {"",
                                      "10.96.0.10",
                                      "10.96.0.10:",
                                      "10.96.0.10:0",
                                      "10.96.0.10:65536",
                                      "10.96.0.10:080",
                                      "10.96.0.10:80=",
                                      "10.96.0.10:80=080",
                                      "10.96.0.10:80=0",
                                      "10.96.0.10:80=http",
                                      "10.96.0.10:80=1=2",
                                      "10.96.0.0/24:80",
                                      "db.example.org:80",
                                      "2001:db8::10:80",
                                      "[10.96.0.10]:80",
                                      "[2001:db8::10",
                                      "127.0.0.1:80",
                                      "[::1]:80",
                                      "0.0.0.0:80",
                                      "[::]:80"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ServiceAddress::Parse(text).status())) << text;
  }
}

TEST(ServiceAddressTest, SaysWhatIsWrongAndWhatToWrite) {
  const auto error = [](std::string_view text) {
    return std::string(Message(ServiceAddress::Parse(text).status()));
  };
  EXPECT_EQ(error("db:80=8080"),
            "'db:80' is no service: its host is no IP address; write IP:port, [v6]:port or one of "
            "these with =PORT, if the workload's port is another one");
  EXPECT_EQ(error("10.96.0.10:80=0"),
            "'10.96.0.10:80=0' is no service: behind its = stands no port from 1 to 65535");
}

}  // namespace
}  // namespace postern::base
