// SPDX-License-Identifier: Apache-2.0
// What the issuer refuses: for its number or its rate.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "common/base/unique_fd.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using ::testing::HasSubstr;

class RateLimitedIssuerTest : public IssuerProcessTest {
 protected:
  RateLimitedIssuerTest() { certify_rate_ = 2; }
};

TEST_F(RateLimitedIssuerTest, TellsWhenToComeBack) {
  const rpc::IssuerChannel channel = TcpChannel();
  Certified last;
  for (int i = 0; i < 4 && last.retry_after.empty(); ++i) {
    last = Certify(channel, ByToken(std::string(64, 'a')));
  }
  EXPECT_EQ(last.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(std::stoi(last.retry_after), 0);
  EXPECT_LE(std::stoi(last.retry_after), 501);
}

class BoundedIssuerTest : public IssuerProcessTest {
 protected:
  BoundedIssuerTest() { limits_ = {.total = 6, .per_source = 3}; }

  // A connection from this address that says nothing; -1: it was reset.
  int Connect(const char* source) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in from{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
    inet_pton(AF_INET, source, &from.sin_addr);
    sockaddr_in to = from;
    to.sin_port = htons(issuer_->grpc_port());
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&from), sizeof(from)), 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    held_.emplace_back(fd);
    return fd;
  }
  // The issuer says nothing before a ClientHello: what can be read at once is the reset.
  static bool IsReset(int fd) {
    pollfd wait{fd, POLLIN, 0};
    return poll(&wait, 1, 5000) == 1 && (wait.revents & POLLERR) != 0;
  }
  void ExpectMetric(const std::string& line) {
    for (int i = 0; i < 100 && issuer_->Metrics().find(line) == std::string::npos; ++i) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    EXPECT_THAT(issuer_->Metrics(), HasSubstr(line));
  }

  std::vector<base::UniqueFd> held_;
};

TEST_F(BoundedIssuerTest, ResetsConnectionsBeyondItsLimitsAndServesTheOthers) {
  for (const char* source : {"127.0.0.2", "127.0.0.2", "127.0.0.2"}) {
    Connect(source);
  }
  EXPECT_TRUE(IsReset(Connect("127.0.0.2")));
  ExpectMetric("postern_issuer_connections_refused_total{limit=\"source\"} 1");
  // A proxy from elsewhere does not suffer.
  const Certified first = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  EXPECT_TRUE(first.status.ok()) << first.status.error_message();
  ExpectMetric("postern_issuer_connections 3\n");
  for (const char* source : {"127.0.0.3", "127.0.0.3", "127.0.0.4"}) {
    Connect(source);
  }
  EXPECT_TRUE(IsReset(Connect("127.0.0.5")));
  ExpectMetric("postern_issuer_connections_refused_total{limit=\"total\"} 1");
  // What ends makes room again.
  held_.clear();
  ExpectMetric("postern_issuer_connections 0\n");
  const Certified second = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  EXPECT_TRUE(second.status.ok()) << second.status.error_message();
}

class OverloadedIssuerTest : public IssuerProcessTest {
 protected:
  OverloadedIssuerTest() { certify_rate_ = 0; }
};

// More calls at once than may be at work: each is served or told when to come back, never refused
// for want of a thread.
TEST_F(OverloadedIssuerTest, TellsEachCallThatIsTooManyWhenToComeBack) {
  constexpr int kChannels = 12;  // each takes twelve calls at a time: more than 64 together
  std::vector<rpc::IssuerChannel> channels;
  for (int i = 0; i < kChannels; ++i) {
    channels.push_back(TcpChannel());
  }
  std::atomic<int> served{0};
  std::atomic<int> told{0};
  std::atomic<int> neither{0};
  std::mutex mutex;
  std::set<std::string> places;
  std::vector<std::thread> callers;
  for (int i = 0; i < kChannels * kChannels; ++i) {
    callers.emplace_back([&, i] {
      const Certified one =
          Certify(channels[static_cast<size_t>(i % kChannels)], ByToken(std::string(64, 'a')));
      const bool judged = one.status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
      (judged ? served : one.retry_after.empty() ? neither : told).fetch_add(1);
      const std::lock_guard lock(mutex);
      places.insert(one.retry_after);
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(neither, 0);
  EXPECT_GT(served, 0);
  EXPECT_EQ(served + told, kChannels * kChannels);
  // Not all at the same moment: two may share a millisecond, ten may not.
  EXPECT_GE(static_cast<int>(places.size()) * 10, told.load());
}

}  // namespace
}  // namespace postern::service
