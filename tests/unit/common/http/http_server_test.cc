// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_server.h"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "common/base/unique_fd.h"

namespace postern::http {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Steady = std::chrono::steady_clock;

constexpr timeval kTestTimeout = {20, 0};  // never reached where the server keeps its limits

// From here on this process may open that many descriptors more, until the end of the scope.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t more) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const base::UniqueFd next(dup(STDERR_FILENO));  // the lowest one that is free
    rlimit lower = before_;
    lower.rlim_cur = static_cast<rlim_t>(next.get()) + more;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

 private:
  rlimit before_{};
};

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = HttpServer::Start("127.0.0.1", 0, HostCheck::kNone,
                                    [this](std::string_view path) -> std::optional<Reply> {
                                      if (path == "/held") {
                                        std::unique_lock<std::mutex> lock(mutex_);
                                        ++held_;
                                        changed_.notify_all();
                                        changed_.wait(lock, [this] { return released_; });
                                      } else if (path == "/big") {
                                        return Ok(kText, std::string(size_t{16} << 20U, 'b'));
                                      } else if (path != "/live") {
                                        return std::nullopt;
                                      }
                                      return Ok(kText, "live\n");
                                    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override { Release(); }

  void Release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

  base::UniqueFd Connect() const {
    base::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ConnectWith(fd);
    return fd;
  }
  void ConnectWith(const base::UniqueFd& fd) const {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTestTimeout, sizeof(kTestTimeout));
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kTestTimeout, sizeof(kTestTimeout));
  }
  // False: the server has ended the connection.
  static bool Say(const base::UniqueFd& fd, std::string_view text) {
    return send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }
  static std::string Rest(const base::UniqueFd& fd) {
    std::string all;
    std::array<char, 65536> chunk{};
    ssize_t got = 0;
    while ((got = recv(fd.get(), chunk.data(), chunk.size(), 0)) > 0) {
      all.append(chunk.data(), static_cast<size_t>(got));
    }
    return all;
  }
  std::string Ask(std::string_view request) const {
    const base::UniqueFd fd = Connect();
    EXPECT_TRUE(Say(fd, request));
    return Rest(fd);
  }
  // How many bytes of `piece`, again and again, the server takes before it ends the connection.
  size_t TakenAfter(std::string_view first, const std::string& piece) const {
    const base::UniqueFd fd = Connect();
    EXPECT_TRUE(Say(fd, first));
    size_t taken = 0;
    while (taken < kFlood && Say(fd, piece)) {
      taken += piece.size();
    }
    return taken;
  }

  static constexpr size_t kFlood = size_t{64} << 20U;  // beyond any buffers of sockets
  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int held_ = 0;
  bool released_ = false;
};

