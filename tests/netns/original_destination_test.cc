// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/original_destination.h"

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>

#include "proxy/intercept/nft.h"
#include "proxy/net/loop.h"

namespace postern::intercept {
namespace {

using net::SocketAddress;

SocketAddress Address(const char* text) {
  return SocketAddress::Parse(text).value();
}

int MakeSocket(const SocketAddress& address) {
  sockaddr_storage storage{};
  address.ToSockaddr(&storage);
  return socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int Listen(const SocketAddress& address, bool dual_stack = false) {
  const int fd = MakeSocket(address);
  const int v6_only = dual_stack ? 0 : 1;
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
  sockaddr_storage storage{};
  const socklen_t length = address.ToSockaddr(&storage);
  EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&storage), length), 0) << strerror(errno);
  EXPECT_EQ(listen(fd, 16), 0);
  return fd;
}

void BringUpLoopback() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  ASSERT_EQ(ioctl(fd, SIOCGIFFLAGS, &request), 0);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  ASSERT_EQ(ioctl(fd, SIOCSIFFLAGS, &request), 0);
  close(fd);
}

// A network namespace of this process alone, whose only route leads to itself.
class OriginalDestinationTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0)
      GTEST_SKIP() << "needs root: makes a network namespace";
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << strerror(errno);
    BringUpLoopback();
    for (const char* command :
         {"ip addr add 198.18.0.1/15 dev lo", "ip -6 addr add fd00:5b::1/32 dev lo nodad",
          "ip route add 203.0.113.0/24 dev lo", "ip -6 route add fd00:5c::/32 dev lo"}) {
      ASSERT_EQ(std::system(command), 0) << command;
    }
    InterceptConfig config;
    config.proxy_mark = 0x505;
    const absl::Status applied = ApplyRules(config);
    ASSERT_TRUE(applied.ok()) << applied;
    loop_ = net::Loop::Create().value();
  }

  // Dials `to` and asks about what `listener` accepts.
  absl::StatusOr<SocketAddress> Ask(int listener, const SocketAddress& to,
                                    bool transparent = false) {
    const int client = MakeSocket(to);
    sockaddr_storage storage{};
    const socklen_t length = to.ToSockaddr(&storage);
    EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&storage), length), 0)
        << to.ToString() << ": " << strerror(errno);
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    absl::StatusOr<std::unique_ptr<net::Stream>> stream = net::Stream::Adopt(*loop_, fd);
    close(client);
    close(listener);
    if (!stream.ok())
      return stream.status();
    return OriginalDestination(**stream, transparent);
  }

  std::unique_ptr<net::Loop> loop_;
};

TEST_F(OriginalDestinationTest, TellsWhereARedirectedConnectionWasGoing) {
  EXPECT_EQ(*Ask(Listen(Address("127.0.0.1:15001")), Address("203.0.113.7:5432")),
            Address("203.0.113.7:5432"));
  EXPECT_EQ(*Ask(Listen(Address("[::1]:15001")), Address("[fd00:5c::7]:5432")),
            Address("[fd00:5c::7]:5432"));
}

TEST_F(OriginalDestinationTest, CountsAMappedPeerOfADualStackListenerAsIpv4) {
  EXPECT_EQ(*Ask(Listen(Address("[::]:15001"), /*dual_stack=*/true), Address("203.0.113.7:80")),
            Address("203.0.113.7:80"));
}

TEST_F(OriginalDestinationTest, IsNotFoundForADirectConnection) {
  for (const char* direct : {"127.0.0.1:15001", "198.18.0.1:15006", "[::1]:15001"}) {
    const auto asked = Ask(Listen(Address(direct)), Address(direct));
    EXPECT_EQ(asked.status().code(), absl::StatusCode::kNotFound) << direct;
  }
}

TEST_F(OriginalDestinationTest, IsTheLocalAddressWhenTransparent) {
  EXPECT_EQ(*Ask(Listen(Address("127.0.0.1:8080")), Address("127.0.0.1:8080"), true),
            Address("127.0.0.1:8080"));
}

TEST_F(OriginalDestinationTest, IsWhatWasDialledOfARedirectedConnectionWhenTransparentToo) {
  EXPECT_EQ(*Ask(Listen(Address("127.0.0.1:15001")), Address("203.0.113.7:5432"), true),
            Address("203.0.113.7:5432"));
}

}  // namespace
}  // namespace postern::intercept
