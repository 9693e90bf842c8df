// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>

#include "common/base/clock.h"
#include "common/x509/chain_cache.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/trust_bundle.h"
#include "control/ca/ca_signer.h"

namespace grpc {
class AuthContext;
}  // namespace grpc

namespace postern::service {

// The client certificate of a call's connection, verified against our own bundle
// (rpc::VerifyClient). Verifying gives the same answer for the same certificates, bundles and own
// chain, as long as all of the path is valid; so a good answer is kept for the next call of the
// connection and of the same client, and given again only within that validity. What was refused is
// never kept. Thread-safe; `ca` and `clock` outlive it.
class ClientVerdicts {
 public:
  static constexpr size_t kGeneration = 4096;  // twice as many are kept

  ClientVerdicts(const ca::CaSigner& ca, const base::Clock& clock) : ca_(ca), clock_(clock) {}

  x509::ChainVerdict Verify(const grpc::AuthContext& connection);

  // For a renewal, and for nothing else: a leaf that has expired is judged as of the last second of
  // its life. Whether that was too long ago, the attestor says, who knows the grace. Such an answer
  // is not kept.
  x509::ChainVerdict VerifyForRenewal(const grpc::AuthContext& connection);

 private:
  const ca::CaSigner& ca_;
  const base::Clock& clock_;
  std::mutex mutex_;  // guards all below
  // Of what the kept ones were verified against.
  std::shared_ptr<const x509::TrustBundleSet> bundles_;
  std::shared_ptr<const ca::SigningSlot> slot_;
  x509::ChainCache kept_{kGeneration};
};

}  // namespace postern::service
