// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/backoff.h"

#include <algorithm>
#include <memory>
#include <random>

namespace postern::identity {
namespace {

constexpr int kMostDoublings = 16;  // far past kLongest, far from overflow

}  // namespace

RandomFraction SystemRandom() {
  auto engine = std::make_shared<std::mt19937_64>(std::random_device{}());
  return [engine] { return std::uniform_real_distribution<double>(0.0, 1.0)(*engine); };
}

absl::Duration Backoff::Next(absl::Duration cap) {
  const absl::Duration grown = kFirst * (1 << std::min(failures_, kMostDoublings));
  ++failures_;
  const absl::Duration whole = std::min({grown, cap, kLongest});
  return std::max(whole * (0.5 + 0.5 * random_()), kShortest);
}

}  // namespace postern::identity
