// SPDX-License-Identifier: Apache-2.0
#include "common/x509/openssl_blocks.h"

#include <malloc.h>
#include <openssl/crypto.h>

#include <cstdlib>
#include <new>

#include "common/base/sanitized.h"

namespace postern::x509 {
namespace {

thread_local BlockLists lists;

void* OnAllocate(size_t size, const char* /*file*/, int /*line*/) noexcept {
  return lists.Allocate(size);
}

void* OnResize(void* address, size_t size, const char* /*file*/, int /*line*/) noexcept {
  return lists.Resize(address, size);
}

void OnRelease(void* address, const char* /*file*/, int /*line*/) noexcept {
  lists.Release(address);
}

}  // namespace

void* BlockLists::Allocate(size_t size) noexcept {
  if (size == 0 || size > kLargest) {
    return size == 0 ? nullptr : std::malloc(size);
  }
  const size_t at = size <= kSmallest ? 0 : (size - kSmallest + kStep - 1) / kStep;
  Block* const block = first_[at];
  if (block == nullptr) {
    return std::malloc(SizeAt(at));
  }
  first_[at] = block->next;
  kept_ -= SizeAt(at);
  return block;
}

// The room of a block may lie between two sizes where malloc is not the C library's: it then serves
// the smaller one.
void BlockLists::Release(void* address) noexcept {
  const size_t room = address == nullptr ? 0 : malloc_usable_size(address);
  const size_t at = room < kSmallest ? kSizes : (room - kSmallest) / kStep;
  if (at >= kSizes || kept_ + SizeAt(at) > most_) {
    std::free(address);
    return;
  }
  first_[at] = new (address) Block{first_[at]};
  kept_ += SizeAt(at);
}

void* BlockLists::Resize(void* address, size_t size) noexcept {
  if (address == nullptr) {
    return Allocate(size);
  }
  if (size == 0) {
    Release(address);
    return nullptr;
  }
  return size <= malloc_usable_size(address) ? address : std::realloc(address, size);
}

void BlockLists::Close() noexcept {
  most_ = 0;
  kept_ = 0;
  for (Block*& first : first_) {
    while (first != nullptr) {
      Block* const block = first;
      first = block->next;
      std::free(block);
    }
  }
}

bool KeepOpensslBlocks() {
  // With lists, a sanitizer would not see what is used after it was freed.
  return !base::kSanitized && CRYPTO_set_mem_functions(&OnAllocate, &OnResize, &OnRelease) == 1;
}

}  // namespace postern::x509
