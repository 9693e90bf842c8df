// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "common/x509/chain_verifier.h"

namespace postern::session {

// When a client is asked to prove itself again inside an open connection. All pure.

// The first time: when between 30 % and 20 % of its certificate's lifetime are left, by when it has
// renewed (at 50 %, give or take a tenth). `spread`, any number, keeps the connections of one
// client from being asked all at once.
absl::Time FirstAsk(const x509::VerifiedPeer& peer, uint64_t spread);

// Until it is asked again, when it had nothing newer to show: a quarter of what is left.
absl::Duration AskAgainAfter(absl::Duration left);

// Until it is looked whether an answer has come, for the `looks`th time.
absl::Duration LookAgainAfter(unsigned looks);

// How often a connection that has outlived its peer's certificate is looked at.
inline constexpr absl::Duration kPastExpiryPeriod = absl::Seconds(5);

}  // namespace postern::session
