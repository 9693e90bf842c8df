// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "common/x509/spiffe_id.h"

namespace postern::federation {

// How the tests' a.test federates with b.test, by each profile.
inline constexpr char kWeb[] = "trust-domain=b.test,url=https://b.test/,profile=https_web";
inline constexpr char kSelf[] =
    "trust-domain=b.test,url=https://b.test/,profile=https_spiffe,"
    "endpoint-id=spiffe://b.test/postern/identity";

inline x509::TrustDomain Td(std::string_view name) {
  return *x509::TrustDomain::Parse(name);
}

}  // namespace postern::federation
