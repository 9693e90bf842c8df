// SPDX-License-Identifier: Apache-2.0
#include "common/base/close_reason.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/base/failure.h"

namespace postern::base {
namespace {

TEST(CloseReasonTest, HasAUniqueTokenInMetricFormForEachReason) {
  std::set<std::string_view> seen;
  for (const CloseReason reason : kAllCloseReasons) {
    const std::string_view token = Token(reason);
    EXPECT_FALSE(token.empty());
    EXPECT_EQ(token.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string_view::npos)
        << token;
    EXPECT_TRUE(seen.insert(token).second) << token;
    EXPECT_FALSE(Describe(reason).empty()) << token;
  }
  EXPECT_EQ(seen.size(), kCloseReasonCount);
}

TEST(CloseReasonTest, FindsEachReasonByItsToken) {
  for (const CloseReason reason : kAllCloseReasons) {
    EXPECT_EQ(ParseCloseReason(Token(reason)), reason);
  }
  EXPECT_EQ(ParseCloseReason(""), std::nullopt);
  EXPECT_EQ(ParseCloseReason("OK"), std::nullopt);
  EXPECT_EQ(ParseCloseReason("ok "), std::nullopt);
}

TEST(CloseReasonTest, ShowsAValueOutsideTheListAsInternal) {
  EXPECT_EQ(Token(static_cast<CloseReason>(255)), "internal");
}

TEST(CloseReasonTest, SaysWhatToDoAboutAnUntrustedPeer) {
  EXPECT_EQ(Token(CloseReason::kPeerUntrusted), "peer_untrusted");
  EXPECT_FALSE(Mend(CloseReason::kPeerUntrusted).empty());
  EXPECT_TRUE(Mend(CloseReason::kOk).empty());
}

TEST(FailureTest, NamesDirectionsAndSides) {
  EXPECT_EQ(Token(Direction::kInbound), "inbound");
  EXPECT_EQ(Token(Direction::kOutbound), "outbound");
  EXPECT_EQ(Token(Side::kDownstream), "downstream");
  EXPECT_EQ(Token(Side::kUpstream), "upstream");
}

}  // namespace
}  // namespace postern::base
