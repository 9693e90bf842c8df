// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>

#include "common/base/strings.h"
#include "proxy/admin/control_socket.h"
#include "proxy/admin/pages.h"

namespace postern::admin {
namespace {

using http::HostCheck;
using http::HttpServer;

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class AdminTest : public ::testing::Test {
 protected:
  AdminTest() {
    pages_.status = [] { return std::string("{\"page\":\"status\"}"); };
    pages_.config = [] { return std::string("{\"page\":\"config\"}"); };
    pages_.certs = [] { return std::string("{\"page\":\"certs\"}"); };
    pages_.connections = [] { return std::string("[]"); };
    pages_.failures = [] { return std::string("[]"); };
    pages_.metrics = [] { return std::string("postern_ready 1\n"); };
    pages_.missing = [this] { return missing_; };
    pages_.hints = [this] { return hints_; };
    verbs_.drain = [this] { ++drains_; };
    verbs_.shutdown = [this] { ++shutdowns_; };
    verbs_.set_log_level = [this](std::string_view level) {
      level_ = level;
      return level == "debug" ? absl::OkStatus() : absl::InvalidArgumentError("no such level");
    };
    verbs_.renew = [this] { return renewed_; };
    pages_.seen = [] { return std::string("{\"destinations\":[]}"); };
    verbs_.forget_seen = [this](std::string_view destination) {
      forgotten_ = destination;
      return destination == "192.0.2.7:80" ? absl::OkStatus()
             : destination == "x"          ? absl::InvalidArgumentError("no destination")
                                           : absl::NotFoundError("was not seen");
    };
    char name[] = "/tmp/postern-admin-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/admin.sock";
  }
  ~AdminTest() override { std::filesystem::remove_all(directory_); }

  static std::string Exchange(int fd, const std::string& request) {
    EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    std::string reply;
    std::array<char, 4096> chunk{};
    ssize_t got = 0;
    while ((got = recv(fd, chunk.data(), chunk.size(), 0)) > 0) {
      reply.append(chunk.data(), static_cast<size_t>(got));
    }
    close(fd);
    return reply;
  }

  static std::string OverTcp(int family, uint16_t port, const std::string& request) {
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    v6.sin6_addr = in6addr_loopback;
    const bool is_v4 = family == AF_INET;
    EXPECT_EQ(
        connect(fd, is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6),
                is_v4 ? sizeof(v4) : sizeof(v6)),
        0);
    return Exchange(fd, request);
  }

  std::string OverUnix(const std::string& request) const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(path_.begin(), path_.end(), address.sun_path);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return Exchange(fd, request);
  }

  static std::string Get(std::string_view path, std::string_view host = "127.0.0.1") {
    return base::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\nConnection: close\r\n\r\n");
  }

  Pages pages_;
  http::ReadPage operators_ = [this](std::string_view path) { return ReadPage(pages_, path); };
  http::ReadPage scrapers_ = [this](std::string_view path) { return ReadHealthPage(pages_, path); };
  Verbs verbs_;
  std::vector<std::string> missing_, hints_;
  std::atomic<int> drains_ = 0;
  std::atomic<int> shutdowns_ = 0;
  absl::Status renewed_;
  std::string level_, forgotten_, directory_, path_;
};

TEST_F(AdminTest, OperatorsReadEveryPage) {
  auto server = HttpServer::Start("127.0.0.1", 0, HostCheck::kThisMachine, operators_);
  ASSERT_TRUE(server.ok()) << server.status();
  for (const std::string page : {"/status", "/config", "/certs"}) {
    const std::string reply = OverTcp(AF_INET, (*server)->port(), Get(page));
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(reply, HasSubstr("application/json"));
    EXPECT_THAT(reply, HasSubstr(page.substr(1)));
  }
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/nothing")), StartsWith("HTTP/1.1 404"));
}

TEST_F(AdminTest, AForeignHostHeaderIsRefused) {
  auto server = HttpServer::Start("127.0.0.1", 0, HostCheck::kThisMachine, operators_);
  ASSERT_TRUE(server.ok()) << server.status();
  for (const char* const foreign :
       {"evil.example:15000", "evil.example", "[::1", "[::1]evil", "localhost:evil", "::1", ""}) {
    EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/status", foreign)),
                StartsWith("HTTP/1.1 403"))
        << foreign;
  }
  for (const char* const own :
       {"LocalHost:15000", "localhost", "127.0.0.1:1", "[::1]", "[::1]:2"}) {
    EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/status", own)),
                StartsWith("HTTP/1.1 200"))
        << own;
  }
  const auto absolute = [](std::string_view named, std::string_view header) {
    return base::StrCat("GET http://", named, "/status HTTP/1.1\r\nHost: ", header, "\r\n\r\n");
  };
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), absolute("evil.example", "localhost")),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), absolute("[::1]:15000", "evil.example")),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminTest, TcpPortNeverChangesAnything) {
  auto server = HttpServer::Start("127.0.0.1", 0, HostCheck::kThisMachine, operators_);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(),
                      "POST /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n"
                      "Connection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/shutdown")), StartsWith("HTTP/1.1 404"));
  EXPECT_EQ(shutdowns_, 0);
}