TEST_F(HttpServerTest, AnswersGetAndHead) {
  EXPECT_THAT(Ask("GET /live HTTP/1.1\r\nHost: a\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nContent-Length: 5\r\n"),
                    EndsWith("\r\n\r\nlive\n")));
  EXPECT_THAT(Ask("HEAD /live HTTP/1.1\r\nHost: a\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nContent-Length: 5\r\n"),
                    EndsWith("\r\n\r\n")));
  EXPECT_THAT(Ask("GET /none HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("GET http://127.0.0.1:15020/live HTTP/1.1\r\nHost: a\r\n\r\n"),
              StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask("GET /live HTTP/1.0\n\n"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, ReadsARequestInPieces) {
  const base::UniqueFd fd = Connect();
  for (const char byte : std::string("GET /live HTTP/1.1\r\nHost: a\r\n\r\n")) {
    ASSERT_TRUE(Say(fd, std::string(1, byte)));
  }
  EXPECT_THAT(Rest(fd), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, RefusesOtherMethodsBodiesAndNonsense) {
  for (const std::string method : {"POST", "PUT", "DELETE", "OPTIONS", "PRI"}) {
    EXPECT_THAT(Ask(method + " /live HTTP/1.1\r\nHost: a\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  }
  EXPECT_THAT(Ask("GET /live HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Ask("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask(base::StrCat("GET /", std::string(9000, 'a'))), StartsWith("HTTP/1.1 431 "));
}

// Of each of these the server keeps 8 KiB at most and throws away little more: then it closes.
TEST_F(HttpServerTest, NoFloodIsKept) {
  const std::string piece(65536, 'a');
  const std::string chunk = base::StrCat("10000\r\n", piece, "\r\n");
  std::string headers;
  for (int i = 0; i < 6000; ++i) {
    headers += "X: aaaaaaa\r\n";
  }
  EXPECT_LT(TakenAfter("GET /", piece), kFlood);
  EXPECT_LT(TakenAfter("GET / HTTP/1.1\r\nX: ", piece), kFlood);
  EXPECT_LT(TakenAfter("GET / HTTP/1.1\r\n", headers), kFlood);
  EXPECT_LT(TakenAfter("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", chunk), kFlood);
  EXPECT_LT(TakenAfter("PUT / HTTP/1.1\r\nContent-Length: 2000000000\r\n\r\n", piece), kFlood);
  EXPECT_LT(TakenAfter("POST / HTTP/1.1\r\n\r\n", piece), kFlood);
}

TEST_F(HttpServerTest, ARequestThatTricklesInIsCutAfterFiveSeconds) {
  const Steady::time_point begin = Steady::now();
  const base::UniqueFd fd = Connect();
  ASSERT_TRUE(Say(fd, "GET /"));
  pollfd ended{fd.get(), POLLIN, 0};
  while (poll(&ended, 1, 100) == 0 && Steady::now() - begin < std::chrono::seconds(60)) {
    Say(fd, "a");
  }
  EXPECT_EQ(Rest(fd), "");
  EXPECT_GE(Steady::now() - begin, std::chrono::milliseconds(4900));
  EXPECT_LT(Steady::now() - begin, std::chrono::seconds(30));
}

TEST_F(HttpServerTest, ManyWhoSayNothingKeepNobodyOut) {
  std::vector<base::UniqueFd> silent;
  for (size_t i = 0; i < 2 * kMaxConnections; ++i) {
    silent.push_back(Connect());
    ASSERT_TRUE(Say(silent.back(), "GET /"));
  }
  const Steady::time_point begin = Steady::now();
  EXPECT_THAT(Ask("GET /live HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_LT(Steady::now() - begin, std::chrono::seconds(4));  // before one of them is late
  EXPECT_EQ(Rest(silent.front()), "");                        // the oldest one had to go
}

// Of those who say nothing only as many get in as there are descriptors: they make room as well.
TEST_F(HttpServerTest, WhoSaysNothingKeepsNobodyOutWhereDescriptorsRunOut) {
  constexpr size_t kSilent = 16;
  std::vector<base::UniqueFd> clients;
  for (size_t i = 0; i < kSilent + 1; ++i) {
    clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  }
  const DescriptorLimit limit(4);
  for (size_t i = 0; i < kSilent; ++i) {
    ConnectWith(clients[i]);
    ASSERT_TRUE(Say(clients[i], "GET /"));
  }
  const Steady::time_point begin = Steady::now();
  ConnectWith(clients.back());
  ASSERT_TRUE(Say(clients.back(), "GET /live HTTP/1.1\r\n\r\n"));
  EXPECT_THAT(Rest(clients.back()), StartsWith("HTTP/1.1 200 "));
  EXPECT_LT(Steady::now() - begin, std::chrono::seconds(4));  // before one of them is late
}

TEST_F(HttpServerTest, PagesThatTakeTheirTimeAreNeverMoreThanTheConnections) {
  std::vector<base::UniqueFd> waiting;
  for (size_t i = 0; i < kMaxConnections + 8; ++i) {
    waiting.push_back(Connect());
    ASSERT_TRUE(Say(waiting.back(), "GET /held HTTP/1.1\r\n\r\n"));
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return held_ == 4; }));
  }
  Release();
  for (const base::UniqueFd& fd : waiting) {
    EXPECT_THAT(Rest(fd), StartsWith("HTTP/1.1 200 "));
  }
}

TEST_F(HttpServerTest, AReplyIsWholeHoweverSlowlyItIsTaken) {
  const base::UniqueFd fd = Connect();
  ASSERT_TRUE(Say(fd, "GET /big HTTP/1.1\r\n\r\n"));
  const std::string reply = Rest(fd);
  EXPECT_THAT(reply.substr(0, 200), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(reply.size() - reply.find("\r\n\r\n") - 4, size_t{16} << 20U);
}

TEST_F(HttpServerTest, EndsWhilePagesAreMadeAndClientsWait) {
  const base::UniqueFd silent = Connect();
  const base::UniqueFd asking = Connect();
  ASSERT_TRUE(Say(asking, "GET /held HTTP/1.1\r\n\r\n"));
  {
    std::unique_lock<std::mutex> lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return held_ == 1; }));
  }
  Release();
  server_.reset();
  EXPECT_THAT(Rest(asking), Not(HasSubstr("HTTP/1.1 5")));
  EXPECT_EQ(Rest(silent), "");
}

}  // namespace
}  // namespace postern::http
