// SPDX-License-Identifier: Apache-2.0
#include "common/base/siphash.h"

#include <gtest/gtest.h>

#include <array>

namespace postern::base {
namespace {

// The key and the input of the paper's appendix A, and of the reference's vectors: bytes that count
// up.
constexpr SipKey kCounting = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

std::array<uint8_t, 64> Counting() {
  std::array<uint8_t, 64> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(i);
  }
  return bytes;
}

TEST(SipHashTest, GivesTheValuesOfTheReference) {
  const std::array<uint8_t, 64> bytes = Counting();
  const ByteSpan all(bytes);
  EXPECT_EQ(SipHash(kCounting, all.first(0)), 0x726fdb47dd0e0e31U);
  EXPECT_EQ(SipHash(kCounting, all.first(1)), 0x74f839c593dc67fdU);
  EXPECT_EQ(SipHash(kCounting, all.first(8)), 0x93f5f5799a932462U);
  EXPECT_EQ(SipHash(kCounting, all.first(15)), 0xa129ca6149be45e5U);
}

TEST(SipHashTest, DependsOnTheKey) {
  const std::array<uint8_t, 64> bytes = Counting();
  const SipKey one = SipKey::Random();
  const SipKey other = SipKey::Random();
  EXPECT_NE(SipHash(one, bytes), SipHash(other, bytes));
  EXPECT_EQ(SipHash(one, bytes), SipHash(one, bytes));
}

}  // namespace
}  // namespace postern::base
