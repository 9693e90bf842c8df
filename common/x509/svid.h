// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

namespace postern::x509 {

// A workload's own X.509-SVID: chain and private key. Immutable; shared between threads as
// shared_ptr<const Svid>. Never formatted into a log: it has no ToString.
class Svid {
 public:
  // Checks before anything is published: the key fits the leaf and is strong enough, the leaf is a
  // proper X.509-SVID (one workload URI SAN, CA:FALSE, digitalSignature and no certSign, clientAuth
  // and serverAuth), each intermediate is a CA. Does not judge time: see CheckUsable.
  // InvalidArgument names what is wrong.
  static absl::StatusOr<Svid> Create(std::vector<X509Ptr> chain, PkeyPtr key);
  static absl::StatusOr<Svid> FromPem(std::string_view chain_pem, std::string_view key_pem);

  const SpiffeId& id() const { return id_; }
  X509* leaf() const { return chain_.front().get(); }
  const std::vector<X509Ptr>& chain() const { return chain_; }  // leaf first, no root
  EVP_PKEY* key() const { return key_.get(); }
  absl::Time not_before() const { return not_before_; }  // of the leaf
  absl::Time not_after() const { return not_after_; }    // the earliest of the chain
  const std::string& serial() const { return serial_; }

  // FailedPrecondition, saying by how much, when `now` lies outside the validity of the chain.
  absl::Status CheckUsable(absl::Time now) const;

 private:
  // Read once: each connection asks, and OpenSSL parses the text anew each time.
  struct Validity {
    absl::Time begins;
    absl::Time ends;
  };

  Svid(SpiffeId id, std::vector<X509Ptr> chain, PkeyPtr key);
  SpiffeId id_;
  std::vector<X509Ptr> chain_;
  PkeyPtr key_;
  absl::Time not_before_;
  absl::Time not_after_;
  std::string serial_;
  std::vector<Validity> validities_;  // of the chain
};

}  // namespace postern::x509
