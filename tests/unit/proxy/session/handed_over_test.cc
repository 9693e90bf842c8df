// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/handed_over.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "common/handover/handover.h"
#include "proxy/net/errno_status.h"

namespace postern::session {
namespace {

using base::CloseReason;

base::Failure FailureOf(CloseReason reason, absl::Status detail = absl::UnknownError("")) {
  base::Failure failure;
  failure.reason = reason;
  failure.detail = std::move(detail);
  return failure;
}

TEST(ErrnoForTest, IsTheSystemsOwnWhereTheNextHopFailed) {
  EXPECT_EQ(
      ErrnoFor(FailureOf(CloseReason::kConnectFailed, net::ErrnoStatus(ECONNREFUSED, "connect"))),
      ECONNREFUSED);
  EXPECT_EQ(
      ErrnoFor(FailureOf(CloseReason::kConnectFailed, net::ErrnoStatus(ENETUNREACH, "connect"))),
      ENETUNREACH);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kConnectFailed)), EHOSTUNREACH);
}

TEST(ErrnoForTest, TellsWhatWasLateFromWhatWasRefused) {
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kConnectTimeout)), ETIMEDOUT);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kLookupTimeout)), ETIMEDOUT);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kDestinationDenied)), EACCES);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kIdentityMismatch)), EACCES);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kNoIdentity)), EACCES);
  EXPECT_EQ(ErrnoFor(FailureOf(CloseReason::kOverload)), ECONNREFUSED);
}

class ConnectOutcomeTest : public ::testing::Test {
 protected:
  ConnectOutcomeTest() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    reading_.Reset(ends[0]);
    outcome_ = ConnectOutcome(base::UniqueFd(ends[1]));
  }

  base::UniqueFd reading_;
  ConnectOutcome outcome_;
};

TEST_F(ConnectOutcomeTest, IsToldOnce) {
  outcome_.Connected();
  outcome_.Failed(FailureOf(CloseReason::kReset));
  EXPECT_EQ(handover::ReadOutcome(reading_.get()), 0);
}

TEST_F(ConnectOutcomeTest, IsARefusalIfNothingWasTold) {
  EXPECT_EQ(handover::ReadOutcome(reading_.get()), std::nullopt);
  outcome_ = ConnectOutcome();
  EXPECT_EQ(handover::ReadOutcome(reading_.get()), ECONNREFUSED);
}

}  // namespace
}  // namespace postern::session
