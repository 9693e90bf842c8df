// SPDX-License-Identifier: Apache-2.0
#include "control/service/come_back.h"

#include <algorithm>

namespace postern::service {

ComeBack::ComeBack(const base::Clock& clock) : clock_(clock), random_(std::random_device{}()) {}

void ComeBack::OnServed(absl::Duration took, int at_work) {
  const absl::Duration seen = std::clamp(took / std::max(at_work, 1), kLeastApart, kMostApart);
  const std::lock_guard<std::mutex> lock(mutex_);
  apart_ += (seen - apart_) * kWeightOfNewest;
}

absl::Duration ComeBack::Next() {
  const absl::Duration now = clock_.SinceBoot();
  const std::lock_guard<std::mutex> lock(mutex_);
  const absl::Duration place = std::max(promised_until_, now + kSoonest);
  if (place - now > kLongest) {
    return kLongest * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  }
  promised_until_ = place + apart_ / kPromised;
  return place - now;
}

absl::Duration ComeBack::apart() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return apart_;
}

}  // namespace postern::service
