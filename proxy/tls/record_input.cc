// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/record_input.h"

#include <algorithm>
#include <array>

#include "proxy/tls/record_cipher.h"

namespace postern::tls {

void RecordInput::Feed(base::ByteSpan bytes) {
  if (!fed_.empty()) {
    Keep();
  }
  fed_ = bytes;
}

size_t RecordInput::Take(base::MutableByteSpan buffer) {
  if (Kept() > 0) {
    const size_t count = std::min(buffer.size(), Kept());
    std::copy_n(kept_.data() + kept_at_, count, buffer.begin());
    kept_at_ += count;
    return count;
  }
  const size_t count = std::min(buffer.size(), fed_.size());
  std::copy_n(fed_.begin(), count, buffer.begin());
  fed_ = fed_.subspan(count);
  return count;
}

size_t RecordInput::SizeOf(base::ByteSpan start) {
  if (start.size() < kRecordHeaderBytes) {
    return 0;
  }
  const size_t length = static_cast<size_t>(start[3]) << 8U | start[4];
  const bool condemned = start[0] != static_cast<uint8_t>(ContentType::kApplicationData) ||
                         length > kMaxRecordCiphertext;
  return condemned ? kRecordHeaderBytes : kRecordHeaderBytes + length;
}

base::ByteSpan RecordInput::Next() {
  if (Kept() == 0) {
    const size_t size = SizeOf(fed_);
    return size == 0 || size > fed_.size() ? base::ByteSpan() : fed_.first(size);
  }
  // What is kept is completed to one record and no more, first to its header.
  for (;;) {
    const base::ByteSpan kept = base::ByteSpan(kept_).subspan(kept_at_);
    const size_t size = SizeOf(kept);
    const size_t wanted = std::max(size, kRecordHeaderBytes);
    if (size != 0 && kept.size() >= size) {
      return kept.first(size);
    }
    if (fed_.empty()) {
      return {};
    }
    if (kept_at_ > 0) {
      kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(kept_at_));
      kept_at_ = 0;
    }
    const base::ByteSpan more = fed_.first(std::min(wanted - kept_.size(), fed_.size()));
    kept_.insert(kept_.end(), more.begin(), more.end());
    fed_ = fed_.subspan(more.size());
  }
}

bool RecordInput::HasNext() const {
  if (Kept() == 0) {
    const size_t size = SizeOf(fed_);
    return size != 0 && size <= fed_.size();
  }
  const base::ByteSpan kept = base::ByteSpan(kept_).subspan(kept_at_);
  std::array<uint8_t, kRecordHeaderBytes> header{};
  const size_t of_kept = std::min(kept.size(), header.size());
  const size_t of_fed = std::min(fed_.size(), header.size() - of_kept);
  std::copy_n(kept.begin(), of_kept, header.begin());
  std::copy_n(fed_.begin(), of_fed, header.begin() + of_kept);
  const size_t size = SizeOf(base::ByteSpan(header).first(of_kept + of_fed));
  return size != 0 && size <= kept.size() + fed_.size();
}

void RecordInput::Pop(size_t bytes) {
  if (Kept() == 0) {
    fed_ = fed_.subspan(bytes);
    return;
  }
  kept_at_ += bytes;
  if (Kept() == 0) {
    kept_.clear();  // its memory serves the next rest
    kept_at_ = 0;
  }
}

void RecordInput::Keep() {
  if (Kept() == 0) {
    kept_at_ = 0;
    kept_.clear();
  }
  if (!fed_.empty()) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(kept_at_));
    kept_at_ = 0;
    kept_.insert(kept_.end(), fed_.begin(), fed_.end());
    fed_ = {};
  }
  if (kept_.empty() && kept_.capacity() > 0) {
    std::vector<uint8_t>().swap(kept_);
  }
}

}  // namespace postern::tls
