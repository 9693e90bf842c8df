// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/socket_address.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstring>
#include <string>

namespace postern::net {
namespace {

TEST(SocketAddressTest, ReadsAndPrintsEachForm) {
  for (const char* text : {"192.0.2.1:80", "0.0.0.0:0", "[2001:db8::1]:443", "[::]:65535",
                           "unix:/run/postern/app.sock"}) {
    const auto address = SocketAddress::Parse(text);
    ASSERT_TRUE(address.ok()) << text << ": " << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
}

TEST(SocketAddressTest, TurnsAMappedAddressIntoItsIpv4One) {
  EXPECT_EQ(SocketAddress::Parse("[::ffff:192.0.2.1]:80")->ToString(), "192.0.2.1:80");
}

TEST(SocketAddressTest, RefusesWhatIsNoAddress) {
  for (const char* text :
       {"", ":", "80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:+1", "192.0.2.1:1x",
        "192.0.2.1:080", "2001:db8::1:80", "[192.0.2.1]:80", "[2001:db8::1]", "[2001:db8::1]80",
        "[2001:db8::1:80", "example.org:80", "unix:", "unix:relative", "unix:@abstract"}) {
    EXPECT_EQ(SocketAddress::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(SocketAddressTest, BoundsTheUnixPathByWhatTheKernelTakes) {
  const std::string longest = "unix:/" + std::string(sizeof(sockaddr_un::sun_path) - 2, 'a');
  EXPECT_TRUE(SocketAddress::Parse(longest).ok());
  EXPECT_FALSE(SocketAddress::Parse(longest + "a").ok());
  EXPECT_FALSE(SocketAddress::Parse(std::string_view("unix:/a\0b", 9)).ok());
}

TEST(SocketAddressTest, SurvivesTheWayThroughTheKernelsForm) {
  for (const char* text : {"192.0.2.1:80", "[2001:db8::1]:443", "unix:/run/a.sock"}) {
    const SocketAddress address = *SocketAddress::Parse(text);
    sockaddr_storage storage;
    const socklen_t length = address.ToSockaddr(&storage);
    const auto back = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, address);
  }
}

TEST(SocketAddressTest, RefusesATruncatedOrForeignKernelAddress) {
  sockaddr_storage storage;
  SocketAddress::Parse("[2001:db8::1]:443")->ToSockaddr(&storage);
  const auto* address = reinterpret_cast<sockaddr*>(&storage);
  EXPECT_FALSE(SocketAddress::FromSockaddr(address, sizeof(sockaddr_in6) - 1).ok());
  EXPECT_FALSE(SocketAddress::FromSockaddr(address, 1).ok());
  EXPECT_FALSE(SocketAddress::FromSockaddr(nullptr, 0).ok());
  storage.ss_family = AF_NETLINK;
  EXPECT_FALSE(SocketAddress::FromSockaddr(address, sizeof(storage)).ok());
}

TEST(SocketAddressTest, MarksUnixSocketsWithoutAPath) {
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  const auto* address = reinterpret_cast<sockaddr*>(&un);
  const auto unnamed = SocketAddress::FromSockaddr(address, sizeof(sa_family_t));
  EXPECT_TRUE(unnamed->is_unix());
  EXPECT_EQ(unnamed->ToString(), "unix:@");
  std::memcpy(un.sun_path, "\0name", 5);
  EXPECT_EQ(SocketAddress::FromSockaddr(address, sizeof(sa_family_t) + 5)->ToString(),
            "unix:@name");
}

TEST(SocketAddressTest, ComparesByAddressPortAndPath) {
  EXPECT_EQ(*SocketAddress::Parse("192.0.2.1:80"), *SocketAddress::Parse("192.0.2.1:80"));
  EXPECT_NE(*SocketAddress::Parse("192.0.2.1:80"), *SocketAddress::Parse("192.0.2.1:81"));
  EXPECT_NE(SocketAddress::Unix("/a"), SocketAddress::Unix("/b"));
  EXPECT_NE(SocketAddress::Unix("/a"), SocketAddress());
}

}  // namespace
}  // namespace postern::net
