// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/drainer.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace postern::session {
namespace {

using std::chrono::milliseconds;

class DrainerTest : public ::testing::Test {
 protected:
  DrainerTest()
      : loop_(net::Loop::Create().value()),
        drainer_(*loop_, {[this] { log_ += "stop "; },
                          [this] {
                            log_ += "end ";
                            open_ = 0;
                            drainer_.OnSessionGone();
                          },
                          [this] { return open_; }}) {}

  void Begin(milliseconds delay, milliseconds deadline) {
    drainer_.Begin(delay, deadline, [this] {
      log_ += "done ";
      loop_->Stop();
    });
  }

  std::unique_ptr<net::Loop> loop_;
  size_t open_ = 1;
  std::string log_;
  Drainer drainer_;
};

TEST_F(DrainerTest, StopsInboundAfterTheDelayAndIsDoneWithTheLastConnection) {
  loop_->Post([this] { Begin(milliseconds(1), milliseconds(60000)); });
  net::Timer gone(*loop_, [this] {
    EXPECT_EQ(log_, "stop ");
    open_ = 0;
    drainer_.OnSessionGone();
  });
  loop_->Post([&gone] { gone.Start(milliseconds(30)); });
  loop_->Run();
  EXPECT_EQ(log_, "stop done ");
}

TEST_F(DrainerTest, GoesOnAcceptingDuringTheDelayThoughNothingIsOpen) {
  open_ = 0;
  loop_->Post([this] {
    Begin(milliseconds(20), milliseconds(60000));
    drainer_.OnSessionGone();
    EXPECT_EQ(log_, "");
  });
  loop_->Run();
  EXPECT_EQ(log_, "stop done ");
}

TEST_F(DrainerTest, EndsTheRestAtTheDeadline) {
  loop_->Post([this] { Begin(milliseconds(1), milliseconds(20)); });
  loop_->Run();
  EXPECT_EQ(log_, "stop end done ");
}

TEST_F(DrainerTest, ASecondCallShortensButNeverLengthens) {
  loop_->Post([this] {
    Begin(milliseconds(60000), milliseconds(20));
    drainer_.Begin(milliseconds(60000), milliseconds(90000), [this] { log_ += "second "; });
  });
  loop_->Run();
  EXPECT_EQ(log_, "stop end done second ");
}

// What the application has dialled since, as outbound goes on.
TEST_F(DrainerTest, ACallAfterTheEndWaitsForWhatIsOpenAgain) {
  open_ = 0;
  loop_->Post([this] { Begin(milliseconds(0), milliseconds(60000)); });
  loop_->Run();
  ASSERT_EQ(log_, "stop done ");
  open_ = 1;
  net::Timer gone(*loop_, [this] {
    EXPECT_EQ(log_, "stop done ");
    open_ = 0;
    drainer_.OnSessionGone();
  });
  loop_->Post([&] {
    Begin(milliseconds(0), milliseconds(60000));
    gone.Start(milliseconds(30));
  });
  loop_->Run();
  EXPECT_EQ(log_, "stop done done ");
  open_ = 1;
  loop_->Post([this] { Begin(milliseconds(0), milliseconds(20)); });
  loop_->Run();
  EXPECT_EQ(log_, "stop done done end done ") << "and no longer than until the deadline";
}

TEST_F(DrainerTest, ACallAfterTheEndIsDoneAtOnce) {
  loop_->Post([this] { Begin(milliseconds(0), milliseconds(1)); });
  loop_->Run();
  drainer_.Begin(milliseconds(1000), milliseconds(1000), [this] { log_ += "again "; });
  EXPECT_EQ(log_, "stop end done again ");
}

}  // namespace
}  // namespace postern::session
