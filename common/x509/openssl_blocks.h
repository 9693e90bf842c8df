// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

namespace postern::x509 {

// malloc's small blocks, by size, in lists in front of it: what is freed is kept for the next one
// who wants that size. Each block is malloc's own and has no header, so what does not fit here goes
// back to it, and either may free what the other has given. One for each thread.
class BlockLists {
 public:
  static constexpr size_t kMostKept = size_t{256} << 10U;  // bytes
  static constexpr size_t kLargest = 1032;                 // larger ones pass through

  BlockLists() = default;
  ~BlockLists() { Close(); }
  BlockLists(const BlockLists&) = delete;
  BlockLists& operator=(const BlockLists&) = delete;

  // As malloc, free and realloc, but for a size of 0: null, and with Resize free.
  void* Allocate(size_t size) noexcept;
  void Release(void* address) noexcept;
  void* Resize(void* address, size_t size) noexcept;
  // Gives everything back, and keeps nothing from now on.
  void Close() noexcept;
  size_t kept() const { return kept_; }

 private:
  // malloc's blocks have room for 24, 40, 56, ... bytes.
  static constexpr size_t kSmallest = 24;
  static constexpr size_t kStep = 16;
  static constexpr size_t kSizes = (kLargest - kSmallest) / kStep + 1;
  struct Block {
    Block* next;
  };
  static size_t SizeAt(size_t at) { return kSmallest + at * kStep; }

  std::array<Block*, kSizes> first_{};
  size_t kept_ = 0;
  size_t most_ = kMostKept;
};

// Has OpenSSL take its memory from such lists: a handshake allocates and frees some thousands of
// blocks, and the C library keeps seven of each size for a thread and sorts and merges the rest.
// What holds a secret is wiped by OpenSSL before it is freed, as ever.
//
// Call once, before the first use of OpenSSL. False: it was too late, or this is a build with a
// sanitizer, and nothing has changed.
bool KeepOpensslBlocks();

}  // namespace postern::x509
