// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/file_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "tests/testing/temp_dir.h"
#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class FileWatchTest : public ::testing::Test {
 protected:
  void Watch(const std::string& name) {
    watch_ =
        std::make_unique<FileWatch>(*loop_, std::vector{dir_.Path(name)}, [this] { ++calls_; });
    ASSERT_TRUE(watch_->Start().ok());
  }
  // Whether what was just done led to a call. There is no timer that could.
  bool Called() {
    const int before = std::exchange(seen_, calls_ + 1);
    return RunUntil(*loop_, [&] { return calls_ > before; }) && (seen_ = calls_) > before;
  }
  bool StaysQuiet() {
    RunFor(*loop_, FileWatch::kSettle * 4);
    return calls_ == seen_;
  }
  // As a mounted secret of Kubernetes: file -> ..data/file, ..data -> a directory of one version.
  void PutVersion(const std::string& version) {
    fs::create_directory(dir_.Path(version));
    dir_.Write(version + "/svid.pem", version);
    fs::create_directory_symlink(version, dir_.Path("..data_tmp"));
    fs::rename(dir_.Path("..data_tmp"), dir_.Path("..data"));
  }

  // Below a directory of its own: canonical, so that places can be compared.
  const testing::TempDir dir_;
  std::unique_ptr<Loop> loop_ = Loop::Create().value();
  int calls_ = 0;
  int seen_ = 0;
  std::unique_ptr<FileWatch> watch_;
};

TEST_F(FileWatchTest, SeesAFileWrittenReplacedAndRemoved) {
  dir_.Write("a", "1");
  Watch("a");
  EXPECT_TRUE(StaysQuiet());
  dir_.Write("a", "2");
  EXPECT_TRUE(Called());
  dir_.Write("b", "3");
  fs::rename(dir_.Path("b"), dir_.Path("a"));
  EXPECT_TRUE(Called());
  fs::remove(dir_.Path("a"));
  EXPECT_TRUE(Called());
  dir_.Write("a", "4");
  EXPECT_TRUE(Called());
}

TEST_F(FileWatchTest, SeesEverySwapOfASymlinkOnTheWay) {
  PutVersion("..v1");
  fs::create_symlink("..data/svid.pem", dir_.Path("svid.pem"));
  Watch("svid.pem");
  for (const char* version : {"..v2", "..v3", "..v4"}) {
    PutVersion(version);
    EXPECT_TRUE(Called()) << version;
  }
  fs::remove_all(dir_.Path("..v1"));  // watched once, not any more
  fs::remove_all(dir_.Path("..v2"));
  EXPECT_TRUE(StaysQuiet());
  dir_.Write("..v4/svid.pem", "in place");
  EXPECT_TRUE(Called());
}

TEST_F(FileWatchTest, SeesAFileComeWhoseDirectoriesAreMissing) {
  Watch("x/y/file");
  fs::create_directory(dir_.Path("x"));
  EXPECT_TRUE(Called());
  fs::create_directory(dir_.Path("x/y"));
  EXPECT_TRUE(Called());
  dir_.Write("x/y/file", "1");
  EXPECT_TRUE(Called());
  fs::rename(dir_.Path("x/y"), dir_.Path("x/z"));
  EXPECT_TRUE(Called()) << "its directory went";
  fs::create_directory(dir_.Path("x/y"));
  EXPECT_TRUE(Called());
}

TEST_F(FileWatchTest, TakesNoNoticeOfNeighbours) {
  dir_.Write("a", "1");
  Watch("a");
  for (int i = 0; i < 200; ++i) {
    dir_.Write("neighbour" + std::to_string(i), "x");
  }
  EXPECT_TRUE(StaysQuiet());
}

TEST_F(FileWatchTest, CallsOnceForABurst) {
  dir_.Write("a", "1");
  Watch("a");
  for (int i = 0; i < 200; ++i) {
    dir_.Write("a", std::to_string(i));
  }
  EXPECT_TRUE(Called());
  EXPECT_TRUE(StaysQuiet());
  EXPECT_EQ(calls_, 1);
}

TEST_F(FileWatchTest, LeavesNothingOnTheLoop) {
  dir_.Write("a", "1");
  watch_ = std::make_unique<FileWatch>(*loop_, std::vector{dir_.Path("a")},
                                       [this] { loop_->Defer([this] { watch_.reset(); }); });
  ASSERT_TRUE(watch_->Start().ok());
  dir_.Write("a", "2");
  EXPECT_TRUE(RunUntil(*loop_, [&] { return watch_ == nullptr; }));
  RunFor(*loop_, std::chrono::milliseconds(1));
  EXPECT_EQ(loop_->OpenHandles(), 0U);
}

TEST_F(FileWatchTest, SaysWhyThereAreNoEvents) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  FileWatch watch(*loop_, {dir_.Path("a")}, [] {});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status status = watch.Start();
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST_F(FileWatchTest, PlacesAreTheSymlinksAndTheFile) {
  PutVersion("..v1");
  fs::create_symlink("..data/svid.pem", dir_.Path("svid.pem"));
  const std::string root = fs::canonical(dir_.path());
  EXPECT_THAT(PlacesOnTheWay(root + "//./svid.pem"),
              UnorderedElementsAre(Pair(root, "svid.pem"), Pair(root, "..data"),
                                   Pair(root + "/..v1", "svid.pem")));
  fs::create_symlink(root + "/..v1/svid.pem", dir_.Path("absolute"));
  EXPECT_THAT(PlacesOnTheWay(root + "/absolute"),
              UnorderedElementsAre(Pair(root, "absolute"), Pair(root + "/..v1", "svid.pem")));
  EXPECT_THAT(PlacesOnTheWay(root + "/missing/deeper"),
              UnorderedElementsAre(Pair(root, "missing")));
  EXPECT_THAT(PlacesOnTheWay("relative"), UnorderedElementsAre(Pair(".", "relative")));
}

TEST_F(FileWatchTest, ALoopOfSymlinksEnds) {
  fs::create_symlink("b", dir_.Path("a"));
  fs::create_symlink("a", dir_.Path("b"));
  EXPECT_THAT(PlacesOnTheWay(fs::canonical(dir_.path()).string() + "/a"),
              Contains(Pair(fs::canonical(dir_.path()).string(), "b")));
}

}  // namespace
}  // namespace postern::net
