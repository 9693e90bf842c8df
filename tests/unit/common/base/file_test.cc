// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/testing/temp_dir.h"

namespace postern::base {
namespace {

using ::testing::HasSubstr;

mode_t ModeOf(const std::string& path) {
  struct stat facts {};
  EXPECT_EQ(stat(path.c_str(), &facts), 0) << path;
  return facts.st_mode & 07777U;
}

size_t FilesIn(const std::string& path) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path), {}));
}

TEST(ReadFileTest, ReturnsTheWholeContent) {
  const testing::TempDir dir;
  const std::string content("a\0b\n", 4);
  EXPECT_EQ(*ReadFile(dir.Write("f", content)), content);
  EXPECT_EQ(*ReadFile(dir.Write("empty", "")), "");
  const std::string large(300'000, 'x');
  EXPECT_EQ(*ReadFile(dir.Write("large", large)), large);
}

TEST(ReadFileTest, ReadsFilesThatAnnounceNoSize) {
  const absl::StatusOr<std::string> status = ReadFile("/proc/self/status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_THAT(*status, HasSubstr("Name:"));
}

TEST(ReadFileTest, NamesAMissingFile) {
  const absl::Status status = ReadFile("/nonexistent/file").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/file"));
  EXPECT_FALSE(ReadFile("").ok());
  EXPECT_FALSE(ReadFile(std::string("/etc/passwd\0x", 13)).ok());
}

TEST(ReadFileTest, RefusesAFileAboveTheLimit) {
  const testing::TempDir dir;
  const std::string path = dir.Write("f", std::string(100, 'x'));
  EXPECT_TRUE(ReadFile(path, 100).ok());
  EXPECT_EQ(ReadFile(path, 99).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile("/proc/self/status", 10).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(ReadFileTest, RefusesDirectoriesDevicesAndPipesWithoutWaiting) {
  const testing::TempDir dir;
  ASSERT_EQ(mkfifo(dir.Path("fifo").c_str(), 0600), 0);
  EXPECT_FALSE(ReadFile(dir.Path("fifo")).ok());
  EXPECT_FALSE(ReadFile(dir.path()).ok());
  EXPECT_FALSE(ReadFile("/dev/zero").ok());
}

TEST(ReadSecretFileTest, TakesAPrivateFile) {
  const testing::TempDir dir;
  EXPECT_EQ(*ReadSecretFile(dir.Write("key", "secret", 0600)), "secret");
  EXPECT_EQ(*ReadSecretFile(dir.Write("key2", "secret", 0400)), "secret");
}

TEST(ReadSecretFileTest, RefusesAFileThatOthersMayReadOrWrite) {
  const testing::TempDir dir;
  for (const int mode : {0640, 0604, 0660, 0620, 0602, 0644}) {
    const absl::Status status = ReadSecretFile(dir.Write("key", "secret", mode)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << std::oct << mode;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret"))) << std::oct << mode;
  }
}

TEST(ReadSecretFileTest, FollowsASymbolicLinkOnlyWhenAllowed) {
  const testing::TempDir dir;
  dir.Write("key", "secret");
  std::filesystem::create_symlink("key", dir.Path("link"));
  const absl::Status refused = ReadSecretFile(dir.Path("link")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("symbolic link"));
  EXPECT_EQ(*ReadSecretFile(dir.Path("link"), /*allow_symlink=*/true), "secret");
  dir.Write("key", "secret", 0644);
  EXPECT_FALSE(ReadSecretFile(dir.Path("link"), /*allow_symlink=*/true).ok());
}

TEST(ReadSecretFileTest, RefusesAFileOfAnotherUser) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give a file away";
  }
  const testing::TempDir dir;
  const std::string path = dir.Write("key", "secret");
  ASSERT_EQ(chown(path.c_str(), 65534, 65534), 0);
  EXPECT_EQ(ReadSecretFile(path).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST(WriteFileAtomicallyTest, WritesContentAndModeWhateverTheUmask) {
  const testing::TempDir dir;
  const mode_t before = umask(0077);
  ASSERT_TRUE(WriteFileAtomically(dir.Path("f"), "new", 0644).ok());
  umask(before);
  EXPECT_EQ(*ReadFile(dir.Path("f")), "new");
  EXPECT_EQ(ModeOf(dir.Path("f")), 0644U);
}

TEST(WriteFileAtomicallyTest, ReplacesAFileAndLeavesNothingElse) {
  const testing::TempDir dir;
  const std::string path = dir.Write("f", "old", 0644);
  ASSERT_TRUE(WriteFileAtomically(path, std::string(100'000, 'n'), 0600).ok());
  EXPECT_EQ(ReadFile(path)->size(), 100'000U);
  EXPECT_EQ(ModeOf(path), 0600U);
  EXPECT_EQ(FilesIn(dir.path()), 1U);
}

TEST(WriteFileAtomicallyTest, KeepsTheOldContentForAReaderThatHasItOpen) {
  const testing::TempDir dir;
  const std::string path = dir.Write("f", "old");
  std::filesystem::create_hard_link(path, dir.Path("old inode"));
  ASSERT_TRUE(WriteFileAtomically(path, "new", 0600).ok());
  EXPECT_EQ(*ReadFile(dir.Path("old inode")), "old");
}

TEST(WriteFileAtomicallyTest, LeavesNoTemporaryFileWhenItFails) {
  const testing::TempDir dir;
  std::filesystem::create_directory(dir.Path("d"));
  std::filesystem::create_directory(dir.Path("d/inside"));
  EXPECT_FALSE(WriteFileAtomically(dir.Path("d"), "x", 0600).ok());
  EXPECT_EQ(FilesIn(dir.path()), 1U);
  EXPECT_EQ(WriteFileAtomically(dir.Path("none/f"), "x", 0600).code(), absl::StatusCode::kNotFound);
}

TEST(WriteFileAtomicallyTest, WritesIntoTheWorkingDirectory) {
  const testing::TempDir dir;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  EXPECT_TRUE(WriteFileAtomically("bare", "x", 0600).ok());
  std::filesystem::current_path(before);
  EXPECT_EQ(*ReadFile(dir.Path("bare")), "x");
}

TEST(EnsurePrivateDirectoryTest, MakesAMissingDirectoryPrivate) {
  const testing::TempDir dir;
  ASSERT_TRUE(EnsurePrivateDirectory(dir.Path("state")).ok());
  EXPECT_EQ(ModeOf(dir.Path("state")), 0700U);
  EXPECT_TRUE(EnsurePrivateDirectory(dir.Path("state")).ok());
  EXPECT_TRUE(EnsurePrivateDirectory(dir.Path("state/")).ok());
}

TEST(EnsurePrivateDirectoryTest, RefusesOneThatIsOpenToOthers) {
  const testing::TempDir dir;
  for (const int mode : {0710, 0701, 0755, 0770}) {
    std::filesystem::create_directory(dir.Path("state"));
    ASSERT_EQ(chmod(dir.Path("state").c_str(), static_cast<mode_t>(mode)), 0);
    EXPECT_EQ(EnsurePrivateDirectory(dir.Path("state")).code(), absl::StatusCode::kPermissionDenied)
        << std::oct << mode;
  }
}

TEST(EnsurePrivateDirectoryTest, RefusesAFileAndAMissingParent) {
  const testing::TempDir dir;
  EXPECT_FALSE(EnsurePrivateDirectory(dir.Write("f", "")).ok());
  EXPECT_EQ(EnsurePrivateDirectory(dir.Path("none/state")).code(), absl::StatusCode::kNotFound);
}

TEST(EnsurePrivateDirectoryTest, RefusesOneOfAnotherUser) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give a directory away";
  }
  const testing::TempDir dir;
  std::filesystem::create_directory(dir.Path("state"));
  ASSERT_EQ(chmod(dir.Path("state").c_str(), 0700), 0);
  ASSERT_EQ(chown(dir.Path("state").c_str(), 65534, 65534), 0);
  EXPECT_EQ(EnsurePrivateDirectory(dir.Path("state")).code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace postern::base
