// SPDX-License-Identifier: Apache-2.0
#include "control/ca/plugged_ca.h"

#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"
#include "common/x509/trust_bundle.h"
#include "control/ca/certificate_builder.h"

namespace postern::ca {
namespace {

constexpr int kAuthLevel = 2;  // as the peers' verifier
constexpr absl::Duration kProbeLifetime = absl::Minutes(10);
constexpr std::string_view kProbePath = "/postern/identity";  // the issuer's own name

struct Problem {
  CaProblem problem;
  std::string detail;
};
using Step = std::optional<Problem>;

// Everything that the judgement is about, filled step by step.
struct Candidate {
  std::vector<x509::X509Ptr> presented;  // the signing certificate first, then in any order
  std::vector<x509::X509Ptr> roots;
  x509::PkeyPtr key;
  std::vector<x509::X509Ptr> path;  // verified: the signing certificate first, the root last

  X509* signing() const { return presented.front().get(); }
};

CaProblem ProblemOf(int x509_error) {
  switch (x509_error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return CaProblem::kExpired;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return CaProblem::kNotYetValid;
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION:
    case X509_V_ERR_SUBTREE_MINMAX:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX:
    case X509_V_ERR_INVALID_PURPOSE:
      return CaProblem::kConstrained;
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
      return CaProblem::kNotCa;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
      return CaProblem::kWeak;
    default:
      return CaProblem::kUntrusted;
  }
}

std::string NameOfCa(const X509* certificate) {
  const std::string subject = x509::SubjectText(certificate);
  return subject.empty() ? "the CA without a subject"
                         : base::StrCat("the CA '", base::Printable(subject, 128), "'");
}

Step ParseCertificates(const CaFiles& files, Candidate& candidate) {
  absl::StatusOr<std::vector<x509::X509Ptr>> signing = x509::CertificatesFromPem(files.signing_pem);
  if (!signing.ok()) {
    return Problem{CaProblem::kMalformed,
                   base::StrCat("the CA's certificate: ", base::Message(signing.status()))};
  }
  candidate.presented = *std::move(signing);
  if (!files.chain_pem.empty()) {
    absl::StatusOr<std::vector<x509::X509Ptr>> chain = x509::CertificatesFromPem(files.chain_pem);
    if (!chain.ok()) {
      return Problem{CaProblem::kMalformed,
                     base::StrCat("the chain: ", base::Message(chain.status()))};
    }
    std::move(chain->begin(), chain->end(), std::back_inserter(candidate.presented));
  }
  absl::StatusOr<std::vector<x509::X509Ptr>> roots = x509::CertificatesFromPem(files.roots_pem);
  if (!roots.ok()) {
    return Problem{CaProblem::kMalformed,
                   base::StrCat("the roots: ", base::Message(roots.status()))};
  }
  for (x509::X509Ptr& root : *roots) {
    const bool known =
        std::any_of(candidate.roots.begin(), candidate.roots.end(),
                    [&root](const auto& other) { return X509_cmp(other.get(), root.get()) == 0; });
    if (!known) {
      candidate.roots.push_back(std::move(root));
    }
  }
  return std::nullopt;
}

Step CheckIsCa(const Candidate& candidate) {
  X509* const signing = candidate.signing();
  const std::string name = NameOfCa(signing);
  if (absl::Status status = x509::CheckEncoding(signing); !status.ok()) {
    return Problem{CaProblem::kMalformed, base::StrCat(name, ": ", base::Message(status))};
  }
  if (!x509::IsCa(signing)) {
    return Problem{CaProblem::kNotCa, base::StrCat(name, " is a leaf (no CA:TRUE)")};
  }
  if (!x509::MaySignCertificates(signing)) {
    return Problem{CaProblem::kNotCa, base::StrCat(name, " lacks the key usage keyCertSign")};
  }
  if (X509_NAME_entry_count(X509_get_subject_name(signing)) == 0) {
    return Problem{CaProblem::kNotCa, "the CA has no subject, which names it in what it signs"};
  }
  if (X509_get0_subject_key_id(signing) == nullptr) {  // RFC 5280 section 4.2.1.2: a CA must
    return Problem{CaProblem::kNotCa, base::StrCat(name, " has no subject key identifier")};
  }
  if (absl::Status status = x509::CheckKeyStrength(X509_get0_pubkey(signing)); !status.ok()) {
    return Problem{CaProblem::kWeak, base::StrCat(name, ": ", base::Message(status))};
  }
  if (EVP_PKEY_get_base_id(X509_get0_pubkey(signing)) == EVP_PKEY_RSA_PSS) {
    return Problem{
        CaProblem::kNoKey,
        base::StrCat(name, " has an RSA-PSS key; EC, Ed25519 or plain RSA can sign here")};
  }
  return std::nullopt;
}

// By a signature: what a key says of its own public half proves nothing, and a token's may not say
// it at all.
bool SignsFor(X509* certificate, EVP_PKEY* key) {
  const x509::ErrorQueueGuard guard;
  using MdCtxPtr = x509::OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;
  EVP_PKEY* const public_key = X509_get0_pubkey(certificate);
  const EVP_MD* digest = x509::SignatureDigest(public_key);
  const base::ByteSpan text = base::AsBytes("postern CA key check");
  std::vector<uint8_t> signature(static_cast<size_t>(std::max(EVP_PKEY_get_size(key), 1024)));
  size_t size = signature.size();
  const MdCtxPtr sign(EVP_MD_CTX_new());
  const MdCtxPtr verify(EVP_MD_CTX_new());
  return sign != nullptr && verify != nullptr &&
         EVP_DigestSignInit(sign.get(), nullptr, digest, nullptr, key) == 1 &&
         EVP_DigestSign(sign.get(), signature.data(), &size, text.data(), text.size()) == 1 &&
         EVP_DigestVerifyInit(verify.get(), nullptr, digest, nullptr, public_key) == 1 &&
         EVP_DigestVerify(verify.get(), signature.data(), size, text.data(), text.size()) == 1;
}

Step TakeKey(const CaFiles& files, EVP_PKEY* token_key, Candidate& candidate) {
  if (token_key != nullptr) {
    candidate.key = x509::SharePkey(token_key);
  } else {
    absl::StatusOr<x509::PkeyPtr> key = x509::PrivateKeyFromPem(files.key_pem);
    if (!key.ok()) {
      return Problem{CaProblem::kNoKey, std::string(base::Message(key.status()))};
    }
    candidate.key = *std::move(key);
  }
  if (!SignsFor(candidate.signing(), candidate.key.get())) {
    return Problem{CaProblem::kKeyMismatch,
                   base::StrCat("the key is not that of ", NameOfCa(candidate.signing()))};
  }
  return std::nullopt;
}

// From the signing certificate up to a root, whatever order the files have.
Step FindPath(X509_STORE* roots, absl::Time now, Candidate& candidate) {
  const x509::ErrorQueueGuard guard;
  const x509::X509StackPtr untrusted = x509::ShareX509Stack(candidate.presented);
  const x509::X509StoreCtxPtr context(X509_STORE_CTX_new());
  if (untrusted == nullptr || context == nullptr ||
      X509_STORE_CTX_init(context.get(), roots, candidate.signing(), untrusted.get()) != 1) {
    return Problem{CaProblem::kUntrusted, "out of memory"};
  }
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
  X509_VERIFY_PARAM_set_purpose(rules, X509_PURPOSE_ANY);
  X509_VERIFY_PARAM_set_depth(rules, x509::kMaxChainDepth - 2);  // a leaf comes below
  X509_VERIFY_PARAM_set_auth_level(rules, kAuthLevel);
  X509_VERIFY_PARAM_set_time(rules, absl::ToTimeT(now));
  if (X509_verify_cert(context.get()) != 1) {
    const int error = X509_STORE_CTX_get_error(context.get());
    const X509* const at = X509_STORE_CTX_get_current_cert(context.get());
    const CaProblem problem = ProblemOf(error);
    std::string detail = base::StrCat(at == nullptr ? "the chain" : NameOfCa(at), ": ",
                                      X509_verify_cert_error_string(error));
    if (at != nullptr && problem == CaProblem::kExpired) {
      base::StrAppend(detail, " at ", base::TimeText(x509::NotAfter(at)));
    } else if (at != nullptr && problem == CaProblem::kNotYetValid) {
      base::StrAppend(detail, " before ", base::TimeText(x509::NotBefore(at)));
    }
    return Problem{problem, std::move(detail)};
  }
  const STACK_OF(X509)* const verified = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(verified); ++i) {
    candidate.path.push_back(x509::ShareX509(sk_X509_value(verified, i)));
  }
  if (candidate.path.size() < 2) {
    return Problem{CaProblem::kNotCa,
                   base::StrCat(NameOfCa(candidate.signing()),
                                " is itself one of the roots: give an intermediate below it, so "
                                "that the root's key need not be here")};
  }
  return std::nullopt;
}

absl::StatusOr<std::shared_ptr<const SigningSlot>> MakeSlot(Candidate& candidate) {
  const absl::StatusOr<base::Sha256Digest> id = KeySha256(X509_get0_pubkey(candidate.signing()));
  if (!id.ok()) {
    return id.status();
  }
  auto slot = std::make_shared<SigningSlot>();
  slot->ca_id = base::ToHex(*id);
  slot->not_before = absl::InfinitePast();
  slot->not_after = absl::InfiniteFuture();
  for (const x509::X509Ptr& certificate : candidate.path) {
    slot->not_before = std::max(slot->not_before, x509::NotBefore(certificate.get()));
    slot->not_after = std::min(slot->not_after, x509::NotAfter(certificate.get()));
  }
  slot->root = std::move(candidate.path.back());
  candidate.path.pop_back();
  slot->chain = std::move(candidate.path);
  for (const x509::X509Ptr& certificate : slot->chain) {
    slot->chain_der.push_back(x509::CertificateToDer(certificate.get()));
  }
  slot->chain_pem = x509::CertificatesToPem(slot->chain);
  slot->key = std::move(candidate.key);
  return slot;
}

// A leaf that never leaves this function, judged as a client and as a server.
Step TryIt(const SigningSlot& slot, const x509::TrustBundleSet& bundles,
           const x509::TrustDomain& trust_domain, absl::Time now) {
  const absl::StatusOr<x509::PkeyPtr> leaf_key = x509::GenerateP256Key();
  const absl::StatusOr<SerialBytes> serial = RandomSerial();
  if (!leaf_key.ok() || !serial.ok()) {
    return Problem{CaProblem::kNoKey, "no key could be made to try the CA with"};
  }
  const absl::Time second = absl::FromUnixSeconds(absl::ToUnixSeconds(now));
  const Validity validity{.not_before = std::max(second - kLeafBackdate, slot.not_before),
                          .not_after = std::min(second + kProbeLifetime, slot.not_after)};
  const absl::StatusOr<std::string> der =
      BuildLeaf(base::StrCat(trust_domain.ToUri(), kProbePath), leaf_key->get(), *serial, validity,
                Issuing{.certificate = slot.chain.front().get(), .key = slot.key.get()});
  if (!der.ok()) {
    return Problem{CaProblem::kNoKey,
                   base::StrCat("the key does not sign: ", base::Message(der.status()))};
  }
  const absl::StatusOr<x509::X509Ptr> leaf = x509::CertificateFromDer(base::AsBytes(*der));
  const x509::X509StackPtr untrusted = x509::ShareX509Stack(slot.chain);
  if (!leaf.ok() || untrusted == nullptr) {
    return Problem{CaProblem::kNoKey, "what it signs does not parse"};
  }
  for (const x509::PeerRole role : {x509::PeerRole::kServer, x509::PeerRole::kClient}) {
    const x509::ChainVerdict verdict =
        x509::VerifyPeerChain(leaf->get(), untrusted.get(), bundles, role, now);
    if (!verdict.peer.has_value()) {
      return Problem{ProblemOf(verdict.error.x509_error),
                     base::StrCat("peers would refuse what ", NameOfCa(slot.chain.front().get()),
                                  " signs for ", trust_domain.ToUri(), ": ", verdict.error.detail)};
    }
  }
  return std::nullopt;
}

std::string Describe(const CaFiles& files, const SigningSlot& slot, size_t roots) {
  return base::StrCat(
      NameOfCa(slot.chain.front().get()), " (", NameOf(files.layout), ", ", slot.chain.size(),
      slot.chain.size() == 1 ? " intermediate, " : " intermediates, ", roots,
      roots == 1 ? " root" : " roots", ", valid until ", base::TimeText(slot.not_after), ")");
}

CaVerdict Refuse(Problem problem) {
  return {nullptr, problem.problem, std::move(problem.detail)};
}

}  // namespace

