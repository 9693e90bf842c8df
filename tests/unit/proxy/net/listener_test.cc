// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;

class ListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/postern-net-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    accepted_.clear();
    std::filesystem::remove_all(directory_);
  }
  SocketAddress UnixPath() const { return SocketAddress::Unix(directory_ + "/s"); }
  Listener::OnAccept Keep() {
    return [this](std::unique_ptr<Stream> stream, const SocketAddress& peer) {
      accepted_.push_back(std::move(stream));
      last_peer_ = peer;
    };
  }
  // Connects and waits for the outcome.
  absl::StatusOr<std::unique_ptr<Stream>> Dial(const SocketAddress& to) {
    absl::StatusOr<std::unique_ptr<Stream>> outcome = absl::UnknownError("no outcome");
    Connector connector(*loop_, to, {}, [&](auto result) { outcome = std::move(result); });
    EXPECT_TRUE(RunUntil(*loop_, [&] { return !absl::IsUnknown(outcome.status()); }));
    return outcome;
  }

  // The kernel connects it, whether the loop runs or not.
  static int BlockingConnect(const SocketAddress& to) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_storage storage{};
    const socklen_t length = to.ToSockaddr(&storage);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&storage), length), 0);
    return fd;
  }

  std::unique_ptr<Loop> loop_ = Loop::Create().value();
  std::vector<std::unique_ptr<Stream>> accepted_;
  SocketAddress last_peer_;
  std::string directory_;
};

TEST_F(ListenerTest, PicksAPortAndTellsThePeersAddress) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_NE((*listener)->LocalAddress().port(), 0);
  auto client = Dial((*listener)->LocalAddress());
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
  EXPECT_EQ(last_peer_, *(*client)->LocalAddress());
}

TEST_F(ListenerTest, ResetsWhomItIsToldNotToAdmitAndServesTheOthers) {
  int asked = 0;
  ListenOptions options;
  options.admit = [&asked](const SocketAddress& peer) {
    EXPECT_TRUE(peer.ip().IsLoopback());
    return ++asked != 1;
  };
  auto listener = Listener::Listen(*loop_, Loopback(), options, Keep());
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int refused = BlockingConnect((*listener)->LocalAddress());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return asked == 1; }));
  char byte = 0;
  EXPECT_EQ(recv(refused, &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  const int served = BlockingConnect((*listener)->LocalAddress());
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
  EXPECT_EQ(asked, 2);
  EXPECT_EQ((*listener)->accept_errors(), 0U);
  close(refused);
  close(served);
}

TEST_F(ListenerTest, RefusalsDoNotUseUpTheTurnOfThoseThatAreLetIn) {
  int asked = 0;
  int asked_in_turn = 0;
  ListenOptions options;
  options.accepts_per_turn = 1;
  options.admit = [&](const SocketAddress&) {
    if (++asked == 1) {
      loop_->Defer([&] { asked_in_turn = asked; });
    }
    return asked > 10;
  };
  auto listener = Listener::Listen(*loop_, Loopback(), options, Keep());
  ASSERT_TRUE(listener.ok()) << listener.status();
  std::vector<int> clients;
  for (int i = 0; i < 11; ++i) {
    clients.push_back(BlockingConnect((*listener)->LocalAddress()));
  }
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1 && asked_in_turn > 0; }));
  EXPECT_EQ(asked_in_turn, 11);
  for (const int fd : clients) {
    close(fd);
  }
}

TEST_F(ListenerTest, ListensOnIpv6AloneBesideIpv4) {
  auto six = Listener::Listen(*loop_, *SocketAddress::Parse("[::]:0"), {}, Keep());
  if (!six.ok()) {
    GTEST_SKIP() << "no IPv6 here: " << six.status();
  }
  const uint16_t port = (*six)->LocalAddress().port();
  auto four = Listener::Listen(*loop_, SocketAddress(base::IpAddress(), port),
                               {.reuse_port = false}, Keep());
  EXPECT_TRUE(four.ok()) << four.status();
}

TEST_F(ListenerTest, SharesAPortOnlyWhenAsked) {
  auto first = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(Listener::Listen(*loop_, (*first)->LocalAddress(), {}, Keep()).ok());
  const auto refused =
      Listener::Listen(*loop_, (*first)->LocalAddress(), {.reuse_port = false}, Keep());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(refused.status().message().find((*first)->LocalAddress().ToString()),
            absl::string_view::npos);
}

