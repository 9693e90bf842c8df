// SPDX-License-Identifier: Apache-2.0
#include "cli/run/judge.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <vector>

#include "cli/run/socket_call.h"
#include "common/base/unique_fd.h"

namespace postern::run {
namespace {

constexpr int kSctp = 132;
constexpr int kMptcp = 262;
constexpr int kSmcFamily = 43;

SocketFacts Tcp(int domain) {
  return {domain, SOCK_STREAM, IPPROTO_TCP, false, 1};
}

Address To(int domain, std::string_view ip, uint16_t port) {
  return MakeAddress(domain, base::IpAddress::Parse(ip).value(), port);
}

TEST(JudgeConnectTest, CatchesTcpToOtherHosts) {
  for (const auto& [domain, ip] :
       {std::pair(AF_INET, "198.18.1.2"), std::pair(AF_INET6, "fd00:5b::2"),
        std::pair(AF_INET6, "198.18.1.2")}) {  // mapped
    const Judgement judgement = JudgeConnect(Tcp(domain), To(domain, ip, 8080).bytes());
    EXPECT_EQ(judgement.course, Course::kCaught) << ip;
    EXPECT_EQ(judgement.ip.ToString(), ip);
    EXPECT_EQ(judgement.port, 8080);
  }
  SocketFacts mptcp = Tcp(AF_INET);
  mptcp.protocol = kMptcp;
  EXPECT_EQ(JudgeConnect(mptcp, To(AF_INET, "198.18.1.2", 80).bytes()).course, Course::kCaught);
}

TEST(JudgeConnectTest, LeavesThisHostsOwnAndWhatIsNoTcpAsItIs) {
  for (const auto& [domain, ip] : {std::pair(AF_INET, "127.0.0.1"), std::pair(AF_INET, "127.9.9.9"),
                                   std::pair(AF_INET, "0.0.0.0"), std::pair(AF_INET6, "::1"),
                                   std::pair(AF_INET6, "::"), std::pair(AF_INET6, "127.0.0.1")}) {
    EXPECT_EQ(JudgeConnect(Tcp(domain), To(domain, ip, 80).bytes()).course, Course::kAsAsked) << ip;
  }
  const SocketFacts udp = {AF_INET, SOCK_DGRAM, IPPROTO_UDP, false, 1};
  EXPECT_EQ(JudgeConnect(udp, To(AF_INET, "198.18.1.2", 53).bytes()).course, Course::kAsAsked);
  const SocketFacts unix_stream = {AF_UNIX, SOCK_STREAM, 0, false, 1};
  EXPECT_EQ(JudgeConnect(unix_stream, {}).course, Course::kAsAsked);
  const sockaddr nothing{AF_UNSPEC, {}};
  EXPECT_EQ(JudgeConnect(Tcp(AF_INET), base::ByteSpan(reinterpret_cast<const uint8_t*>(&nothing),
                                                      sizeof(nothing)))
                .course,
            Course::kAsAsked);
}

TEST(JudgeConnectTest, RefusesOtherStreamsOverIp) {
  const Address address = To(AF_INET, "198.18.1.2", 80);
  for (const SocketFacts& facts : {SocketFacts{AF_INET, SOCK_STREAM, kSctp, false, 1},
                                   SocketFacts{AF_INET, SOCK_SEQPACKET, kSctp, false, 1},
                                   SocketFacts{kSmcFamily, SOCK_STREAM, 0, false, 1}}) {
    const Judgement judgement = JudgeConnect(facts, address.bytes());
    EXPECT_EQ(judgement.course, Course::kRefused);
    EXPECT_EQ(judgement.error, EACCES);
  }
}

TEST(JudgeConnectTest, AnswersWhatIsNoAddressLikeTheKernel) {
  const Address v4 = To(AF_INET, "198.18.1.2", 80);
  const Address v6 = To(AF_INET6, "fd00:5b::2", 80);
  const auto error = [](const SocketFacts& facts, base::ByteSpan address) {
    const Judgement judgement = JudgeConnect(facts, address);
    EXPECT_EQ(judgement.course, Course::kRefused);
    return judgement.error;
  };
  EXPECT_EQ(error(Tcp(AF_INET), {}), EINVAL);
  EXPECT_EQ(error(Tcp(AF_INET), v4.bytes().first(8)), EINVAL);
  EXPECT_EQ(error(Tcp(AF_INET), v6.bytes()), EAFNOSUPPORT);
  EXPECT_EQ(error(Tcp(AF_INET6), v4.bytes()), EINVAL);  // too short before it is of another family
  // RFC 2133's length is long enough.
  EXPECT_EQ(JudgeConnect(Tcp(AF_INET6), v6.bytes().first(24)).course, Course::kCaught);
}

TEST(JudgeBindTest, MovesWhatOthersCanReach) {
  for (const auto& [domain, ip] : {std::pair(AF_INET, "0.0.0.0"), std::pair(AF_INET, "198.18.1.1"),
                                   std::pair(AF_INET6, "::"), std::pair(AF_INET6, "fd00:5b::1")}) {
    const Judgement judgement = JudgeBind(Tcp(domain), To(domain, ip, 8080).bytes());
    EXPECT_EQ(judgement.course, Course::kCaught) << ip;
    EXPECT_EQ(judgement.port, 8080);
  }
  for (const auto& [domain, ip] : {std::pair(AF_INET, "127.0.0.1"), std::pair(AF_INET6, "::1"),
                                   std::pair(AF_INET6, "127.0.0.1")}) {
    EXPECT_EQ(JudgeBind(Tcp(domain), To(domain, ip, 8080).bytes()).course, Course::kAsAsked) << ip;
  }
}

TEST(SocketFactsTest, SayWhatASocketIs) {
  const base::UniqueFd tcp(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const base::UniqueFd udp(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const base::UniqueFd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  SocketFacts facts;
  ASSERT_EQ(ReadSocketFacts(tcp.get(), &facts), 0);
  EXPECT_TRUE(facts.is_tcp());
  EXPECT_TRUE(facts.non_blocking);
  const ino_t first = facts.inode;
  ASSERT_EQ(ReadSocketFacts(udp.get(), &facts), 0);
  EXPECT_FALSE(facts.is_tcp());
  EXPECT_FALSE(facts.non_blocking);
  EXPECT_NE(facts.inode, first);
  EXPECT_EQ(ReadSocketFacts(file.get(), &facts), ENOTSOCK);
}

}  // namespace
}  // namespace postern::run
