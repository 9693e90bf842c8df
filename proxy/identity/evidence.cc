// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/evidence.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/x509/csr.h"
#include "common/x509/key.h"
#include "common/x509/public_key.h"
#include "postern/v1/identity.pb.h"
#include "proxy/identity/member_key.h"

namespace postern::identity {
namespace {

constexpr size_t kLargestToken = 4096;

std::string_view Stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

absl::Status AddToken(const std::string& file, v1::CertifyRequest& request) {
  if (file.empty()) {
    return absl::FailedPreconditionError(
        "there is no certificate in the state directory, no --member-key and no "
        "--join-token-file");
  }
  auto token = base::ReadSecretFile(file, /*allow_symlink=*/true, kLargestToken);
  if (!token.ok()) {
    return token.status();
  }
  request.mutable_join_token()->set_token(std::string(Stripped(*token)));
  OPENSSL_cleanse(token->data(), token->size());
  return absl::OkStatus();
}

absl::StatusOr<CertifyCall::Prove> MakeProof(const std::string& file, EVP_PKEY* csr_key,
                                             const x509::TrustDomain& trust_domain) {
  auto loaded = MemberKey::Load(file);
  if (!loaded.ok()) {
    return loaded.status();
  }
  auto csr_key_der = x509::PublicKeyToDer(csr_key);
  if (!csr_key_der.ok()) {
    return csr_key_der.status();
  }
  return [key = std::make_shared<const MemberKey>(*std::move(loaded)),
          csr_key_der = *std::move(csr_key_der), issuer = rpc::IssuerId(trust_domain)](
             const v1::ChallengeResponse& challenge, v1::CertifyRequest& request) {
    return key->Answer(challenge, issuer, base::AsBytes(csr_key_der), request);
  };
}

absl::Status AddEvidence(Evidence evidence, const EvidenceFiles& files,
                         const std::optional<x509::TrustDomain>& trust_domain,
                         CertificateRequest& request) {
  switch (evidence) {
    case Evidence::kExisting:
      request.message->mutable_existing_certificate();
      break;
    case Evidence::kUnix:
      request.message->mutable_unix_peer();
      break;
    case Evidence::kToken:
      return AddToken(files.join_token, *request.message);
    case Evidence::kMemberKey: {
      if (!trust_domain.has_value()) {
        return absl::FailedPreconditionError("--member-key: the issuer's trust domain is unknown");
      }
      auto proof = MakeProof(files.member_key, request.key.get(), *trust_domain);
      if (!proof.ok()) {
        return proof.status();
      }
      request.prove = *std::move(proof);
      break;
    }
  }
  return absl::OkStatus();
}

}  // namespace

Evidence ChooseEvidence(const EvidenceAtHand& at_hand, std::optional<Evidence> refused_last) {
  if (at_hand.unix_socket) {
    return Evidence::kUnix;
  }
  std::vector<Evidence> ways;  // best first
  if (at_hand.certificate) {
    ways.push_back(Evidence::kExisting);
  }
  if (at_hand.member_key) {
    ways.push_back(Evidence::kMemberKey);
  }
  if (at_hand.join_token) {
    ways.push_back(Evidence::kToken);
  }
  if (ways.empty()) {
    return Evidence::kToken;
  }
  const auto refused =
      refused_last.has_value() ? std::ranges::find(ways, *refused_last) : ways.end();
  const bool has_next = refused != ways.end() && refused + 1 != ways.end();
  return has_next ? *(refused + 1) : ways.front();
}

absl::StatusOr<CertificateRequest> PrepareRequest(
    Evidence evidence, const EvidenceFiles& files,
    const std::optional<x509::TrustDomain>& trust_domain) {
  auto key = x509::GenerateP256Key();
  if (!key.ok()) {
    return key.status();
  }
  auto csr = x509::CreateCsr(key->get(), std::nullopt);
  if (!csr.ok()) {
    return csr.status();
  }
  CertificateRequest request{std::make_shared<v1::CertifyRequest>(), *std::move(key), nullptr};
  request.message->set_csr_der(*std::move(csr));
  if (auto added = AddEvidence(evidence, files, trust_domain, request); !added.ok()) {
    return added;
  }
  return request;
}

}  // namespace postern::identity
