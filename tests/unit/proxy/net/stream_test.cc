// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "proxy/net/tcp_flight.h"
#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

int Option(const Stream& stream, int level, int option) {
  int value = 0;
  socklen_t length = sizeof(value);
  EXPECT_EQ(getsockopt(stream.fd(), level, option, &value, &length), 0);
  return value;
}

class StreamTest : public ::testing::Test {
 protected:
  void TearDown() override {
    pair_ = {};
    RunFor(*loop_, milliseconds(1));
    EXPECT_EQ(loop_->OpenHandles(), 0U);
  }
  std::unique_ptr<Loop> loop_ = Loop::Create().value();
  Pair pair_ = Connect(*loop_);
  Collector at_client_;
  Collector at_server_;
};

TEST_F(StreamTest, CarriesBytesBothWays) {
  pair_.client->SetHandler(&at_client_);
  pair_.server->SetHandler(&at_server_);
  pair_.client->WantRead(true);
  pair_.server->WantRead(true);
  WriteText(*pair_.client, "ping");
  WriteText(*pair_.server, "pong");
  EXPECT_TRUE(RunUntil(*loop_, [&] { return at_server_.bytes == "ping"; }));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return at_client_.bytes == "pong"; }));
}

TEST_F(StreamTest, HasNoDelayAndKeepaliveOnBothEnds) {
  for (const Stream* stream : {pair_.client.get(), pair_.server.get()}) {
    EXPECT_NE(Option(*stream, IPPROTO_TCP, TCP_NODELAY), 0);
    EXPECT_NE(Option(*stream, SOL_SOCKET, SO_KEEPALIVE), 0);
    EXPECT_EQ(Option(*stream, IPPROTO_TCP, TCP_KEEPIDLE), 60);
    EXPECT_EQ(Option(*stream, IPPROTO_TCP, TCP_KEEPINTVL), 10);
    EXPECT_EQ(Option(*stream, IPPROTO_TCP, TCP_KEEPCNT), 6);
  }
}

TEST_F(StreamTest, KnowsBothAddresses) {
  EXPECT_EQ(*pair_.client->PeerAddress(), *pair_.server->LocalAddress());
  EXPECT_EQ(*pair_.client->LocalAddress(), *pair_.server->PeerAddress());
}

TEST_F(StreamTest, ComesAgainWhileBytesWaitAndReadingIsWanted) {
  pair_.server->SetHandler(&at_server_);
  WriteText(*pair_.client, std::string(3 * 4096, 'x'));
  RunFor(*loop_, milliseconds(20));
  EXPECT_EQ(at_server_.reads, 0);  // not wanted yet
  pair_.server->WantRead(true);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return at_server_.bytes.size() == 3 * 4096; }));
  EXPECT_GE(at_server_.reads, 3);
  const int reads = at_server_.reads;
  RunFor(*loop_, milliseconds(20));
  EXPECT_EQ(at_server_.reads, reads);  // nothing more, no call
}

TEST_F(StreamTest, IsQuietAboutBytesThatAreNotWantedAnyMore) {
  pair_.server->SetHandler(&at_server_);
  pair_.server->WantRead(true);
  WriteText(*pair_.client, "x");
  ASSERT_TRUE(RunUntil(*loop_, [&] { return at_server_.bytes == "x"; }));
  pair_.server->WantRead(false);
  WriteText(*pair_.client, "y");
  const auto cpu = std::clock();
  RunFor(*loop_, milliseconds(200));
  EXPECT_EQ(at_server_.bytes, "x");
  // Polling on for what nobody takes would turn the loop the whole time.
  EXPECT_LT(static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC, 0.1);
  pair_.server->WantRead(true);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return at_server_.bytes == "xy"; }));
}

TEST_F(StreamTest, EndsOneDirectionAndKeepsTheOther) {
  pair_.client->SetHandler(&at_client_);
  pair_.server->SetHandler(&at_server_);
  pair_.client->WantRead(true);
  pair_.server->WantRead(true);
  WriteText(*pair_.client, "request");
  ASSERT_TRUE(pair_.client->ShutdownWrite().ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return at_server_.ended; }));
  EXPECT_EQ(at_server_.bytes, "request");
  EXPECT_EQ(at_server_.last.outcome, IoOutcome::kEnd);
  WriteText(*pair_.server, "reply");
  EXPECT_TRUE(RunUntil(*loop_, [&] { return at_client_.bytes == "reply"; }));
  EXPECT_FALSE(at_client_.ended);
}

TEST_F(StreamTest, SeesAResetAsAReset) {
  pair_.server->SetHandler(&at_server_);
  pair_.server->WantRead(true);
  pair_.client->Reset();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return at_server_.ended; }));
  EXPECT_EQ(at_server_.last.outcome, IoOutcome::kReset);
  EXPECT_EQ(at_server_.last.error, ECONNRESET);
  EXPECT_EQ(pair_.server->Write(base::AsBytes("x")).outcome, IoOutcome::kReset);  // and no SIGPIPE
  EXPECT_EQ(pair_.client->fd(), -1);
  EXPECT_EQ(pair_.client->Write(base::AsBytes("x")).outcome, IoOutcome::kError);
}

