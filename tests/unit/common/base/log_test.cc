// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "tests/testing/temp_dir.h"

namespace postern::base {
namespace {

using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Points standard error to a file while it lives.
class StderrToFile {
 public:
  StderrToFile() : saved_(dup(STDERR_FILENO)) {
    const int file =
        open(dir_.Path("log").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    dup2(file, STDERR_FILENO);
    close(file);
  }
  ~StderrToFile() { Stop(); }

  std::vector<std::string> Stop() {
    if (saved_ >= 0) {
      dup2(saved_, STDERR_FILENO);
      close(saved_);
      saved_ = -1;
    }
    return absl::StrSplit(ReadFile(dir_.Path("log")).value(), '\n', absl::SkipEmpty());
  }

 private:
  testing::TempDir dir_;
  int saved_;
};

std::vector<std::string> LinesOf(LogFormat format, std::string_view message) {
  StderrToFile capture;
  EXPECT_TRUE(InitLogging("info", format).ok());
  spdlog::info("{}", message);
  FlushLogging();
  return capture.Stop();
}

TEST(LogTest, WritesOneReadableTextLineForEachEvent) {
  const std::vector<std::string> lines = LinesOf(LogFormat::kText, "listening on 127.0.0.1:15001");
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], ContainsRegex("^20[0-9][0-9]-[0-9-]+T[0-9:]+\\.[0-9][0-9][0-9]Z info "));
  EXPECT_THAT(lines[0], EndsWith(" listening on 127.0.0.1:15001"));
}

TEST(LogTest, NeverLetsAMessageBreakItsTextLine) {
  const std::vector<std::string> lines = LinesOf(LogFormat::kText, "peer \x1b[2J\nfake line");
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], EndsWith(R"(peer \x1b[2J\x0afake line)"));
}

TEST(LogTest, NeverLetsAMessageBreakItsJsonObject) {
  const std::vector<std::string> lines = LinesOf(LogFormat::kJson, "x\",\"level\":\"error\\\n\xff");
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], HasSubstr(R"("level":"info","message":")"));
  EXPECT_THAT(lines[0], EndsWith(R"("message":"x\",\"level\":\"error\\\n\ufffd"})"));
}

TEST(LogTest, ChangesTheLevelWhileRunning) {
  StderrToFile capture;
  ASSERT_TRUE(InitLogging("warn", LogFormat::kText).ok());
  EXPECT_EQ(LogLevel(), "warn");
  spdlog::info("hidden");
  ASSERT_TRUE(SetLogLevel("debug").ok());
  EXPECT_EQ(LogLevel(), "debug");
  spdlog::debug("shown");
  ASSERT_TRUE(SetLogLevel("off").ok());
  EXPECT_EQ(LogLevel(), "off");
  spdlog::error("silent");
  FlushLogging();
  const std::vector<std::string> lines = capture.Stop();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], EndsWith(" debug shown"));
}

TEST(LogTest, RefusesAnUnknownLevelAndNamesTheKnownOnes) {
  const absl::Status status = InitLogging("loud", LogFormat::kText);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("trace, debug, info, warn, error, off"));
  EXPECT_EQ(SetLogLevel("INFO").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SetLogLevel("").code(), absl::StatusCode::kInvalidArgument);
}

TEST(LogTest, StillLogsAfterTheBackgroundThreadStopped) {
  StderrToFile capture;
  ASSERT_TRUE(InitLogging("info", LogFormat::kText).ok());
  FlushLogging();
  FlushLogging();
  spdlog::info("late");
  const std::vector<std::string> lines = capture.Stop();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], EndsWith(" info late"));
}

// Standard error is a pipe that nobody reads: logging must not block, and must count what it loses.
TEST(LogTest, DropsAndCountsLinesInsteadOfBlockingOnASlowReader) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const int saved = dup(STDERR_FILENO);
  dup2(pipe_fds[1], STDERR_FILENO);
  close(pipe_fds[1]);
  const uint64_t dropped_before = DroppedLogLines();
  ASSERT_TRUE(InitLogging("info", LogFormat::kText).ok());
  const std::string line(1000, 'x');
  for (int i = 0; i < 20'000; ++i) {
    spdlog::info("{}", line);
  }
  const uint64_t dropped = DroppedLogLines() - dropped_before;
  // The line that blocks goes out once the reader reads; the ones behind it go nowhere.
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDERR_FILENO);
  close(nowhere);
  std::thread reader([fd = pipe_fds[0]] {
    std::vector<char> buffer(65536);
    while (read(fd, buffer.data(), buffer.size()) > 0) {
    }
    close(fd);
  });
  FlushLogging();
  dup2(saved, STDERR_FILENO);
  close(saved);
  reader.join();
  EXPECT_GE(dropped, 20'000U - 512U - 200U);
  EXPECT_GE(DroppedLogLines() - dropped_before, dropped);
}

}  // namespace
}  // namespace postern::base
