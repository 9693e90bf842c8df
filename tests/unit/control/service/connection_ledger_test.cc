// SPDX-License-Identifier: Apache-2.0
#include "control/service/connection_ledger.h"

#include <gtest/gtest.h>

#include <set>

namespace postern::service {
namespace {

using Verdict = ConnectionLedger::Verdict;

base::IpAddress Ip(std::string_view text) {
  return *base::IpAddress::Parse(text);
}

// Descriptors and inodes as the test says; nothing is opened.
class ConnectionLedgerTest : public ::testing::Test {
 protected:
  Verdict Admit(int fd, ino_t inode, std::string_view source) {
    const Verdict verdict = ledger_.Admit(fd, inode, Ip(source));
    if (verdict == Verdict::kAdmitted) {
      open_.insert({fd, inode});
    }
    return verdict;
  }

  std::set<std::pair<int, ino_t>> open_;
  ConnectionLedger ledger_{{.total = 4, .per_source = 2}, [this](int fd, ino_t inode) {
                             return open_.contains({fd, inode});
                           }};
};

TEST_F(ConnectionLedgerTest, BoundsAllAndThoseOfOneSource) {
  EXPECT_EQ(Admit(10, 1, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(11, 2, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(12, 3, "198.18.0.1"), Verdict::kTooManyOfSource);
  EXPECT_EQ(Admit(12, 3, "198.18.0.2"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(13, 4, "198.18.0.3"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(14, 5, "198.18.0.4"), Verdict::kTooMany);
  EXPECT_EQ(ledger_.open(), 4U);
}

TEST_F(ConnectionLedgerTest, AHostsIpv6AddressesAreOneSource) {
  EXPECT_EQ(Admit(10, 1, "fd00:5b:1::1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(11, 2, "fd00:5b:1::2"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(12, 3, "fd00:5b:1:0:ffff::3"), Verdict::kTooManyOfSource);
  EXPECT_EQ(Admit(12, 3, "fd00:5b:1:1::3"), Verdict::kAdmitted);
}

TEST_F(ConnectionLedgerTest, ASweepForgetsWhatHasEndedAlsoWhenItsNumberIsInUseAgain) {
  EXPECT_EQ(Admit(10, 1, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(11, 2, "198.18.0.1"), Verdict::kAdmitted);
  open_.erase({10, 1});
  open_.insert({10, 99});  // a file of somebody else's now
  EXPECT_EQ(Admit(12, 3, "198.18.0.1"), Verdict::kTooManyOfSource) << "nobody has looked yet";
  ledger_.Sweep();
  EXPECT_EQ(ledger_.open(), 1U);
  EXPECT_EQ(Admit(12, 3, "198.18.0.1"), Verdict::kAdmitted);
  ledger_.Sweep();
  EXPECT_EQ(ledger_.open(), 2U) << "those that are open stay";
}

TEST_F(ConnectionLedgerTest, ANumberThatComesAgainEndsTheConnectionThatHadIt) {
  EXPECT_EQ(Admit(10, 1, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(11, 2, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(Admit(10, 3, "198.18.0.1"), Verdict::kAdmitted);
  EXPECT_EQ(ledger_.open(), 2U);
}

}  // namespace
}  // namespace postern::service
