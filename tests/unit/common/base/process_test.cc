// SPDX-License-Identifier: Apache-2.0
#include "common/base/process.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/base/sanitized.h"
#include "tests/testing/temp_dir.h"

namespace postern::base {
namespace {

// What HardenProcess left behind, as bits of a child's exit status: it cannot be undone here.
enum Missing : int { kHarden = 1, kCore = 2, kDump = 4, kPipe = 8, kMask = 16, kFiles = 32 };

int WhatIsMissing() {
  int missing = 0;
  missing |= HardenProcess().ok() ? 0 : kHarden;
  rlimit limit{};
  getrlimit(RLIMIT_CORE, &limit);
  missing |= limit.rlim_cur == 0 && limit.rlim_max == 0 ? 0 : kCore;
  missing |= kSanitized || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : kDump;
  struct sigaction action {};
  sigaction(SIGPIPE, nullptr, &action);
  missing |= action.sa_handler == SIG_IGN ? 0 : kPipe;
  missing |= umask(0) == 0077 ? 0 : kMask;
  getrlimit(RLIMIT_NOFILE, &limit);
  missing |= limit.rlim_cur == limit.rlim_max ? 0 : kFiles;
  return missing;
}

TEST(HardenProcessTest, LeavesNoDumpNoSigpipeAndAPrivateUmask) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    _exit(WhatIsMissing());
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "bits of enum Missing";
}

// A service manager's end of the notification socket.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    }
    const size_t length = offsetof(sockaddr_un, sun_path) + name.size();
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(length)), 0);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~NotifySocket() {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }

  std::string Receive() {
    std::array<char, 256> buffer{};
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
    return got < 0 ? "nothing" : std::string(buffer.data(), static_cast<size_t>(got));
  }

 private:
  int fd_;
};

TEST(NotifyServiceManagerTest, SendsTheStateToTheSocket) {
  const testing::TempDir dir;
  NotifySocket manager(dir.Path("notify"));
  NotifyServiceManager("READY=1");
  EXPECT_EQ(manager.Receive(), "READY=1");
}

TEST(NotifyServiceManagerTest, KnowsTheAbstractNameSpace) {
  NotifySocket manager("@postern-test-" + std::to_string(getpid()));
  NotifyServiceManager("STOPPING=1");
  EXPECT_EQ(manager.Receive(), "STOPPING=1");
}

TEST(NotifyServiceManagerTest, DoesNothingWithoutAUsableSocket) {
  unsetenv("NOTIFY_SOCKET");
  NotifyServiceManager("READY=1");
  for (const std::string& name :
       {std::string(), std::string("relative"), "/" + std::string(200, 'x'),
        std::string("/nonexistent/notify")}) {
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    NotifyServiceManager("READY=1");
  }
  unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace postern::base
