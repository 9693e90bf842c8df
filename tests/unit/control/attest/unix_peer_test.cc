// SPDX-License-Identifier: Apache-2.0
// Real processes at the other end of real sockets.
#include "control/attest/unix_peer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "control/attest/attestor.h"
#include "control/attest/refusal.h"
#include "control/attest/selector.h"
#include "tests/testing/temp_dir.h"

namespace postern::attest {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::Not;
using ::testing::StartsWith;

// A listening socket, and a child that connects to it and then runs a program.
class UnixPeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = base::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    address_.sun_family = AF_UNIX;
    const std::string path = dir_.Path("s");
    ASSERT_LT(path.size(), sizeof(address_.sun_path));
    std::memcpy(address_.sun_path, path.c_str(), path.size() + 1);
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0);
    ASSERT_EQ(listen(listener_.get(), 8), 0);
  }
  void TearDown() override {
    if (child_ > 0) {
      End();
    }
  }

  // The child runs `before`, connects (the connection stays open over exec) and becomes `program`,
  // which must wait for its standard input. Returns our end, once the program runs.
  template <typename Before>
  base::UniqueFd Spawn(const std::string& program, Before before) {
    std::array<int, 2> input{};
    std::array<int, 2> running{};
    EXPECT_EQ(pipe2(input.data(), O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(running.data(), O_CLOEXEC), 0);
    child_ = fork();
    if (child_ == 0) {
      dup2(input[0], STDIN_FILENO);
      before();
      const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
      if (connect(fd, reinterpret_cast<sockaddr*>(&address_), sizeof(address_)) != 0) {
        _exit(1);
      }
      execl(program.c_str(), "cat", nullptr);
      _exit(1);
    }
    close(input[0]);
    close(running[1]);
    input_ = base::UniqueFd(input[1]);
    base::UniqueFd accepted(accept(listener_.get(), nullptr, nullptr));
    char nothing = 0;
    EXPECT_EQ(read(running[0], &nothing, 1), 0);  // closed by exec
    close(running[0]);
    return accepted;
  }
  base::UniqueFd Spawn(const std::string& program) {
    return Spawn(program, [] {});
  }
  void End() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  std::string CopyOfCat(std::string_view name) {
    const std::string path = dir_.Path(name);
    std::filesystem::copy_file("/bin/cat", path);
    EXPECT_EQ(chmod(path.c_str(), 0755), 0);
    return path;
  }
  std::vector<std::string> SelectorsOf(UnixPeer peer) {
    const auto attested = MakeUnixPeerAttestor()->Attest(
        UnixPeerEvidence{std::make_shared<const UnixPeer>(std::move(peer))});
    EXPECT_TRUE(attested.ok()) << attested.status();
    return attested.ok() ? attested->selectors : std::vector<std::string>();
  }

  postern::testing::TempDir dir_;
  sockaddr_un address_{};
  base::UniqueFd listener_;
  base::UniqueFd input_;
  pid_t child_ = -1;
};

TEST_F(UnixPeerTest, KnowsUserGroupAndExecutable) {
  const std::string program = CopyOfCat("workload");
  const base::UniqueFd fd = Spawn(program);
  auto peer = UnixPeer::FromSocket(fd.get());
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->pid(), child_);
  EXPECT_EQ(peer->uid(), getuid());
  EXPECT_EQ(peer->gid(), getgid());
  const std::vector<std::string> selectors = SelectorsOf(*std::move(peer));
  EXPECT_THAT(selectors, Contains(UnixUidSelector(getuid())));
  EXPECT_THAT(selectors, Contains(UnixGidSelector(getgid())));
  EXPECT_THAT(selectors, Contains(UnixPathSelector(std::filesystem::canonical(program).string())));
  EXPECT_TRUE(std::is_sorted(selectors.begin(), selectors.end()));
}

TEST_F(UnixPeerTest, RefusesAPeerThatIsGone) {
  const base::UniqueFd fd = Spawn("/bin/cat");
  auto peer = UnixPeer::FromSocket(fd.get());
  ASSERT_TRUE(peer.ok());
  EXPECT_TRUE(peer->IsAlive());
  End();
  EXPECT_FALSE(peer->IsAlive());
  EXPECT_TRUE(absl::IsUnauthenticated(peer->ExecutablePath().status()));
  EXPECT_TRUE(absl::IsUnauthenticated(UnixPeer::FromSocket(fd.get()).status()));
  const auto attested = MakeUnixPeerAttestor()->Attest(
      UnixPeerEvidence{std::make_shared<const UnixPeer>(*std::move(peer))});
  EXPECT_EQ(ReasonOf(attested.status()), RefusalReason::kUnattested);
}

TEST_F(UnixPeerTest, GivesNoPathForAFileThatWasReplacedOrDeleted) {
  const std::string program = CopyOfCat("workload");
  const base::UniqueFd fd = Spawn(program);
  auto peer = UnixPeer::FromSocket(fd.get());
  ASSERT_TRUE(peer.ok());
  ASSERT_EQ(unlink(program.c_str()), 0);
  EXPECT_EQ(*peer->ExecutablePath(), std::nullopt);
  CopyOfCat("workload");
  EXPECT_EQ(*peer->ExecutablePath(), std::nullopt) << "another file has the name now";
  CopyOfCat("workload (deleted)");
  EXPECT_EQ(*peer->ExecutablePath(), std::nullopt) << "what the kernel appends is no name";
  EXPECT_THAT(SelectorsOf(*std::move(peer)), Each(Not(StartsWith("unix:path:"))));
}

TEST_F(UnixPeerTest, GivesNoPathForAProcessWithMountsOfItsOwn) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root, to make a mount namespace";
  }
  const std::string program = CopyOfCat("workload");
  const base::UniqueFd fd = Spawn(program, [] {
    if (unshare(CLONE_NEWNS) != 0) {
      _exit(1);
    }
  });
  auto peer = UnixPeer::FromSocket(fd.get());
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(*peer->ExecutablePath(), std::nullopt)
      << "there, a name may stand for any file: a bind mount is all it takes";
}

TEST_F(UnixPeerTest, RefusesWhatIsNoUnixSocket) {
  std::array<int, 2> fds{};
  ASSERT_EQ(pipe2(fds.data(), O_CLOEXEC), 0);
  EXPECT_TRUE(absl::IsUnauthenticated(UnixPeer::FromSocket(fds[0]).status()));
  EXPECT_TRUE(absl::IsUnauthenticated(UnixPeer::FromSocket(-1).status()));
  const base::UniqueFd tcp(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(absl::IsUnauthenticated(UnixPeer::FromSocket(tcp.get()).status()));
  close(fds[0]);
  close(fds[1]);
}

// Processes that come and go: none may ever be taken for another that got its PID.
TEST_F(UnixPeerTest, NeverNamesTheExecutableOfAProcessThatEnded) {
  const std::string program = CopyOfCat("workload");
  for (int i = 0; i < 50; ++i) {
    const base::UniqueFd fd = Spawn(program);
    auto peer = UnixPeer::FromSocket(fd.get());
    ASSERT_TRUE(peer.ok());
    End();
    const pid_t other = fork();
    if (other == 0) {
      pause();
      _exit(0);
    }
    EXPECT_FALSE(peer->ExecutablePath().ok());
    kill(other, SIGKILL);
    waitpid(other, nullptr, 0);
  }
}

}  // namespace
}  // namespace postern::attest
