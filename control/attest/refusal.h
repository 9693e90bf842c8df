// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace postern::attest {

// Why a certificate was refused. Closed and append-only: the token is the metric label and the log
// field; the code is what the caller gets (documented in proto/postern/v1/identity.proto).
// X(enumerator, token, status code).
#define POSTERN_REFUSAL_REASONS(X)                                                  \
  X(kBadRequest, "bad_request", absl::StatusCode::kInvalidArgument)                 \
  X(kBadCsr, "bad_csr", absl::StatusCode::kInvalidArgument)                         \
  X(kForeignIdentity, "foreign_identity", absl::StatusCode::kInvalidArgument)       \
  X(kIdentityMismatch, "identity_mismatch", absl::StatusCode::kPermissionDenied)    \
  X(kUnattested, "unattested", absl::StatusCode::kUnauthenticated)                  \
  X(kBadToken, "bad_token", absl::StatusCode::kUnauthenticated)                     \
  X(kExpiredToken, "expired_token", absl::StatusCode::kUnauthenticated)             \
  X(kUnknownCertificate, "unknown_certificate", absl::StatusCode::kUnauthenticated) \
  X(kNoEntry, "no_entry", absl::StatusCode::kPermissionDenied)                      \
  X(kAmbiguousEntry, "ambiguous_entry", absl::StatusCode::kPermissionDenied)        \
  X(kRateLimited, "rate_limited", absl::StatusCode::kResourceExhausted)             \
  X(kOverload, "overload", absl::StatusCode::kResourceExhausted)                    \
  X(kCaExpired, "ca_expired", absl::StatusCode::kUnavailable)                       \
  X(kStoreError, "store_error", absl::StatusCode::kUnavailable)                     \
  X(kInternal, "internal", absl::StatusCode::kInternal)                             \
  X(kBadMemberKey, "bad_member_key", absl::StatusCode::kInvalidArgument)            \
  X(kBadChallenge, "bad_challenge", absl::StatusCode::kAborted)                     \
  X(kBadProof, "bad_proof", absl::StatusCode::kUnauthenticated)                     \
  X(kLongExpired, "long_expired", absl::StatusCode::kUnauthenticated)               \
  X(kRevoked, "revoked", absl::StatusCode::kPermissionDenied)

enum class RefusalReason : uint8_t {
#define X(enumerator, token, code) enumerator,
  POSTERN_REFUSAL_REASONS(X)
#undef X
};

inline constexpr size_t kRefusalReasonCount = 0
#define X(enumerator, token, code) +1
    POSTERN_REFUSAL_REASONS(X)
#undef X
    ;

extern const std::array<RefusalReason, kRefusalReasonCount> kAllRefusalReasons;

std::string_view Token(RefusalReason reason) noexcept;

// A Status with the reason's code, that carries the reason along. `message` is a sentence for a
// person at the other end; it never holds a secret, nor text that came from the other end unless
// base::Printable made it safe.
absl::Status Refuse(RefusalReason reason, std::string_view message);

// The reason that Refuse put in; kInternal for another error. `status` must not be OK.
RefusalReason ReasonOf(const absl::Status& status);

}  // namespace postern::attest
