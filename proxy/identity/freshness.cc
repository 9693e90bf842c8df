// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/freshness.h"

#include <algorithm>

namespace postern::identity {

std::string_view Token(TrustKind kind) noexcept {
  switch (kind) {
    case TrustKind::kBundles:
      return "bundles";
    case TrustKind::kPolicy:
      return "policy";
    case TrustKind::kRevocations:
      break;
  }
  return "revocations";
}

void Freshness::Confirm(TrustKind kind, absl::Duration now) {
  const auto index = static_cast<size_t>(kind);
  if (!refused_[index]) {
    confirmed_[index] = now;
  }
}

void Freshness::OnHeard(absl::Duration now) {
  for (const TrustKind kind : kTrustKinds) {
    Confirm(kind, now);
  }
}

void Freshness::OnApplied(TrustKind kind, bool ok, absl::Duration now) {
  refused_[static_cast<size_t>(kind)] = !ok;
  Confirm(kind, now);
}

std::optional<absl::Duration> Freshness::AllConfirmed() const {
  std::optional<absl::Duration> oldest = confirmed_.front();
  for (const auto& one : confirmed_) {
    if (!one.has_value() || !oldest.has_value()) {
      return std::nullopt;
    }
    oldest = std::min(*oldest, *one);
  }
  return oldest;
}

}  // namespace postern::identity
