// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/x509/chain_verifier.h"
#include "control/attest/renewal_rules.h"
#include "control/attest/unix_peer.h"
#include "control/store/store.h"

// From what a caller shows to facts about it. A new way to attest is a new evidence type, an
// attestor for it and a line in AttestorSet; nothing else changes.
namespace postern::attest {

// A join token as the caller sent it.
struct JoinTokenEvidence {
  std::string token;
};

// The credentials of the unix socket that the call came through.
struct UnixPeerEvidence {
  std::shared_ptr<const UnixPeer> peer;
};

// The client certificate of the channel, after x509::VerifyPeerChain accepted it against our own
// bundle, at the present or (for a renewal) at the last moment of its life. Only a VerifiedPeer can
// be put here: nothing that was not verified.
struct ExistingCertificateEvidence {
  x509::VerifiedPeer peer;
};

// A key of the caller's own and a challenge of this issuer, signed with it (x509/member_proof.h).
// As the caller sent it, but for the last two.
struct EnrolledKeyEvidence {
  std::string public_key_der;  // SubjectPublicKeyInfo
  std::string challenge;
  std::string signature;
  std::string connection;  // that the call came over; empty: a unix socket
  std::string
      csr_public_key_der;  // of the CSR beside it, after x509::VerifyCsr: set by issue::Issuer
};

using Evidence = std::variant<JoinTokenEvidence, UnixPeerEvidence, ExistingCertificateEvidence,
                              EnrolledKeyEvidence>;

// "join_token", "unix_peer", "existing_certificate", "enrolled_key": metric label and log field.
std::string_view KindOf(const Evidence& evidence) noexcept;

// What is known of the caller.
struct Attestation {
  std::vector<std::string> selectors;  // canonical, sorted, without repetition
  // Set when the caller was attested before: the entry that its certificate was issued under
  // decides, and no selectors are matched.
  std::string entry_id;
};

// One way to attest. Thread-safe; may block on the store or /proc.
class Attestor {
 public:
  virtual ~Attestor() = default;

  // Errors carry a RefusalReason (refusal.h): kBadToken, kExpiredToken, kUnattested,
  // kUnknownCertificate, kStoreError. A single-use token is used up by an OK answer.
  virtual absl::StatusOr<Attestation> Attest(const Evidence& evidence) = 0;
};

// Tokens look like what MintToken makes; anything else is kBadToken without asking the store.
std::unique_ptr<Attestor> MakeJoinTokenAttestor(store::TokenStore& tokens,
                                                const base::Clock& clock);

// uid, gid and, where it can be known for sure, the executable's path.
std::unique_ptr<Attestor> MakeUnixPeerAttestor();

// Finds the certificate in the log by its serial and compares its hash and identity: a certificate
// that this store did not issue is kUnknownCertificate, however valid. One that expired longer ago
// than the grace is kLongExpired.
std::unique_ptr<Attestor> MakeExistingCertificateAttestor(store::CertificateLog& log,
                                                          const base::Clock& clock,
                                                          RenewalRules rules);

// All of them, by evidence type. `store` and `clock` outlive it. Without `enrolled_key`
// (MakeEnrolledKeyAttestor) its evidence is kUnattested.
class AttestorSet : public Attestor {
 public:
  AttestorSet(store::Store& store, const base::Clock& clock, RenewalRules rules = {},
              std::unique_ptr<Attestor> enrolled_key = nullptr);
  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override;

 private:
  std::unique_ptr<Attestor> join_token_;
  std::unique_ptr<Attestor> unix_peer_;
  std::unique_ptr<Attestor> existing_certificate_;
  std::unique_ptr<Attestor> enrolled_key_;
};

// A fresh token (64 hex digits, 256 random bits) and what the store keeps of it.
struct MintedToken {
  std::string token;
  base::Sha256Digest sha256;
};
absl::StatusOr<MintedToken> MintToken();
base::Sha256Digest HashToken(std::string_view token);

}  // namespace postern::attest
