// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/base/bytes.h"

namespace postern::base {

// The 128 secret bits of a SipHash.
struct SipKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;

  // From the kernel's random numbers.
  static SipKey Random();
};

// SipHash-2-4 (Aumasson and Bernstein, 2012): a hash whose collisions cannot be found without its
// key, for tables whose keys are chosen by strangers. Any thread.
uint64_t SipHash(const SipKey& key, ByteSpan bytes);

}  // namespace postern::base
