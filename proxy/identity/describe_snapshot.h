// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proxy/identity/snapshot.h"
#include "proxy/identity/status.h"

namespace postern::identity {

// Fills the fields of `status` that say what is in use. Own chain first, then the roots, those of
// the own trust domain before the others'.
void DescribeSnapshot(const IdentitySnapshot& snapshot, IdentityStatus& status);

}  // namespace postern::identity
