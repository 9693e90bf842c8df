// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/spiffe_id.h"
#include "control/issue/issuer.h"
#include "control/store/store.h"

namespace postern::issue {

inline constexpr absl::Duration kDefaultTokenTtl = absl::Minutes(10);
inline constexpr absl::Duration kMaxTokenTtl = absl::Hours(24 * 7);
inline constexpr size_t kMaxSelectors = 16;
inline constexpr size_t kMaxAllowedAddresses = 256;
inline constexpr size_t kMaxPorts = 256;
inline constexpr size_t kMaxServices = 64;

// The issuer's own identity, spiffe://TD/postern/identity.
x509::SpiffeId IssuerId(const x509::TrustDomain& trust_domain);

// Whether `id` is spiffe://TD/postern or below it, which no entry may have.
bool IsReserved(const x509::SpiffeId& id);

struct CreatedToken {
  std::string token;  // shown once; a secret
  store::Entry entry;
  absl::Time expires_at;
};

// The operator's verbs on entries and tokens: checks what an operator wrote, then stores it.
// Thread-safe; blocks on the store. After a change that returned OK, tell the mesh
// (mesh::MeshState::ReloadEntry).
class Registry {
 public:
  // All outlive the registry; `ttl` is copied.
  Registry(x509::TrustDomain trust_domain, TtlPolicy ttl, store::Store& store,
           const base::Clock& clock);

  // InvalidArgument, naming the field: another trust domain, a reserved ID or one without a path,
  // no selector or one that does not parse, a selector "join-token:" (CreateToken makes those), a
  // selector "key:" beside another, port 0, a TTL outside of its bounds, too many of something.
  // FailedPrecondition: the key is revoked. AlreadyExists: see EntryStore.
  absl::StatusOr<store::Entry> CreateEntry(store::Entry entry);

  // `entry` as above, without selectors: the store adds the token's own, and a token attests to
  // nothing else. `ttl` zero: ten minutes. InvalidArgument: also selectors that were given, `ttl`
  // not within 1 s to kMaxTokenTtl.
  absl::StatusOr<CreatedToken> CreateToken(store::Entry entry, absl::Duration ttl);

  absl::StatusOr<std::vector<store::Entry>> ListEntries(std::string_view spiffe_id);
  absl::Status DeleteEntry(std::string_view id);

  // Deletes expired tokens and long expired certificates. For a timer, about once a minute.
  absl::Status CleanUp();

 private:
  absl::Status Normalize(store::Entry& entry) const;
  absl::Status CheckKeyNotRevoked(std::string_view selector) const;

  const x509::TrustDomain trust_domain_;
  const TtlPolicy ttl_;
  store::Store& store_;
  const base::Clock& clock_;
};

}  // namespace postern::issue