TEST_F(StreamTest, LetsGoOfItsDescriptorsNumberWithTheReset) {
  RunFor(*loop_, milliseconds(5));
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const int number = pair_.client->fd();
  pair_.client->Reset();
  ASSERT_EQ(fcntl(fds[0], F_DUPFD_CLOEXEC, number), number) << "the number is free again";
  close(fds[0]);
  const std::unique_ptr<Stream> next = Stream::Adopt(*loop_, number).value();
  const std::unique_ptr<Stream> peer = Stream::Adopt(*loop_, fds[1]).value();
  Collector at_next;
  next->SetHandler(&at_next);
  next->WantRead(true);
  RunFor(*loop_, milliseconds(5));
  pair_.client.reset();  // must not touch what the number stands for now
  WriteText(*peer, "x");
  EXPECT_TRUE(RunUntil(
      *loop_, [&] { return at_next.bytes == "x"; }, milliseconds(2000)));
}

TEST_F(StreamTest, TellsOneWhoOnlyWritesOfAReset) {
  struct Writer final : Stream::Handler {
    void OnReadable(Stream&) noexcept override {}
    void OnWritable(Stream& stream) noexcept override {
      const std::string chunk(65536, 'x');
      do {
        last = stream.Write(base::AsBytes(chunk));
      } while (last.outcome == IoOutcome::kDone);
      if (last.outcome != IoOutcome::kWouldBlock) {
        stream.WantWrite(false);
      }
    }
    IoResult last;
  } writer;
  pair_.server->SetHandler(&writer);
  pair_.server->WantWrite(true);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return writer.last.outcome == IoOutcome::kWouldBlock; }));
  pair_.client->Reset();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return writer.last.outcome == IoOutcome::kReset; }));
}

TEST_F(StreamTest, MayBeDestroyedInItsOwnCallbackAndCallsNobodyAfterwards) {
  struct Dropper final : Stream::Handler {
    void OnReadable(Stream& stream) noexcept override {
      EXPECT_EQ(&stream, owned->get());
      ++reads;
      owned->reset();
    }
    void OnWritable(Stream&) noexcept override { ++writes; }
    std::unique_ptr<Stream>* owned = nullptr;
    int reads = 0;
    int writes = 0;
  } dropper;
  dropper.owned = &pair_.server;
  WriteText(*pair_.client, "x");
  RunFor(*loop_, milliseconds(20));
  pair_.server->SetHandler(&dropper);
  pair_.server->WantRead(true);
  pair_.server->WantWrite(true);  // readable and writable in the same event
  ASSERT_TRUE(RunUntil(*loop_, [&] { return dropper.reads == 1; }));
  RunFor(*loop_, milliseconds(5));
  EXPECT_EQ(dropper.reads, 1);
  EXPECT_EQ(dropper.writes, 0);
}

TEST_F(StreamTest, ReportsZeroWhenNothingIsInFlight) {
  RunFor(*loop_, milliseconds(30));
  EXPECT_EQ(*pair_.client->Unacknowledged(), milliseconds(0));
  WriteText(*pair_.client, "x");
  RunFor(*loop_, milliseconds(100));
  EXPECT_EQ(*pair_.client->Unacknowledged(), milliseconds(0));
}

TEST_F(StreamTest, CountsTheTimeInWhichAPeerAcknowledgesNothing) {
  RunFor(*loop_, milliseconds(300));  // an idle time that must not be counted
  // The peer's kernel drops every segment before TCP sees it: no acknowledgement, no reset.
  sock_filter drop_all = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program{1, &drop_all};
  ASSERT_EQ(setsockopt(pair_.server->fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)),
            0);
  const auto began = std::chrono::steady_clock::now();
  WriteText(*pair_.client, "anybody there?");
  RunFor(*loop_, milliseconds(1500));
  const milliseconds waited = *pair_.client->Unacknowledged();
  const auto passed = std::chrono::steady_clock::now() - began;
  EXPECT_GE(waited, passed - milliseconds(600));
  EXPECT_LE(waited, passed + milliseconds(200));
}

TEST_F(StreamTest, TakesAPeerWithAZeroWindowForAlive) {
  // Fill every buffer: the server reads nothing, its window closes.
  const std::string chunk(65536, 'x');
  IoResult result;
  int quiet = 0;
  while (quiet < 5) {
    result = pair_.client->Write(base::AsBytes(chunk));
    quiet = result.outcome == IoOutcome::kWouldBlock ? quiet + 1 : 0;
    RunFor(*loop_, milliseconds(quiet > 0 ? 20 : 0));
  }
  milliseconds worst{0};
  for (int i = 0; i < 100; ++i) {
    RunFor(*loop_, milliseconds(20));
    worst = std::max(worst, *pair_.client->Unacknowledged());
  }
  EXPECT_LE(worst, milliseconds(500));
  EXPECT_GT(ReadTcpFlight(pair_.client->fd())->notsent_bytes, 0U);
}