std::string_view Token(CaProblem problem) noexcept {
  switch (problem) {
#define X(enumerator, token)  \
  case CaProblem::enumerator: \
    return token;
    POSTERN_CA_PROBLEMS(X)
#undef X
  }
  return "";
}

CaVerdict JudgeCa(const CaFiles& files, EVP_PKEY* token_key, const x509::TrustDomain& trust_domain,
                  absl::Time now) {
  Candidate candidate;
  if (Step problem = ParseCertificates(files, candidate)) {
    return Refuse(*std::move(problem));
  }
  if (Step problem = CheckIsCa(candidate)) {
    return Refuse(*std::move(problem));
  }
  if (Step problem = TakeKey(files, token_key, candidate)) {
    return Refuse(*std::move(problem));
  }
  std::vector<x509::X509Ptr> shared;
  for (const x509::X509Ptr& root : candidate.roots) {
    shared.push_back(x509::ShareX509(root.get()));
  }
  absl::StatusOr<x509::TrustBundle> bundle =
      x509::TrustBundle::Create(trust_domain, std::move(shared));
  if (!bundle.ok()) {
    return Refuse({CaProblem::kBadRoots, std::string(base::Message(bundle.status()))});
  }
  if (Step problem = FindPath(bundle->store(), now, candidate)) {
    return Refuse(*std::move(problem));
  }
  absl::StatusOr<std::shared_ptr<const SigningSlot>> slot = MakeSlot(candidate);
  if (!slot.ok()) {
    return Refuse({CaProblem::kNoKey, std::string(base::Message(slot.status()))});
  }
  std::vector<x509::TrustBundle> bundles;
  bundles.push_back(*std::move(bundle));
  const x509::TrustBundleSet bundle_set(std::move(bundles));
  if (Step problem = TryIt(**slot, bundle_set, trust_domain, now)) {
    return Refuse(*std::move(problem));
  }
  auto ca = std::make_shared<PluggedCa>();
  ca->description = Describe(files, **slot, candidate.roots.size());
  ca->slot = *std::move(slot);
  ca->roots = std::move(candidate.roots);
  return {std::move(ca), CaProblem::kUnreadable, {}};
}

}  // namespace postern::ca
