// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/x509/chain_verifier.h"
#include "proxy/identity/snapshot.h"
#include "proxy/tls/tls_context.h"

namespace postern::session {

// What one worker makes of an identity snapshot, once for each publication: the TLS contexts, and
// the roots by digest. Immutable; new sessions use the newest, open ones keep theirs alive.
class WorkerIdentity {
 public:
  // Internal: OpenSSL refused. `trust`: to what the tickets that clients are given are bound beside
  // this snapshot; null: no session is resumed in either direction. `revocations`: what every
  // handshake looks at.
  static absl::StatusOr<std::shared_ptr<const WorkerIdentity>> Create(
      std::shared_ptr<const identity::IdentitySnapshot> snapshot, const base::Clock& clock,
      std::shared_ptr<const tls::TrustState> trust,
      std::shared_ptr<const tls::RevocationState> revocations);

  const x509::Svid& svid() const { return *snapshot_->svid; }
  const identity::IdentitySnapshot& snapshot() const { return *snapshot_; }
  const std::shared_ptr<const tls::TlsContext>& client() const { return client_; }
  const std::shared_ptr<const tls::TlsContext>& server(tls::ClientAuth client_auth) const {
    return client_auth == tls::ClientAuth::kRequire ? server_ : server_without_client_auth_;
  }

  // Whether the peer's root may still speak for its trust domain, or was taken out in order: then
  // what it verified before goes on.
  bool Trusts(const x509::VerifiedPeer& peer) const;

 private:
  WorkerIdentity() = default;

  std::shared_ptr<const identity::IdentitySnapshot> snapshot_;
  std::shared_ptr<const tls::TlsContext> client_, server_, server_without_client_auth_;
  absl::flat_hash_map<std::string, absl::flat_hash_set<base::Sha256Digest>> roots_;
};

}  // namespace postern::session