TEST_F(ListenerTest, NeverPassesItsDescriptorsOn) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(listener.ok());
  auto client = Dial((*listener)->LocalAddress());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
  for (const int fd : {(*listener)->fd(), (*client)->fd(), accepted_[0]->fd()}) {
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  }
}

TEST_F(ListenerTest, PausesAndResumes) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(listener.ok());
  (*listener)->Pause();
  auto client = Dial((*listener)->LocalAddress());  // the backlog takes it
  ASSERT_TRUE(client.ok());
  RunFor(*loop_, milliseconds(30));
  EXPECT_EQ(accepted_.size(), 0U);
  (*listener)->Resume();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
}

TEST_F(ListenerTest, PausesFromItsOwnCallbackAtOnce) {
  std::unique_ptr<Listener> listener;
  listener = *Listener::Listen(*loop_, Loopback(), {}, [&](auto stream, const auto&) {
    accepted_.push_back(std::move(stream));
    listener->Pause();
  });
  auto one = Dial(listener->LocalAddress());
  auto two = Dial(listener->LocalAddress());
  RunFor(*loop_, milliseconds(30));
  EXPECT_EQ(accepted_.size(), 1U);
}

TEST_F(ListenerTest, MayBeDestroyedInItsOwnCallback) {
  std::unique_ptr<Listener> listener;
  listener = *Listener::Listen(*loop_, Loopback(), {}, [&](auto stream, const auto&) {
    accepted_.push_back(std::move(stream));
    listener.reset();
  });
  const SocketAddress address = listener->LocalAddress();
  ASSERT_TRUE(Dial(address).ok());
  ASSERT_TRUE(RunUntil(*loop_, [&] { return listener == nullptr; }));
  EXPECT_EQ(Dial(address).status().code(), absl::StatusCode::kUnavailable);
  accepted_.clear();
  RunFor(*loop_, milliseconds(1));
  EXPECT_EQ(loop_->OpenHandles(), 0U);
}

TEST_F(ListenerTest, AdoptsADuplicateOfAListeningSocket) {
  auto first = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(first.ok());
  auto second = Listener::Adopt(*loop_, (*first)->fd(), {}, Keep());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE((*first)->fd(), (*second)->fd());
  const SocketAddress address = (*second)->LocalAddress();
  EXPECT_EQ(address, (*first)->LocalAddress());
  first->reset();
  EXPECT_TRUE(Dial(address).ok());
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
}

TEST_F(ListenerTest, RefusesToAdoptWhatDoesNotListen) {
  const Pair pair = Connect(*loop_);
  EXPECT_FALSE(Listener::Adopt(*loop_, pair.client->fd(), {}, Keep()).ok());
  EXPECT_FALSE(Listener::Adopt(*loop_, -1, {}, Keep()).ok());
  EXPECT_FALSE(Listener::Adopt(*loop_, STDIN_FILENO, {}, Keep()).ok());
}

TEST_F(ListenerTest, ServesAUnixSocketWithTheModeAskedFor) {
  const mode_t before = umask(077);
  auto listener = Listener::Listen(*loop_, UnixPath(), {.unix_mode = 0620}, Keep());
  umask(before);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat info {};
  ASSERT_EQ(stat(UnixPath().path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0620U);
  auto client = Dial(UnixPath());
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 1; }));
  EXPECT_EQ(*accepted_[0]->Unacknowledged(), milliseconds(0));
  listener->reset();
  EXPECT_FALSE(std::filesystem::exists(UnixPath().path()));
}

TEST_F(ListenerTest, RemovesAStaleUnixSocketButNotOneInUse) {
  // A socket file that nobody serves any more.
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_storage storage;
  const socklen_t length = UnixPath().ToSockaddr(&storage);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&storage), length), 0);
  close(fd);
  auto first = Listener::Listen(*loop_, UnixPath(), {}, Keep());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(Listener::Listen(*loop_, UnixPath(), {}, Keep()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Dial(UnixPath()).ok());  // the first one still serves
}

TEST_F(ListenerTest, LeavesAFileThatIsNoSocketAlone) {
  std::ofstream(UnixPath().path()) << "precious";
  EXPECT_FALSE(Listener::Listen(*loop_, UnixPath(), {}, Keep()).ok());
  EXPECT_TRUE(std::filesystem::exists(UnixPath().path()));
}

