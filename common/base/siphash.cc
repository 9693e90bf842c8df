// SPDX-License-Identifier: Apache-2.0
#include "common/base/siphash.h"

#include <sys/random.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>

#include "common/base/log.h"

namespace postern::base {
namespace {

constexpr size_t kWord = 8;

struct State {
  uint64_t v0, v1, v2, v3;

  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void Take(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

uint64_t LittleEndian(ByteSpan bytes) {
  uint64_t word = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    word |= uint64_t{bytes[i]} << (8 * i);
  }
  return word;
}

}  // namespace

SipKey SipKey::Random() {
  std::array<uint64_t, 2> words{};
  // So few bytes come at once, or not at all (getrandom(2)).
  while (getrandom(words.data(), sizeof(words), 0) != static_cast<ssize_t>(sizeof(words))) {
    if (errno != EINTR) {
      spdlog::critical("no random numbers from the kernel: errno {}", errno);
      std::abort();
    }
  }
  return {words[0], words[1]};
}

uint64_t SipHash(const SipKey& key, ByteSpan bytes) {
  State state{key.k0 ^ 0x736f6d6570736575, key.k1 ^ 0x646f72616e646f6d, key.k0 ^ 0x6c7967656e657261,
              key.k1 ^ 0x7465646279746573};
  const uint64_t length = bytes.size();
  while (bytes.size() >= kWord) {
    state.Take(LittleEndian(bytes.first(kWord)));
    bytes = bytes.subspan(kWord);
  }
  state.Take(LittleEndian(bytes) | (length << 56U));
  state.v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) {
    state.Round();
  }
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

}  // namespace postern::base