TEST(TcpFlightTest, AddsUpTheTimeoutsOfADeadPeer) {
  TcpFlight flight;
  flight.unacked = 3;
  flight.retransmits = 6;
  flight.backoff = 6;
  flight.rto = milliseconds(200 << 6);
  flight.last_data_sent = milliseconds(5000);
  flight.last_ack_received = std::chrono::hours(1);
  EXPECT_EQ(UnacknowledgedFor(flight), milliseconds(200 * 63 + 5000));
  flight.last_ack_received = milliseconds(17);  // it said something since
  EXPECT_EQ(UnacknowledgedFor(flight), milliseconds(17));
}

TEST(TcpFlightTest, TakesAFirstSendingAfterALongSilenceForFresh) {
  TcpFlight flight;
  flight.unacked = 1;
  flight.rto = milliseconds(204);
  flight.last_data_sent = milliseconds(3);
  flight.last_ack_received = std::chrono::hours(10);
  EXPECT_EQ(UnacknowledgedFor(flight), milliseconds(3));
}

TEST(TcpFlightTest, PassesTheLimitForAPeerThatIsGoneForGood) {
  TcpFlight flight;
  flight.unacked = 1;
  flight.retransmits = 15;
  flight.backoff = 15;
  flight.rto = seconds(120);
  flight.last_data_sent = seconds(1);
  flight.last_ack_received = seconds(900);
  EXPECT_GT(UnacknowledgedFor(flight), seconds(60));
}

TEST(TcpFlightTest, CountsUnansweredWindowProbesButNotTheOneUnderWay) {
  TcpFlight flight;
  flight.notsent_bytes = 1 << 20;
  flight.rto = milliseconds(200);
  flight.backoff = 12;  // the peer answered each probe so far: they come every 120 s
  flight.probes = 1;
  flight.last_ack_received = seconds(120);
  EXPECT_EQ(UnacknowledgedFor(flight), milliseconds(0));
  flight.probes = 2;
  flight.last_ack_received = seconds(240);
  EXPECT_EQ(UnacknowledgedFor(flight), seconds(120));
  flight.probes = 0;
  EXPECT_EQ(UnacknowledgedFor(flight), milliseconds(0));
}

// The lifetime scheme under load: many connections, each talking, a third of them dropped inside
// their own read callback, some by reset.
TEST(StreamLoadTest, CarriesThreeHundredConnectionsOfWhichManyAreDropped) {
  auto loop = Loop::Create().value();
  std::mt19937 random(4711);
  struct Echo final : Stream::Handler {
    void OnReadable(Stream& stream) noexcept override {
      uint8_t buffer[512];
      const IoResult got = stream.Read(buffer);
      if (got.outcome == IoOutcome::kDone && ++turns < limit) {
        stream.Write({buffer, got.bytes});
      } else if (got.outcome != IoOutcome::kWouldBlock) {
        if (limit % 2 == 0) {
          stream.Reset();
        }
        self.reset();
      }
    }
    void OnWritable(Stream&) noexcept override {}
    std::unique_ptr<Stream> self;
    int turns = 0;
    int limit = 0;
  };
  std::vector<std::unique_ptr<Echo>> echoes;
  const auto add = [&](std::unique_ptr<Stream> stream, int limit) {
    auto echo = std::make_unique<Echo>();
    echo->limit = limit;
    stream->SetHandler(echo.get());
    stream->WantRead(true);
    echo->self = std::move(stream);
    echoes.push_back(std::move(echo));
  };
  auto listener = Listener::Listen(*loop, Loopback(), {}, [&](auto stream, const auto&) {
    add(std::move(stream), 1 + static_cast<int>(random() % 30));
  });
  ASSERT_TRUE(listener.ok());
  std::vector<std::unique_ptr<Connector>> connectors;
  for (int i = 0; i < 300; ++i) {
    connectors.push_back(std::make_unique<Connector>(
        *loop, (*listener)->LocalAddress(), ConnectOptions{}, [&](auto stream) {
          ASSERT_TRUE(stream.ok()) << stream.status();
          (*stream)->Write(base::AsBytes("hello"));
          add(*std::move(stream), 1 + static_cast<int>(random() % 30));
        }));
  }
  const auto all_gone = [&] {
    if (echoes.size() < 600) {
      return false;
    }
    for (const auto& echo : echoes) {
      if (echo->self != nullptr) {
        return false;
      }
    }
    return true;
  };
  EXPECT_TRUE(RunUntil(*loop, all_gone));
  connectors.clear();
  listener->reset();
  RunFor(*loop, milliseconds(1));
  EXPECT_EQ(loop->OpenHandles(), 0U);
}

}  // namespace
}  // namespace postern::net
