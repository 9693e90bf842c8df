// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/x509.h>

#include <cstddef>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/chain_verifier.h"

namespace postern::x509 {

// SHA-256 over all that a peer presented, in its order: the leaf, then the rest. Nullopt when
// OpenSSL has no memory, or for more than a chain can have.
std::optional<base::Sha256Digest> DigestOfPresented(X509* leaf, STACK_OF(X509) * presented);

// Remembers which presented chains were verified, so that a peer that comes back costs one hash in
// place of two signature checks and the building of a path. It holds good verdicts alone, and a
// verdict for no longer than every certificate of its path is valid. What else a verdict depends on
// (trust bundles, the peer's role) is the owner's: with new trust it begins an empty cache.
// Revocation is no part of it: whoever finds something here judges that by the facts, each time.
// Bounded: two generations of entries, the older one is forgotten as a whole. One thread at a time.
class ChainCache {
 public:
  static constexpr size_t kGeneration = 512;

  explicit ChainCache(size_t generation = kGeneration) : generation_(generation) {}

  // The verdict for what hashed to `presented`, or null; it lives until the next call.
  const VerifiedPeer* Find(const base::Sha256Digest& presented, absl::Time now);
  void Add(const base::Sha256Digest& presented, const VerifiedPeer& peer);
  void Clear();
  size_t size() const { return young_.size() + old_.size(); }

 private:
  using Entries = absl::flat_hash_map<base::Sha256Digest, VerifiedPeer>;
  const size_t generation_;
  Entries young_;
  Entries old_;
};

}  // namespace postern::x509
