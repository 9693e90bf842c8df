// SPDX-License-Identifier: Apache-2.0
#include "control/attest/challenge_table.h"

#include <openssl/rand.h>

#include <iterator>

#include "common/x509/member_proof.h"
#include "control/attest/refusal.h"

namespace postern::attest {

absl::StatusOr<std::string> ChallengeTable::Make(const std::string& connection) {
  std::string challenge(x509::kChallengeBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(challenge.data()),
                 static_cast<int>(challenge.size())) != 1) {
    return Refuse(RefusalReason::kInternal, "the random generator failed");
  }
  const absl::Duration now = clock_.SinceBoot();
  const std::lock_guard<std::mutex> lock(mutex_);
  ForgetOld(now);
  if (const auto found = of_connection_.find(connection); found != of_connection_.end()) {
    Forget(found->second);
  }
  if (order_.size() >= kMaxOpen) {
    Forget(order_.begin());
  }
  order_.push_back({connection, challenge, now});
  of_connection_[connection] = std::prev(order_.end());
  return challenge;
}

absl::Status ChallengeTable::Use(const std::string& connection, std::string_view challenge) {
  const absl::Duration now = clock_.SinceBoot();
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = of_connection_.find(connection);
  if (found == of_connection_.end()) {
    return Refuse(RefusalReason::kBadChallenge,
                  "this connection has no challenge open: none was asked for, or it was used");
  }
  const bool too_old = now - found->second->made >= kLifetime;
  const bool same = found->second->challenge == challenge;
  Forget(found->second);
  if (too_old) {
    return Refuse(RefusalReason::kBadChallenge, "the challenge has expired: ask for another");
  }
  if (!same) {
    return Refuse(RefusalReason::kBadChallenge,
                  "this is not the challenge that this connection was given");
  }
  return absl::OkStatus();
}

size_t ChallengeTable::open() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return order_.size();
}

void ChallengeTable::Forget(Order::iterator open) {
  of_connection_.erase(open->connection);
  order_.erase(open);
}

// Twice the lifetime, so that a late answer still hears that it is late.
void ChallengeTable::ForgetOld(absl::Duration now) {
  while (!order_.empty() && now - order_.front().made >= 2 * kLifetime) {
    Forget(order_.begin());
  }
}

}  // namespace postern::attest
