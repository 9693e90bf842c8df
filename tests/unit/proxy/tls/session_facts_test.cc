// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/session_facts.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace postern::tls {
namespace {

base::Sha256Digest Filled(uint8_t with) {
  base::Sha256Digest digest;
  digest.fill(with);
  return digest;
}

x509::HalfDigest Half(uint8_t with) {
  return x509::HalfOf(Filled(with));
}

SessionFacts Sample() {
  const absl::Time when = absl::FromUnixSeconds(1767225600);
  return {Filled(1),
          when + absl::Hours(1),
          {x509::SpiffeId::Parse("spiffe://example.org/ns/a/sa/b").value(),
           when - absl::Hours(1),
           when + absl::Hours(2),
           "00a1b2",
           Filled(2),
           {Filled(2), Filled(3), Filled(4)},
           Filled(5),
           {{Half(6), Half(7)}, {Half(8), Half(9)}}}};
}

std::optional<SessionFacts> Parse(const std::string& bytes) {
  return ParseSessionFacts(base::AsBytes(bytes));
}

TEST(SessionFactsTest, ComeBackAsTheyWere) {
  const SessionFacts facts = Sample();
  const std::optional<std::string> bytes = SerializeSessionFacts(facts);
  ASSERT_TRUE(bytes.has_value());
  EXPECT_LT(bytes->size(), 330U);
  const std::optional<SessionFacts> again = Parse(*bytes);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->binding, facts.binding);
  EXPECT_EQ(again->until, facts.until);
  EXPECT_EQ(again->peer.id, facts.peer.id);
  EXPECT_EQ(again->peer.not_before, facts.peer.not_before);
  EXPECT_EQ(again->peer.not_after, facts.peer.not_after);
  EXPECT_EQ(again->peer.serial, facts.peer.serial);
  EXPECT_EQ(again->peer.leaf_sha256, facts.peer.leaf_sha256);
  EXPECT_EQ(again->peer.chain_sha256, facts.peer.chain_sha256);
  EXPECT_EQ(again->peer.key_sha256, facts.peer.key_sha256);
  EXPECT_EQ(again->peer.links, facts.peer.links);
}

TEST(SessionFactsTest, TheLongestIdentityFits) {
  SessionFacts facts = Sample();
  facts.peer.id =
      x509::SpiffeId::Parse("spiffe://example.org/" + std::string(2048 - 21, 'a')).value();
  const std::optional<std::string> bytes = SerializeSessionFacts(facts);
  ASSERT_TRUE(bytes.has_value());
  EXPECT_LE(bytes->size(), kMaxSessionFacts);
  EXPECT_EQ(Parse(*bytes)->peer.id, facts.peer.id);
}

TEST(SessionFactsTest, WhatDoesNotFitIntoItsCountIsNotWritten) {
  SessionFacts facts = Sample();
  facts.peer.serial = std::string(256, 'a');
  EXPECT_FALSE(SerializeSessionFacts(facts).has_value());
  facts = Sample();
  facts.peer.chain_sha256.resize(17);
  EXPECT_FALSE(SerializeSessionFacts(facts).has_value());
  facts.peer.chain_sha256.clear();
  EXPECT_FALSE(SerializeSessionFacts(facts).has_value());
}

TEST(SessionFactsTest, NoPrefixAndNothingLongerIsTaken) {
  const std::string bytes = SerializeSessionFacts(Sample()).value();
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A shorter path makes another identity: the count in front of it tells.
    EXPECT_FALSE(Parse(bytes.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(Parse(bytes + "x").has_value());
  EXPECT_FALSE(Parse(bytes + std::string(kMaxSessionFacts, 'x')).has_value());
}

TEST(SessionFactsTest, OtherVersionsAreRefusedAndFalseCountsDoNoHarm) {
  const std::string bytes = SerializeSessionFacts(Sample()).value();
  for (int version = 0; version < 256; ++version) {
    std::string changed = bytes;
    changed[0] = static_cast<char>(version);
    EXPECT_EQ(Parse(changed).has_value(), version == 2) << version;
  }
  constexpr size_t kSerialCount = 1 + 32 + 3 * 8;
  constexpr size_t kChainCount = kSerialCount + 1 + 6 + 32;
  constexpr size_t kLinkCount = kChainCount + 1 + 3 * 32 + 32;
  constexpr size_t kIdCount = kLinkCount + 1 + 2 * 32;
  for (const size_t at : {kSerialCount, kChainCount, kLinkCount, kIdCount, kIdCount + 1}) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = bytes;
      if (changed[at] == static_cast<char>(value)) {
        continue;
      }
      changed[at] = static_cast<char>(value);
      const std::optional<SessionFacts> facts = Parse(changed);
      if (facts.has_value()) {  // the fields fall elsewhere, and fit there
        EXPECT_EQ(SerializeSessionFacts(*facts), changed) << at << " " << value;
      }
    }
  }
}

TEST(SessionFactsTest, AnyBytesAreJudgedWithoutHarm) {
  std::mt19937 random(7);
  const std::string bytes = SerializeSessionFacts(Sample()).value();
  size_t taken = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::string changed = bytes;
    for (unsigned i = 0; i <= random() % 4; ++i) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    changed.resize(changed.size() - (random() % 3 == 0 ? random() % changed.size() : 0));
    const std::optional<SessionFacts> facts = Parse(changed);
    if (facts.has_value()) {  // what is taken is written back as it was
      ++taken;
      ASSERT_EQ(SerializeSessionFacts(*facts), changed);
    }
    std::string noise(random() % 600, '\0');
    for (char& c : noise) {
      c = static_cast<char>(random());
    }
    noise[0] = '\x01';
    EXPECT_FALSE(Parse(noise).has_value());
  }
  EXPECT_GT(taken, 0U);
}

}  // namespace
}  // namespace postern::tls
