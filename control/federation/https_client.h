// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/trust_bundle.h"
#include "control/federation/federation_spec.h"

namespace postern::federation {

inline constexpr size_t kMaxDocumentBytes = 256 << 10;
inline constexpr absl::Duration kFetchDeadline = absl::Seconds(5);  // for all of one fetch

// Whom a server must be. With `id`: exactly that SPIFFE ID, its chain verified against `bundles`
// (of the ID's trust domain alone); the host name plays no part. Without: the host of the URL,
// under the roots of `ca_pem`, or of the system where that is empty.
struct ServerTrust {
  std::optional<x509::SpiffeId> id = std::nullopt;
  std::shared_ptr<const x509::TrustBundleSet> bundles = nullptr;
  std::string ca_pem = {};
};

// One GET over TLS 1.2 or 1.3, without a client certificate, a proxy, a redirect or a session that
// is resumed. The server is judged inside the handshake: one that is refused is asked nothing.
// Blocks for kFetchDeadline at most, and beyond for as long as the system's resolver takes; ends
// early, with Cancelled, once `cancelled` is true (null: never). Any thread.
// Unavailable: not reached, or no answer. Unauthenticated: who answered is not who is meant, or TLS
// failed. DeadlineExceeded. And what HttpResponse refuses.
absl::StatusOr<std::string> HttpsGet(const HttpsUrl& url, const ServerTrust& trust,
                                     const base::Clock& clock,
                                     const std::atomic<bool>* cancelled = nullptr);

}  // namespace postern::federation
