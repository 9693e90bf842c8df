// SPDX-License-Identifier: Apache-2.0
#include "common/base/directory_lock.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <string>

#include "tests/testing/temp_dir.h"

namespace postern::base {
namespace {

TEST(DirectoryLockTest, IsRefusedToASecondHolderByName) {
  const testing::TempDir dir;
  std::optional<DirectoryLock> first = DirectoryLock::Take(dir.path()).value();
  const auto second = DirectoryLock::Take(dir.path());
  ASSERT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_NE(second.status().message().find(dir.path()), std::string::npos);
  first.reset();
  EXPECT_TRUE(DirectoryLock::Take(dir.path()).ok());
}

TEST(DirectoryLockTest, GoesWithAProcessThatWasKilled) {
  const testing::TempDir dir;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = DirectoryLock::Take(dir.path());
    const char taken = lock.ok() ? 'y' : 'n';
    if (write(ready[1], &taken, 1) == 1) {
      pause();
    }
    _exit(1);
  }
  char taken = 0;
  ASSERT_EQ(read(ready[0], &taken, 1), 1);
  EXPECT_EQ(taken, 'y');
  EXPECT_TRUE(absl::IsFailedPrecondition(DirectoryLock::Take(dir.path()).status()));
  kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(DirectoryLock::Take(dir.path()).ok());
  close(ready[0]);
  close(ready[1]);
}

TEST(DirectoryLockTest, NeedsNoRightToWrite) {
  const testing::TempDir dir;
  ASSERT_EQ(chmod(dir.path().c_str(), 0500), 0);
  EXPECT_TRUE(DirectoryLock::Take(dir.path()).ok());
  ASSERT_EQ(chmod(dir.path().c_str(), 0700), 0);
}

TEST(DirectoryLockTest, WantsADirectory) {
  const testing::TempDir dir;
  EXPECT_TRUE(absl::IsInternal(DirectoryLock::Take(dir.path() + "/nothing").status()));
  EXPECT_TRUE(absl::IsInternal(DirectoryLock::Take(dir.Write("file", "")).status()));
}

}  // namespace
}  // namespace postern::base