TEST_F(AdminTest, ReadinessSaysWhatIsMissingAndCanBeLostAgain) {
  auto server = HttpServer::Start("127.0.0.1", 0, HostCheck::kNone, scrapers_);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/ready")), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/ready")), EndsWith("\r\n\r\nready\n"));
  hints_ = {"look at the rules"};
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/ready")),
              AllOf(StartsWith("HTTP/1.1 200"), EndsWith("ready, but look at the rules\n")));
  missing_ = {"no certificate", "no policy"};
  const std::string reply = OverTcp(AF_INET, (*server)->port(), Get("/ready"));
  EXPECT_THAT(reply, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(reply, HasSubstr("no certificate; no policy"));
}

TEST_F(AdminTest, ScrapersGetMetricsOverBothFamiliesAndNothingElse) {
  auto server = HttpServer::Start("0.0.0.0", 0, HostCheck::kNone, scrapers_);
  ASSERT_TRUE(server.ok()) << server.status();
  for (const int family : {AF_INET, AF_INET6}) {
    const std::string reply = OverTcp(family, (*server)->port(), Get("/metrics", "pod-7.example"));
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(reply, HasSubstr("text/plain; version=0.0.4; charset=utf-8"));
    EXPECT_THAT(reply, HasSubstr("postern_ready 1"));
  }
  EXPECT_THAT(OverTcp(AF_INET, (*server)->port(), Get("/config")), StartsWith("HTTP/1.1 404"));
}

TEST_F(AdminTest, ASecondServerOnThePortIsRefused) {
  auto first = HttpServer::Start("127.0.0.1", 0, HostCheck::kNone, scrapers_);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = HttpServer::Start("127.0.0.1", (*first)->port(), HostCheck::kNone, scrapers_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(base::Message(second.status())), HasSubstr("127.0.0.1"));
}

TEST_F(AdminTest, TheUnixSocketDoesTheVerbs) {
  auto socket = ControlSocket::Start(path_, pages_, verbs_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_THAT(OverUnix("POST /drain HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(drains_, 1);
  EXPECT_THAT(OverUnix("POST /logging?level=debug HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(level_, "debug");
  EXPECT_THAT(OverUnix("POST /logging?level=loud HTTP/1.1\r\n\r\n"), HasSubstr("no such level"));
  EXPECT_THAT(OverUnix("POST /shutdown HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(shutdowns_, 1);
  EXPECT_THAT(OverUnix(Get("/status")), HasSubstr("status"));
}

TEST_F(AdminTest, TheUnixSocketRenewsWhereThereIsSomebodyToAsk) {
  auto socket = ControlSocket::Start(path_, pages_, verbs_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_THAT(OverUnix("POST /renew HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(OverUnix(Get("/renew")), StartsWith("HTTP/1.1 405"));
  renewed_ = absl::FailedPreconditionError("from files");
  const std::string reply = OverUnix("POST /renew HTTP/1.1\r\n\r\n");
  EXPECT_THAT(reply, StartsWith("HTTP/1.1 409 Conflict"));
  EXPECT_THAT(reply, HasSubstr("from files"));
}

TEST_F(AdminTest, TheUnixSocketRefusesWhatIsNoVerb) {
  auto socket = ControlSocket::Start(path_, pages_, verbs_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_THAT(OverUnix(Get("/drain")), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(OverUnix("POST /status HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(OverUnix("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(OverUnix(std::string(9000, 'x')), StartsWith("HTTP/1.1 400"));
  EXPECT_EQ(drains_, 0);
}

TEST_F(AdminTest, TheUnixSocketFileIsPrivateAndRemovedAtTheEnd) {
  {
    auto socket = ControlSocket::Start(path_, pages_, verbs_);
    ASSERT_TRUE(socket.ok()) << socket.status();
    struct stat info {};
    ASSERT_EQ(lstat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    EXPECT_EQ(ControlSocket::Start(path_, pages_, verbs_).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(AdminTest, AStaleSocketFileIsReplacedAnotherFileIsNot) {
  const int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path_.begin(), path_.end(), address.sun_path);
  ASSERT_EQ(bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(stale);
  EXPECT_TRUE(ControlSocket::Start(path_, pages_, verbs_).ok());
  const std::string plain = directory_ + "/plain";
  close(creat(plain.c_str(), 0600));
  EXPECT_FALSE(ControlSocket::Start(plain, pages_, verbs_).ok());
  EXPECT_EQ(access(plain.c_str(), F_OK), 0);
}

TEST_F(AdminTest, AnOperatorLetsADestinationLeaveTheMeshOverTheSocketAlone) {
  auto socket = ControlSocket::Start(path_, pages_, verbs_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_THAT(OverUnix(Get("/seen")), HasSubstr("destinations"));
  const auto forget = [this](std::string_view query) {
    return OverUnix(base::StrCat("POST /seen/forget", query, " HTTP/1.1\r\nHost: x\r\n\r\n"));
  };
  EXPECT_THAT(forget("?destination=192.0.2.7:80"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(forgotten_, "192.0.2.7:80");
  EXPECT_THAT(forget("?destination=192.0.2.7:81"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(forget("?destination=x"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(forget(""), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(OverUnix(Get("/seen/forget?destination=192.0.2.7:80")), StartsWith("HTTP/1.1 405"));
}

}  // namespace
}  // namespace postern::admin
