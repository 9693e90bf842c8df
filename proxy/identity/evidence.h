// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "proxy/identity/certify_call.h"

// What a proxy shows its issuer to be given a certificate.
namespace postern::identity {

enum class Evidence : uint8_t { kExisting, kToken, kUnix, kMemberKey };

// Which kinds there are to choose from, at one moment. A value.
struct EvidenceAtHand {
  bool unix_socket = false;
  bool certificate = false;  // of this proxy's own, whatever its age: the issuer may have a grace
  bool member_key = false;
  bool join_token = false;
};

// The best kind at hand, or the next best after the one that was refused at the last attempt. With
// nothing at hand kToken, of which PrepareRequest says that it is missing.
Evidence ChooseEvidence(const EvidenceAtHand& at_hand, std::optional<Evidence> refused_last);

// Where evidence is read from, anew for each request; empty: not there.
struct EvidenceFiles {
  std::string join_token;
  std::string member_key;
};

// A request with its evidence, for a key of its own.
struct CertificateRequest {
  std::shared_ptr<v1::CertifyRequest> message;
  x509::PkeyPtr key;
  CertifyCall::Prove prove;  // set: the evidence answers a challenge that is yet to come
};

// Makes a key and a CSR for it. `trust_domain` is the issuer's, known whenever there is a member's
// key. Errors name the file, or say that there is no evidence. Reads files: main loop only.
absl::StatusOr<CertificateRequest> PrepareRequest(
    Evidence evidence, const EvidenceFiles& files,
    const std::optional<x509::TrustDomain>& trust_domain);

}  // namespace postern::identity
