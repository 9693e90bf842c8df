// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/readable.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/unique_fd.h"
#include "proxy/net/errno_status.h"
#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

class ReadableTest : public ::testing::Test {
 protected:
  ReadableTest() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    reading_.Reset(ends[0]);
    writing_.Reset(ends[1]);
    loop_ = *Loop::Create();
  }

  base::UniqueFd reading_, writing_;
  std::unique_ptr<Loop> loop_;
};

TEST_F(ReadableTest, CallsWhileThereIsSomethingAndAtTheEnd) {
  int calls = 0;
  std::string got;
  bool ended = false;
  auto watched = Readable::Watch(*loop_, reading_.get(), [&] {
    char byte = 0;
    ++calls;
    const ssize_t count = read(reading_.get(), &byte, 1);
    if (count == 1) {
      got += byte;
    }
    ended = count == 0;
    if (ended) {
      loop_->Stop();
    }
  });
  ASSERT_TRUE(watched.ok());
  RunFor(*loop_, std::chrono::milliseconds(20));
  EXPECT_EQ(calls, 0);
  ASSERT_EQ(write(writing_.get(), "ab", 2), 2);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return got == "ab"; }));
  writing_.Reset();
  loop_->Run();
  EXPECT_TRUE(ended);
}

TEST_F(ReadableTest, MayGoInsideItsOwnCallback) {
  std::unique_ptr<Readable> readable;
  int calls = 0;
  readable = *Readable::Watch(*loop_, reading_.get(), [&] {
    ++calls;
    readable.reset();
  });
  ASSERT_EQ(write(writing_.get(), "a", 1), 1);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return calls == 1; }));
  RunFor(*loop_, std::chrono::milliseconds(20));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(loop_->OpenHandles(), 0U);
}

TEST_F(ReadableTest, RefusesWhatIsNoDescriptor) {
  EXPECT_FALSE(Readable::Watch(*loop_, -1, [] {}).ok());
}

TEST(ErrnoStatusTest, KeepsTheErrnoAlsoInAnotherStatus) {
  const absl::Status made = ErrnoStatus(ECONNREFUSED, "connect");
  EXPECT_EQ(ErrnoOf(made), ECONNREFUSED);
  EXPECT_EQ(ErrnoOf(absl::UnavailableError("connect")), 0);
  const absl::Status other =
      Reworded(made, absl::StatusCode::kUnavailable, "198.18.1.2:80: connect");
  EXPECT_EQ(ErrnoOf(other), ECONNREFUSED);
  EXPECT_EQ(ErrnoOf(absl::OkStatus()), 0);
}

}  // namespace
}  // namespace postern::net