TEST_F(ListenerTest, LeavesAFileThatReplacedItsOwnAlone) {
  auto listener = Listener::Listen(*loop_, UnixPath(), {}, Keep());
  ASSERT_TRUE(listener.ok());
  // The old inode stays in use under another name, or the new file could get the same number.
  std::filesystem::rename(UnixPath().path(), directory_ + "/old");
  std::ofstream(UnixPath().path()) << "somebody else's";
  listener->reset();
  EXPECT_TRUE(std::filesystem::exists(UnixPath().path()));
}

TEST_F(ListenerTest, BacksOffWithoutDescriptorsAndHealsByItself) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  ASSERT_TRUE(listener.ok());
  auto clients = std::vector<std::unique_ptr<Stream>>();
  std::vector<std::unique_ptr<Connector>> connectors;
  (*listener)->Pause();
  for (int i = 0; i < 5; ++i) {
    clients.push_back(*Dial((*listener)->LocalAddress()));
  }
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int highest = dup(0);
  close(highest);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(highest);  // not one more
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  (*listener)->Resume();
  const clock_t cpu_before = clock();
  RunFor(*loop_, milliseconds(400));
  const double cpu_ms = 1000.0 * static_cast<double>(clock() - cpu_before) / CLOCKS_PER_SEC;
  EXPECT_EQ(accepted_.size(), 0U);
  EXPECT_GE((*listener)->accept_errors(), 4U);  // 0, 5, 15, 35, 75, 155, 315 ms
  EXPECT_LE((*listener)->accept_errors(), 10U);
  EXPECT_LT(cpu_ms, 80.0);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 5; }));
}

TEST_F(ListenerTest, MayBePausedAndDestroyedWhileItBacksOff) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  auto client = Dial((*listener)->LocalAddress());
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const int highest = dup(0);
  close(highest);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(highest);
  (*listener)->Pause();
  auto second = Dial((*listener)->LocalAddress());
  accepted_.clear();
  const int now_highest = dup(0);
  close(now_highest);
  tight.rlim_cur = static_cast<rlim_t>(now_highest);
  setrlimit(RLIMIT_NOFILE, &tight);
  (*listener)->Resume();
  RunFor(*loop_, milliseconds(20));
  (*listener)->Pause();
  RunFor(*loop_, milliseconds(20));
  listener->reset();
  setrlimit(RLIMIT_NOFILE, &before);
  RunFor(*loop_, milliseconds(5));
}

TEST_F(ListenerTest, AcceptsABoundedNumberInOneTurn) {
  int in_turn = 0;
  int most = 0;
  auto listener = Listener::Listen(*loop_, Loopback(), {.accepts_per_turn = 4},
                                   [&](std::unique_ptr<Stream> stream, const auto&) {
                                     accepted_.push_back(std::move(stream));
                                     most = std::max(most, ++in_turn);
                                     if (in_turn == 1) {
                                       loop_->Defer([&] { in_turn = 0; });
                                     }
                                   });
  (*listener)->Pause();
  std::vector<std::unique_ptr<Stream>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(*Dial((*listener)->LocalAddress()));
  }
  (*listener)->Resume();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return accepted_.size() == 20; }));
  EXPECT_EQ(most, 4);
}

TEST_F(ListenerTest, TellsWhyAConnectFailed) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  const SocketAddress gone = (*listener)->LocalAddress();
  listener->reset();
  const auto refused = Dial(gone);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(refused.status().message().find(gone.ToString()), absl::string_view::npos);
  EXPECT_NE(refused.status().message().find("refused"), absl::string_view::npos);
  EXPECT_EQ(Dial(UnixPath()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ListenerTest, CallsBackFromTheLoopNeverFromTheConstructor) {
  int calls = 0;
  const SocketAddress nowhere = UnixPath();  // refused at once
  Connector connector(*loop_, nowhere, {}, [&](auto) { ++calls; });
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return calls == 1; }));
}

