// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "common/x509/spiffe_id.h"
#include "control/attest/attestor.h"
#include "control/attest/challenge_table.h"

namespace postern::attest {

// Attests whoever signs a challenge of `challenges`, the key of the CSR and `issuer` (this issuer's
// own SPIFFE ID) with a key of its own: the selector is that key's. Whether any entry names the key
// is not asked here. Errors carry kBadMemberKey, kBadChallenge or kBadProof; a challenge is used up
// by the first answer that holds a proper key, right or wrong. `challenges` outlives it.
std::unique_ptr<Attestor> MakeEnrolledKeyAttestor(ChallengeTable& challenges,
                                                  x509::SpiffeId issuer);

}  // namespace postern::attest
