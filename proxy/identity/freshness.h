// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/time/time.h"

namespace postern::identity {

// What the issuer decides for this proxy, and can change its mind about.
enum class TrustKind : uint8_t { kBundles, kPolicy, kRevocations };
inline constexpr size_t kTrustKindCount = 3;
inline constexpr std::array<TrustKind, kTrustKindCount> kTrustKinds = {
    TrustKind::kBundles, TrustKind::kPolicy, TrustKind::kRevocations};

// "bundles", "policy", "revocations": metric label, and field of /status.
std::string_view Token(TrustKind kind) noexcept;

// When the issuer last confirmed each kind. Any message of its stream confirms all that is held,
// for what changes is pushed at once and nothing is said twice; but not a kind whose newest state
// this proxy refused: that one ages from then on. Times are of the clock that goes on through
// suspend. A value; lives in IssuerSource.
class Freshness {
 public:
  using Times = std::array<std::optional<absl::Duration>, kTrustKindCount>;  // nullopt: never

  // Twice the issuer's keep-alive and some: older is stale, for /status.
  static constexpr absl::Duration kStaleAfter = absl::Seconds(45);

  // Of an earlier run of this proxy.
  void Restore(absl::Duration confirmed) { confirmed_.fill(confirmed); }
  // A message of the stream.
  void OnHeard(absl::Duration now);
  // A certificate came with the newest bundles.
  void OnCertificate(absl::Duration now) { Confirm(TrustKind::kBundles, now); }
  // A new state of `kind` was applied, or refused.
  void OnApplied(TrustKind kind, bool ok, absl::Duration now);

  const Times& confirmed() const { return confirmed_; }
  // Since when all kinds are confirmed: the oldest of them; nullopt: one never was.
  std::optional<absl::Duration> AllConfirmed() const;

 private:
  void Confirm(TrustKind kind, absl::Duration now);
  Times confirmed_;
  std::array<bool, kTrustKindCount> refused_{};  // its newest state
};

}  // namespace postern::identity