TEST_F(ListenerTest, HasAConnectOnThisHostAtOnceIfItIsAskedFor) {
  int calls = 0;
  const ConnectOptions near = {.near = true};
  auto tcp = Listener::Listen(*loop_, Loopback(), {}, Keep());
  auto local = Listener::Listen(*loop_, UnixPath(), {}, Keep());
  for (const SocketAddress& to : {(*tcp)->LocalAddress(), UnixPath()}) {
    Connector connector(*loop_, to, near, [&](auto) { ++calls; });
    const std::unique_ptr<Stream> stream = connector.TakeAtOnce();
    ASSERT_NE(stream, nullptr);
    Collector collector;
    stream->SetHandler(&collector);
    stream->WantRead(true);
    ASSERT_TRUE(RunUntil(*loop_, [&] { return !accepted_.empty(); }));
    WriteText(*accepted_.back(), "hello");
    EXPECT_TRUE(RunUntil(*loop_, [&] { return collector.bytes == "hello"; }));
    accepted_.clear();
  }
  EXPECT_EQ(calls, 0);
}

TEST_F(ListenerTest, ConnectsWithThePriorityThatItIsGiven) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  for (const uint8_t priority : {uint8_t{5}, uint8_t{0}}) {
    Connector connector(*loop_, (*listener)->LocalAddress(), {.priority = priority, .near = true},
                        [](auto) { ADD_FAILURE() << "it is there at once"; });
    const std::unique_ptr<Stream> stream = connector.TakeAtOnce();
    ASSERT_NE(stream, nullptr);
    int value = -1;
    socklen_t length = sizeof(value);
    ASSERT_EQ(getsockopt(stream->fd(), SOL_SOCKET, SO_PRIORITY, &value, &length), 0);
    EXPECT_EQ(value, priority);
  }
}

TEST_F(ListenerTest, TellsLaterThatAConnectOnThisHostWasRefused) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  const SocketAddress gone = (*listener)->LocalAddress();
  listener->reset();
  for (const SocketAddress& to : {gone, UnixPath()}) {
    absl::Status outcome;
    Connector connector(*loop_, to, {.near = true},
                        [&](auto result) { outcome = result.status(); });
    EXPECT_EQ(connector.TakeAtOnce(), nullptr);
    EXPECT_TRUE(outcome.ok()) << "not from inside";
    EXPECT_TRUE(RunUntil(*loop_, [&] { return absl::IsUnavailable(outcome); }));
    EXPECT_NE(outcome.message().find(to.ToString()), absl::string_view::npos) << outcome;
  }
}

TEST_F(ListenerTest, CancelsAConnectWhenTheConnectorIsDestroyed) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  for (const SocketAddress& to : {(*listener)->LocalAddress(), UnixPath()}) {
    auto connector = std::make_unique<Connector>(
        *loop_, to, ConnectOptions{}, [](auto) { ADD_FAILURE() << "cancelled, yet called"; });
    connector.reset();
  }
  RunFor(*loop_, milliseconds(30));
}

TEST_F(ListenerTest, LetsAConnectorBeDestroyedInItsOwnCallback) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  std::unique_ptr<Connector> connector;
  std::unique_ptr<Stream> stream;
  connector = std::make_unique<Connector>(*loop_, (*listener)->LocalAddress(), ConnectOptions{},
                                          [&](auto result) {
                                            connector.reset();
                                            stream = *std::move(result);
                                          });
  EXPECT_TRUE(RunUntil(*loop_, [&] { return stream != nullptr; }));
}

TEST_F(ListenerTest, SaysExhaustedWhenDescriptorsRunOut) {
  auto listener = Listener::Listen(*loop_, Loopback(), {}, Keep());
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const int highest = dup(0);
  close(highest);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(highest);
  setrlimit(RLIMIT_NOFILE, &tight);
  const auto outcome = Dial((*listener)->LocalAddress());
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kResourceExhausted) << outcome.status();
}

TEST_F(ListenerTest, WaitsForRoomInAFullUnixQueue) {
  auto listener = Listener::Listen(*loop_, UnixPath(), {.backlog = 1}, Keep());
  ASSERT_TRUE(listener.ok());
  (*listener)->Pause();
  int done = 0;
  std::vector<std::unique_ptr<Stream>> clients;
  std::vector<std::unique_ptr<Connector>> connectors;
  for (int i = 0; i < 6; ++i) {
    connectors.push_back(
        std::make_unique<Connector>(*loop_, UnixPath(), ConnectOptions{}, [&](auto stream) {
          ASSERT_TRUE(stream.ok()) << stream.status();
          clients.push_back(*std::move(stream));
          ++done;
        }));
  }
  RunFor(*loop_, milliseconds(30));
  EXPECT_LT(done, 6);
  (*listener)->Resume();
  EXPECT_TRUE(RunUntil(*loop_, [&] { return done == 6; }));
}

}  // namespace
}  // namespace postern::net
