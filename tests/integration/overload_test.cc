// SPDX-License-Identifier: Apache-2.0
// No file descriptor is left: connections are refused with their own reason, and it heals by
// itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;

// Takes every file descriptor of this process but a few, under a limit that is lowered for the
// time.
class DescriptorShortage {
 public:
  explicit DescriptorShortage(size_t left) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    taken_.push_back(next);
    rlimit low = before_;
    low.rlim_cur = static_cast<rlim_t>(next) + 64;
    setrlimit(RLIMIT_NOFILE, &low);
    for (int fd = dup(next); fd >= 0; fd = dup(next)) {
      taken_.push_back(fd);
    }
    for (size_t i = 0; i < left; ++i) {
      close(taken_.back());
      taken_.pop_back();
    }
  }
  ~DescriptorShortage() {
    for (const int fd : taken_) {
      close(fd);
    }
    setrlimit(RLIMIT_NOFILE, &before_);
  }
  DescriptorShortage(const DescriptorShortage&) = delete;
  DescriptorShortage& operator=(const DescriptorShortage&) = delete;

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

TEST(OverloadTest, AConnectionForWhoseNextHopNoDescriptorIsLeftIsRefusedAsOverload) {
  ProxyPair pair(&Echo);
  pair.Start();
  bool refused = false;
  // Threads of earlier tests' libraries may still give descriptors back, and then a connection is
  // served after all; or take one, and then it is not even accepted. The shortage is made anew.
  for (size_t attempt = 0; attempt < 20 && !refused; ++attempt) {
    // One for the client's socket, one for the proxy's accept, none for the proxy's connect.
    const DescriptorShortage shortage(2 + attempt % 3);
    Socket socket = pair.Connect();
    socket.SetTimeout(std::chrono::seconds(3));
    socket.Send("x");
    refused = socket.ReadExactly(1).empty() && socket.last_end() == ReadEnd::kReset;
    if (refused) {
      EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kOverload)) << pair.client.Reasons();
      EXPECT_NE(pair.client.Failures().find("\"overload\""), std::string::npos);
    }
  }
  EXPECT_TRUE(refused);
  Socket later = pair.Connect();
  later.Send("healed");
  EXPECT_EQ(later.ReadExactly(6), "healed");
}

TEST(OverloadTest, AClientThatCannotBeAcceptedForWantOfDescriptorsIsServedLater) {
  ProxyPair pair(&Echo);
  pair.Start();
  bool waited = false;
  for (int attempt = 0; attempt < 20 && !waited; ++attempt) {  // as above
    const uint64_t opened = pair.client.Opened();
    Socket waiting;
    {
      const DescriptorShortage shortage(1);
      waiting = pair.Connect();  // into the listener's queue; nothing is left to accept it with
      waiting.Send("patience");
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      waited = pair.client.Opened() == opened;
    }
    EXPECT_EQ(waiting.ReadExactly(8), "patience");
  }
  EXPECT_TRUE(waited);
}

}  // namespace
}  // namespace postern::testing
