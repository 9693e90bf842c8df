// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "control/ca/ca_layout.h"
#include "control/ca/ca_signer.h"

namespace postern::ca {

// Why a plugged-in CA may not sign. Closed and append-only: the token is the label of the metric
// and stands in the log. X(enumerator, token).
#define POSTERN_CA_PROBLEMS(X)                                                       \
  X(kUnreadable, "unreadable")     /* a file is missing, not private, or changing */ \
  X(kMalformed, "malformed")       /* no PEM, no certificate, cut short */           \
  X(kBadRoots, "bad_roots")        /* a root that no peer would take */              \
  X(kNoKey, "no_key")              /* unusable, or the token does not give it */     \
  X(kKeyMismatch, "key_mismatch")  /* the key is not the certificate's */            \
  X(kNotCa, "not_ca")              /* a leaf, or a CA that may not sign */           \
  X(kWeak, "weak")                 /* a key or signature below 112 bits */           \
  X(kExpired, "expired")           /* it, or what is above it */                     \
  X(kNotYetValid, "not_yet_valid") /* the same, or this clock is wrong */            \
  X(kUntrusted, "untrusted")       /* no way up to one of the roots */               \
  X(kConstrained, "constrained")   /* path length, names or usage forbid our leaves */

enum class CaProblem : uint8_t {
#define X(enumerator, token) enumerator,
  POSTERN_CA_PROBLEMS(X)
#undef X
};
inline constexpr size_t kCaProblemCount = 0
#define X(enumerator, token) +1
    POSTERN_CA_PROBLEMS(X)
#undef X
    ;
std::string_view Token(CaProblem problem) noexcept;

// A CA from outside that may sign, and the roots that are to be trusted with it. Immutable.
struct PluggedCa {
  std::shared_ptr<const SigningSlot> slot;
  std::vector<x509::X509Ptr> roots;  // in the order of the file, without repetition
  std::string description;           // for the log: subject, validity, length of the chain
};

struct CaVerdict {
  std::shared_ptr<const PluggedCa> ca;  // set: it may sign
  CaProblem problem = CaProblem::kUnreadable;
  std::string detail;  // else: a sentence, printable
};

// Judges what lies in a directory at `now`: an intermediate with its key, below one of the roots,
// whose chain (put in order here, root left out) lets it sign for `trust_domain`. Beside looking at
// each rule it signs a leaf for the issuer's own identity and judges that as peers do
// (x509::VerifyPeerChain): so constraints on names and path length, usages, depth and strength are
// the peers' own rules. `token_key`: the key, where it is not in the files; shared, may be null.
// Any thread; blocks where the key is in a token.
CaVerdict JudgeCa(const CaFiles& files, EVP_PKEY* token_key, const x509::TrustDomain& trust_domain,
                  absl::Time now);

}  // namespace postern::ca
