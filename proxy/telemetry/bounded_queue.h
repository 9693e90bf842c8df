// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace postern::telemetry {

// A bounded queue of pointers, many producers, one consumer, without a lock: each slot carries the
// turn in which it may be written or read (D. Vyukov's bounded queue, with the consumer's side made
// plain). Producers never wait. Capacity is a power of two.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : slots_(capacity) {
    for (size_t i = 0; i < capacity; ++i) {
      slots_[i].turn.store(i, std::memory_order_relaxed);
    }
  }

  // False, and `item` untouched, when the queue is full. Any thread.
  bool TryPush(std::unique_ptr<T>& item) {
    size_t at = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Slot& slot = slots_[at & (slots_.size() - 1)];
      const auto ahead = static_cast<ptrdiff_t>(slot.turn.load(std::memory_order_acquire) - at);
      if (ahead < 0) {
        return false;
      }
      if (ahead > 0) {
        at = tail_.load(std::memory_order_relaxed);
      } else if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
        slot.item = std::move(item);
        // Sequentially consistent, so that a producer which then looks whether the consumer sleeps,
        // and a consumer which goes to sleep and then looks here, cannot both miss the other.
        slot.turn.store(at + 1, std::memory_order_seq_cst);
        return true;
      }
    }
  }

  // Null when empty. The consumer's thread only, as Empty.
  std::unique_ptr<T> Pop() {
    if (Empty()) {
      return nullptr;
    }
    Slot& slot = slots_[head_ & (slots_.size() - 1)];
    std::unique_ptr<T> item = std::move(slot.item);
    slot.turn.store(head_ + slots_.size(), std::memory_order_release);
    ++head_;
    return item;
  }

  bool Empty() const {
    const Slot& slot = slots_[head_ & (slots_.size() - 1)];
    return slot.turn.load(std::memory_order_seq_cst) != head_ + 1;
  }

 private:
  struct Slot {
    std::atomic<size_t> turn{0};
    std::unique_ptr<T> item;
  };
  std::vector<Slot> slots_;
  alignas(64) std::atomic<size_t> tail_{0};
  alignas(64) size_t head_ = 0;
};

}  // namespace postern::telemetry
