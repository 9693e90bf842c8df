// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {

// What came from the peer and is not consumed yet: the bytes of this turn, which belong to whoever
// fed them, and in front of them what was left of earlier turns, which is kept here. A record that
// lies in this turn's bytes is opened from where it lies. Owned by its engine, confined to its
// thread.
class RecordInput {
 public:
  // `bytes` must live until Keep.
  void Feed(base::ByteSpan bytes);
  // Copies up to buffer.size() bytes out; for the handshake, which wants bytes and not records.
  size_t Take(base::MutableByteSpan buffer);

  // The next record, whole; or its header alone if no protected record has such a header; or
  // nothing when more bytes are needed. Valid until the next call of a method that is not const.
  base::ByteSpan Next();
  // Whether Next would give something.
  bool HasNext() const;
  // Takes the record that Next gave out.
  void Pop(size_t bytes);

  // Ends the turn: the rest moves into a buffer of our own, and without a rest there is none.
  void Keep();
  bool empty() const { return Kept() == 0 && fed_.empty(); }

 private:
  size_t Kept() const { return kept_.size() - kept_at_; }
  // Bytes of the record that starts here; 0: its header is not here yet.
  static size_t SizeOf(base::ByteSpan start);

  base::ByteSpan fed_;
  std::vector<uint8_t> kept_;
  size_t kept_at_ = 0;
};

}  // namespace postern::tls
