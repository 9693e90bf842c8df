// SPDX-License-Identifier: Apache-2.0
#include "common/base/ip.h"

#include <gtest/gtest.h>

#include "absl/container/flat_hash_set.h"

namespace postern::base {
namespace {

using namespace std::string_view_literals;

IpAddress Ip(std::string_view text) {
  return IpAddress::Parse(text).value();
}
Cidr Range(std::string_view text) {
  return Cidr::Parse(text).value();
}

TEST(IpAddressTest, ReadsAndWritesBothFamilies) {
  for (const std::string_view text :
       {"0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1", "fe80::1:2"}) {
    EXPECT_EQ(Ip(text).ToString(), text);
  }
  EXPECT_TRUE(Ip("192.0.2.1").is_v4());
  EXPECT_FALSE(Ip("2001:db8::1").is_v4());
  EXPECT_EQ(Ip("2001:DB8:0::1"), Ip("2001:db8::1"));
}

TEST(IpAddressTest, RefusesWhatIsNoAddress) {
  for (const std::string_view text :
       {""sv, "1"sv, "1.2.3"sv, "1.2.3.4.5"sv, "256.0.0.1"sv, "01.2.3.4"sv, "1.2.3.4 "sv, " ::1"sv,
        "[::1]"sv, "::1%eth0"sv, "1.2.3.4\0"sv, "1.2.3.4\0x"sv, "example.org"sv, ":::"sv,
        "0x7f.0.0.1"sv, "1:2:3:4:5:6:7:8:9"sv}) {
    EXPECT_EQ(IpAddress::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << Printable(text);
  }
}

TEST(IpAddressTest, TurnsMappedAddressesIntoIpv4) {
  EXPECT_EQ(Ip("::ffff:192.0.2.1"), Ip("192.0.2.1"));
  EXPECT_EQ(Ip("::ffff:c000:201").ToString(), "192.0.2.1");
  EXPECT_FALSE(Ip("::192.0.2.1").is_v4());  // deprecated "compatible" form: another host
}

TEST(IpAddressTest, TakesFourOrSixteenBytes) {
  EXPECT_EQ(*IpAddress::FromBytes(AsBytes("\x0a\x00\x00\x01"sv)), Ip("10.0.0.1"));
  EXPECT_EQ(*IpAddress::FromBytes(Ip("2001:db8::1").bytes()), Ip("2001:db8::1"));
  for (const size_t size : {0, 1, 3, 5, 15, 17}) {
    EXPECT_FALSE(IpAddress::FromBytes(AsBytes(std::string(size, 'a'))).ok()) << size;
  }
}

TEST(IpAddressTest, KnowsLoopbackAndUnspecified) {
  EXPECT_TRUE(Ip("127.0.0.1").IsLoopback());
  EXPECT_TRUE(Ip("127.255.0.9").IsLoopback());
  EXPECT_TRUE(Ip("::1").IsLoopback());
  EXPECT_TRUE(Ip("::ffff:127.0.0.1").IsLoopback());
  EXPECT_FALSE(Ip("128.0.0.1").IsLoopback());
  EXPECT_FALSE(Ip("::2").IsLoopback());
  EXPECT_FALSE(Ip("1::1").IsLoopback());
  EXPECT_TRUE(Ip("0.0.0.0").IsUnspecified());
  EXPECT_TRUE(Ip("::").IsUnspecified());
  EXPECT_FALSE(Ip("::1").IsUnspecified());
}

TEST(IpAddressTest, TellsFamiliesApartInSets) {
  const absl::flat_hash_set<IpAddress> set = {Ip("0.0.0.0"), Ip("::"), Ip("::ffff:0.0.0.0")};
  EXPECT_EQ(set.size(), 2U);
  EXPECT_NE(Ip("0.0.0.0"), Ip("::"));
}

TEST(CidrTest, ContainsItsRangeAndNoMore) {
  EXPECT_TRUE(Range("10.0.0.0/8").Contains(Ip("10.255.255.255")));
  EXPECT_FALSE(Range("10.0.0.0/8").Contains(Ip("11.0.0.0")));
  EXPECT_TRUE(Range("10.1.128.0/17").Contains(Ip("10.1.200.1")));
  EXPECT_FALSE(Range("10.1.128.0/17").Contains(Ip("10.1.127.255")));
  EXPECT_TRUE(Range("2001:db8::/33").Contains(Ip("2001:db8:7fff::1")));
  EXPECT_FALSE(Range("2001:db8::/33").Contains(Ip("2001:db8:8000::1")));
}

TEST(CidrTest, NeverMixesFamilies) {
  EXPECT_TRUE(Range("0.0.0.0/0").Contains(Ip("203.0.113.9")));
  EXPECT_FALSE(Range("0.0.0.0/0").Contains(Ip("2001:db8::1")));
  EXPECT_FALSE(Range("::/0").Contains(Ip("203.0.113.9")));
  EXPECT_TRUE(Range("::/0").Contains(Ip("2001:db8::1")));
}

TEST(CidrTest, TakesABareAddressAsItself) {
  EXPECT_EQ(Range("192.0.2.1"), Range("192.0.2.1/32"));
  EXPECT_EQ(Range("2001:db8::1").ToString(), "2001:db8::1/128");
  EXPECT_FALSE(Range("192.0.2.1").Contains(Ip("192.0.2.2")));
}

TEST(CidrTest, TakesAMappedRangeAsIpv4) {
  EXPECT_EQ(Range("::ffff:10.0.0.0/104"), Range("10.0.0.0/8"));
  EXPECT_EQ(Range("::ffff:10.0.0.1"), Range("10.0.0.1/32"));
  EXPECT_FALSE(Cidr::Parse("::ffff:0.0.0.0/95").ok());
}

TEST(CidrTest, RefusesBitsBehindThePrefixAndOddPrefixes) {
  for (const std::string_view text :
       {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/8x",
        "10.0.0.0/+8", "10.0.0.0/999999999999", "::1/64", "::/129", "/8", "10.0.0.0/8/8", ""}) {
    EXPECT_EQ(Cidr::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace postern::base
