// SPDX-License-Identifier: Apache-2.0
// `postern renew`, against a control socket of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cli/cli.h"
#include "common/base/strings.h"
#include "common/base/unix_socket.h"
#include "tests/testing/temp_dir.h"

namespace postern::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What a proxy of the test says of itself.
struct Told {
  int ok = 3, failed = 1;
  std::string error, serial = "0a";
};

// The control socket of a proxy that answers as `told` is after `on_renew`.
class FakeProxy {
 public:
  explicit FakeProxy(const std::string& path)
      : socket_(base::UnixServerSocket::Listen(path, 0600, 8).value()),
        stop_(eventfd(0, EFD_CLOEXEC)),
        thread_([this] { Serve(); }) {}
  ~FakeProxy() {
    eventfd_write(stop_, 1);
    thread_.join();
    close(stop_);
  }

  std::function<void(Told&)> on_renew = [](Told&) {};
  std::string refusal;  // of /renew
  Told told;

  std::vector<std::string> asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void Serve() {
    for (int fd = 0; (fd = socket_->AcceptUnless(stop_)) >= 0; close(fd)) {
      std::array<char, 2048> buffer{};
      const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
      const std::string head(buffer.data(), got > 0 ? static_cast<size_t>(got) : 0);
      const std::string reply = Answer(head.substr(0, head.find(" HTTP/1.1")));
      EXPECT_EQ(send(fd, reply.data(), reply.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(reply.size()));
    }
  }

  std::string Answer(const std::string& request) {
    const std::lock_guard lock(mutex_);
    asked_.push_back(request);
    std::string status = "200 OK";
    std::string body = "{\"result\":\"renewing\"}";
    if (request == "GET /status") {
      body = base::StrCat("{\"identity\":{\"renewals_ok\":", told.ok,
                          ",\"renewals_failed\":", told.failed, ",\"renewal_error\":\"", told.error,
                          "\"}}");
    } else if (request == "GET /certs") {
      body = base::StrCat("{\"certificates\":[{\"kind\":\"leaf\",\"serial\":\"", told.serial,
                          "\",\"not_after\":\"2030-01-01T00:00:00Z\"}]}");
    } else if (!refusal.empty()) {
      status = "409 Conflict";
      body = refusal;
    } else {
      on_renew(told);
    }
    return base::StrCat("HTTP/1.1 ", status, "\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
  }

  std::mutex mutex_;
  std::vector<std::string> asked_;  // guarded by mutex_
  const std::unique_ptr<base::UnixServerSocket> socket_;
  const int stop_;
  std::thread thread_;  // last: it uses the rest
};

class RenewTest : public ::testing::Test {
 protected:
  int RunIt(const std::string& timeout = "20s") {
    const std::vector<const char*> argv = {"postern",     "renew",     "--admin-socket",
                                           path_.c_str(), "--timeout", timeout.c_str()};
    return cli::Run(static_cast<int>(argv.size()), argv.data(), out_, err_);
  }

  const testing::TempDir dir_;
  const std::string path_ = dir_.Path("admin.sock");
  std::ostringstream out_, err_;
};

TEST_F(RenewTest, PrintsTheSerialOfTheNewCertificate) {
  FakeProxy proxy(path_);
  proxy.on_renew = [](Told& told) {
    ++told.ok;
    told.serial = "0b";
  };
  EXPECT_EQ(RunIt(), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("serial     0b\n"));
  EXPECT_THAT(proxy.asked(),
              ElementsAre("GET /status", "POST /renew", "GET /status", "GET /certs"));
}

TEST_F(RenewTest, SaysWhyTheIssuerGaveNone) {
  FakeProxy proxy(path_);
  proxy.on_renew = [](Told& told) {
    ++told.failed;
    told.error = "it is revoked";
  };
  EXPECT_EQ(RunIt(), 1);
  EXPECT_EQ(out_.str(), "");
  EXPECT_THAT(err_.str(), HasSubstr("it is revoked"));
}

TEST_F(RenewTest, GivesUpWhenNoAnswerComes) {
  FakeProxy proxy(path_);
  EXPECT_EQ(RunIt("0s"), 1);
  EXPECT_THAT(err_.str(), HasSubstr("no answer of the issuer"));
}

TEST_F(RenewTest, AProxyWithoutAnIssuerRefuses) {
  FakeProxy proxy(path_);
  proxy.refusal = "from files";
  EXPECT_EQ(RunIt(), 1);
  EXPECT_THAT(err_.str(), HasSubstr("from files"));
}

TEST_F(RenewTest, NamesTheSocketThatIsNotThere) {
  EXPECT_EQ(RunIt(), 1);
  EXPECT_THAT(err_.str(), HasSubstr("--admin-socket"));
  EXPECT_THAT(err_.str(), HasSubstr("no such socket"));
}

}  // namespace
}  // namespace postern::cli
