// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/loop.h"

#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include "tests/unit/proxy/net/net_testing.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;

class LoopTest : public ::testing::Test {
 protected:
  std::unique_ptr<Loop> loop_ = Loop::Create().value();
};

TEST_F(LoopTest, RunsPostedTasksInOrder) {
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(loop_->Post([&seen, i] { seen.push_back(i); }));
  }
  loop_->Post([this] { loop_->Stop(); });
  loop_->Run();
  ASSERT_EQ(seen.size(), 100U);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(seen[static_cast<size_t>(i)], i);
  }
}

TEST_F(LoopTest, TakesPostsFromManyThreadsEachInItsOwnOrder) {
  constexpr int kThreads = 4;
  constexpr int kEach = 2000;
  std::vector<std::vector<int>> seen(kThreads);
  int total = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &seen, &total] {
      for (int i = 0; i < kEach; ++i) {
        EXPECT_TRUE(loop_->Post([this, t, i, &seen, &total] {
          EXPECT_TRUE(loop_->IsInLoopThread());
          seen[static_cast<size_t>(t)].push_back(i);
          if (++total == kThreads * kEach) {
            loop_->Stop();
          }
        }));
      }
      EXPECT_FALSE(loop_->IsInLoopThread());
    });
  }
  loop_->Run();
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::vector<int>& order : seen) {
    ASSERT_EQ(order.size(), static_cast<size_t>(kEach));
    for (int i = 0; i < kEach; ++i) {
      EXPECT_EQ(order[static_cast<size_t>(i)], i);
    }
  }
}

TEST_F(LoopTest, StopsFromAnotherThread) {
  std::thread other([this] { loop_->Stop(); });
  loop_->Run();
  other.join();
}

TEST_F(LoopTest, RunsAgainAfterAStop) {
  int runs = 0;
  for (int i = 0; i < 2; ++i) {
    loop_->Post([this, &runs] {
      ++runs;
      loop_->Stop();
    });
    loop_->Run();
  }
  EXPECT_EQ(runs, 2);
}

TEST_F(LoopTest, DestroysUnrunTasksWithTheLoop) {
  const auto token = std::make_shared<int>(1);
  ASSERT_TRUE(loop_->Post([token] { ADD_FAILURE() << "must not run"; }));
  loop_->Defer([token] { ADD_FAILURE() << "must not run"; });
  EXPECT_EQ(token.use_count(), 3);
  loop_.reset();
  EXPECT_EQ(token.use_count(), 1);
}

TEST_F(LoopTest, RefusesPostsWhileItCloses) {
  Loop* raw = loop_.get();
  bool answer = true;
  struct PostsWhenDestroyed {
    ~PostsWhenDestroyed() {
      *answer = loop->Post([] {});
    }
    Loop* loop;
    bool* answer;
  };
  auto poster = std::make_shared<PostsWhenDestroyed>(PostsWhenDestroyed{raw, &answer});
  loop_->Post([poster] {});
  poster.reset();
  loop_.reset();
  EXPECT_FALSE(answer);
}

TEST_F(LoopTest, DefersToTheEndOfTheTurnWithoutWaitingForInput) {
  std::vector<int> order;
  Timer timer(*loop_, [&] {
    loop_->Defer([&] {
      order.push_back(2);
      loop_->Defer([&] {
        order.push_back(3);
        loop_->Stop();
      });
    });
    order.push_back(1);
  });
  timer.Start(milliseconds(1));
  const auto begin = std::chrono::steady_clock::now();
  loop_->Run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST_F(LoopTest, CallsTheHandlerOfASignal) {
  int calls = 0;
  ASSERT_TRUE(loop_->OnSignal(SIGUSR1, [&] { ++calls; }).ok());
  kill(getpid(), SIGUSR1);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return calls == 1; }));
}

TEST_F(LoopTest, RefusesASignalThatCannotBeCaught) {
  EXPECT_FALSE(loop_->OnSignal(SIGKILL, [] {}).ok());
}

TEST_F(LoopTest, ClosesWithHandlesOpenAndTheirOwnersAlive) {
  auto timer = std::make_unique<Timer>(*loop_, [] {});
  timer->Start(milliseconds(1));
  Pair pair = Connect(*loop_);
  Collector collector;
  pair.client->SetHandler(&collector);
  pair.client->WantRead(true);
  EXPECT_EQ(loop_->OpenHandles(), 3U);
  loop_.reset();
  // What is left is dead but harmless.
  EXPECT_FALSE(timer->IsArmed());
  timer->Start(milliseconds(1));
  pair.client->WantWrite(true);
  pair.client.reset();
  timer.reset();
}

TEST(TimerTest, FiresOnceAndNotAgain) {
  auto loop = Loop::Create().value();
  int calls = 0;
  Timer timer(*loop, [&] { ++calls; });
  timer.Start(milliseconds(2));
  EXPECT_TRUE(timer.IsArmed());
  RunFor(*loop, milliseconds(30));
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(timer.IsArmed());
}

TEST(TimerTest, RepeatsUntilItIsStopped) {
  auto loop = Loop::Create().value();
  int calls = 0;
  Timer timer(*loop, [&] {
    if (++calls == 3) {
      timer.Stop();
    }
  });
  timer.StartRepeating(milliseconds(1));
  RunFor(*loop, milliseconds(50));
  EXPECT_EQ(calls, 3);
}

TEST(TimerTest, RearmsInsideItsOwnCallback) {
  auto loop = Loop::Create().value();
  int calls = 0;
  Timer timer(*loop, [&] {
    if (++calls < 5) {
      timer.Start(milliseconds(0));
    }
  });
  timer.Start(milliseconds(-5));  // the past is now
  RunFor(*loop, milliseconds(30));
  EXPECT_EQ(calls, 5);
}

TEST(TimerTest, MayBeDestroyedInsideItsOwnCallback) {
  auto loop = Loop::Create().value();
  const auto token = std::make_shared<int>(7);
  int seen = 0;
  std::unique_ptr<Timer> timer;
  timer = std::make_unique<Timer>(*loop, [&timer, &seen, token] {
    timer.reset();
    seen = *token;  // what the callback captured still lives
  });
  timer->Start(milliseconds(1));
  EXPECT_TRUE(RunUntil(*loop, [&] { return token.use_count() == 1; }));
  EXPECT_EQ(seen, 7);
  RunFor(*loop, milliseconds(1));
  EXPECT_EQ(loop->OpenHandles(), 0U);
}

TEST(TimerTest, KeepsTheTimeOfTheTurn) {
  auto loop = Loop::Create().value();
  const milliseconds before = loop->Now();
  RunFor(*loop, milliseconds(20));
  EXPECT_GE(loop->Now() - before, milliseconds(15));
}

}  // namespace
}  // namespace postern::net
