// SPDX-License-Identifier: Apache-2.0
#include "common/x509/chain_verifier.h"

#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <variant>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

using base::CloseReason;

// What a peer may send at most: a full chain twice over, as during a CA rotation.
constexpr int kMaxPresented = 2 * kMaxChainDepth + 2;
constexpr int kAuthLevel = 2;  // 112 bits: what CheckKeyStrength and CheckSignatureStrength ask for

// A step's refusal; nullopt: go on.
struct Problem {
  CloseReason reason;
  int x509_error;
  int depth;
  std::string detail;
};
using Step = std::optional<Problem>;

// "certificate 1 of the chain (CN=...)"
std::string NameOf(const X509* certificate, int depth) {
  const std::string subject = SubjectText(certificate);
  return base::StrCat(
      depth == 0 ? "the leaf" : base::StrCat("certificate ", depth, " above the leaf"),
      subject.empty() ? "" : base::StrCat(" (", base::Printable(subject, 128), ")"));
}

std::string Rounded(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Seconds(1)));
}

// Which reason stands for an error of OpenSSL's path validation. What is not listed is a chain that
// does not lead to a root.
CloseReason ReasonOf(int x509_error) {
  switch (x509_error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return CloseReason::kPeerExpired;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return CloseReason::kPeerNotYetValid;
    case X509_V_ERR_INVALID_PURPOSE:
      return CloseReason::kPeerWrongUsage;
    case X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD:
    case X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD:
    case X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY:
    case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
    case X509_V_ERR_INVALID_EXTENSION:
    case X509_V_ERR_UNSUPPORTED_EXTENSION_FEATURE:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX:
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
    case X509_V_ERR_EC_KEY_EXPLICIT_PARAMS:
      return CloseReason::kPeerBadCertificate;
    case X509_V_ERR_OUT_OF_MEM:
    case X509_V_ERR_UNSPECIFIED:
      return CloseReason::kInternal;
    default:
      return CloseReason::kPeerUntrusted;
  }
}

std::string DetailOf(int x509_error, const X509* certificate, int depth, absl::Time now) {
  const std::string who = certificate == nullptr ? "the chain" : NameOf(certificate, depth);
  if (certificate != nullptr && x509_error == X509_V_ERR_CERT_HAS_EXPIRED) {
    return base::StrCat(who, " expired ", Rounded(now - NotAfter(certificate)), " ago");
  }
  if (certificate != nullptr && x509_error == X509_V_ERR_CERT_NOT_YET_VALID) {
    return base::StrCat(who, " is not valid for another ", Rounded(NotBefore(certificate) - now));
  }
  return base::StrCat(who, ": ", X509_verify_cert_error_string(x509_error));
}

Step CheckNameCount(const X509* certificate, int depth) {
  const absl::StatusOr<SubjectAltNames> names =
      ReadSubjectAltNames(X509_get0_extensions(certificate));
  if (!names.ok()) {
    return Problem{CloseReason::kPeerBadCertificate, X509_V_ERR_CERT_REJECTED, depth,
                   std::string(base::Message(names.status()))};
  }
  if (names->count > kMaxSubjectAltNames) {
    return Problem{CloseReason::kPeerBadCertificate, X509_V_ERR_CERT_REJECTED, depth,
                   base::StrCat("a certificate has ", names->count,
                                " subject alternative names, more than ", kMaxSubjectAltNames)};
  }
  return std::nullopt;
}

// Bounds on what a peer makes us work through, before any of the work.
Step CheckSizes(const X509* leaf, const STACK_OF(X509) * untrusted) {
  if (sk_X509_num(untrusted) > kMaxPresented) {
    return Problem{CloseReason::kPeerUntrusted, X509_V_ERR_CERT_CHAIN_TOO_LONG, -1,
                   base::StrCat("the peer sent ", sk_X509_num(untrusted),
                                " certificates, more than ", kMaxPresented)};
  }
  // Name constraints times names is quadratic; OpenSSL's own bound is a million.
  if (Step problem = CheckNameCount(leaf, 0)) {
    return problem;
  }
  for (int i = 0; i < sk_X509_num(untrusted); ++i) {  // a null stack has -1
    if (Step problem = CheckNameCount(sk_X509_value(untrusted, i), -1)) {
      return problem;
    }
  }
  return std::nullopt;
}

struct Path {
  std::vector<X509Ptr> certificates;  // leaf first, root last
};

Problem PathProblem(X509_STORE_CTX* context, absl::Time now) {
  int error = X509_STORE_CTX_get_error(context);
  if (error == X509_V_OK) {  // never let a refusal look like a success to who reads the code
    error = X509_V_ERR_UNSPECIFIED;
  }
  const int depth = X509_STORE_CTX_get_error_depth(context);
  return {ReasonOf(error), error, depth,
          DetailOf(error, X509_STORE_CTX_get_current_cert(context), depth, now)};
}

Problem OutOfMemory() {
  return {CloseReason::kInternal, X509_V_ERR_OUT_OF_MEM, -1, "out of memory"};
}

// RFC 5280 section 6 against the roots of one trust domain, at `now`. Usage is judged by
// CheckProfile, for OpenSSL's purposes let too much through.
std::variant<Path, Problem> ValidatePath(X509* leaf, STACK_OF(X509) * untrusted,
                                         const TrustBundle& bundle, absl::Time now) {
  const X509StoreCtxPtr context(X509_STORE_CTX_new());
  if (context == nullptr ||
      X509_STORE_CTX_init(context.get(), bundle.store(), leaf, untrusted) != 1) {
    return OutOfMemory();
  }
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  // Each certificate of a bundle is an anchor, self-signed or not.
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
  X509_VERIFY_PARAM_set_purpose(rules, X509_PURPOSE_ANY);
  X509_VERIFY_PARAM_set_depth(rules, kMaxChainDepth - 1);  // it counts intermediates only
  X509_VERIFY_PARAM_set_auth_level(rules, kAuthLevel);
  X509_VERIFY_PARAM_set_time(rules, absl::ToTimeT(now));
  if (X509_verify_cert(context.get()) != 1) {
    return PathProblem(context.get(), now);
  }
  Path path;
  const STACK_OF(X509)* const verified = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(verified); ++i) {
    path.certificates.push_back(ShareX509(sk_X509_value(verified, i)));
  }
  if (path.certificates.size() < 2) {  // a peer must not present an anchor as itself
    return Problem{CloseReason::kPeerBadCertificate, X509_V_ERR_CERT_REJECTED, 0,
                   "the leaf is one of the trust domain's roots"};
  }
  return path;
}

// X509-SVID sections 3 to 5: what only a leaf may be.
Step CheckLeafProfile(const X509* leaf) {
  const auto bad = [](std::string_view problem) {
    return Problem{CloseReason::kPeerBadCertificate, X509_V_ERR_CERT_REJECTED, 0,
                   std::string(problem)};
  };
  if (absl::Status status = CheckEncoding(leaf); !status.ok()) {
    return bad(base::Message(status));
  }
  if (IsCa(leaf)) {
    return bad("the leaf is a CA certificate");
  }
  const uint32_t usage = ReadUsage(leaf).key_usage.value_or(0);
  if ((usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0) {
    return bad("the leaf has the key usage keyCertSign or cRLSign");
  }
  if ((usage & KU_DIGITAL_SIGNATURE) == 0) {
    return Problem{CloseReason::kPeerWrongUsage, X509_V_ERR_INVALID_PURPOSE, 0,
                   "the leaf lacks the key usage digitalSignature"};
  }
  return std::nullopt;
}

// The leaf must name the usage. A CA that names usages must name this one or any; most name none.
Step CheckExtendedUsage(const Path& path, PeerRole role) {
  const uint32_t needed = role == PeerRole::kClient ? XKU_SSL_CLIENT : XKU_SSL_SERVER;
  const std::string_view name = role == PeerRole::kClient ? "clientAuth" : "serverAuth";
  for (size_t i = 0; i < path.certificates.size(); ++i) {
    const X509* const certificate = path.certificates[i].get();
    const std::optional<uint32_t> extended = ReadUsage(certificate).extended;
    const bool fits = i == 0 ? (extended.value_or(0) & needed) != 0
                             : (extended.value_or(needed) & (needed | XKU_ANYEKU)) != 0;
    if (!fits) {
      const int depth = static_cast<int>(i);
      return Problem{
          CloseReason::kPeerWrongUsage, X509_V_ERR_INVALID_PURPOSE, depth,
          base::StrCat(NameOf(certificate, depth), " lacks the extended key usage ", name)};
    }
  }
  return std::nullopt;
}

// OpenSSL's authentication level takes P-224, P-521 and DSA, and does not look at the root.
Step CheckStrength(const Path& path) {
  for (size_t i = 0; i < path.certificates.size(); ++i) {
    X509* const certificate = path.certificates[i].get();
    const int depth = static_cast<int>(i);
    if (absl::Status status = CheckKeyStrength(X509_get0_pubkey(certificate)); !status.ok()) {
      return Problem{CloseReason::kPeerBadCertificate,
                     i == 0 ? X509_V_ERR_EE_KEY_TOO_SMALL : X509_V_ERR_CA_KEY_TOO_SMALL, depth,
                     base::StrCat(NameOf(certificate, depth), ": ", base::Message(status))};
    }
    if (absl::Status status = CheckSignatureStrength(certificate); !status.ok()) {
      return Problem{CloseReason::kPeerBadCertificate, X509_V_ERR_CA_MD_TOO_WEAK, depth,
                     base::StrCat(NameOf(certificate, depth), ": ", base::Message(status))};
    }
  }
  return std::nullopt;
}

VerifiedPeer FactsOf(SpiffeId id, const Path& path) {
  X509* const leaf = path.certificates.front().get();
  VerifiedPeer peer{std::move(id), NotBefore(leaf), NotAfter(leaf), SerialHex(leaf), {}, {}};
  const X509* below = nullptr;
  for (const X509Ptr& certificate : path.certificates) {
    peer.not_before = std::max(peer.not_before, NotBefore(certificate.get()));
    peer.not_after = std::min(peer.not_after, NotAfter(certificate.get()));
    peer.chain_sha256.push_back(Sha256OfCertificate(certificate.get()));
    if (below != nullptr) {
      const HalfDigest issuer_key = HalfOf(Sha256OfKey(certificate.get()));
      peer.links.push_back({issuer_key, LinkDigest(issuer_key, SerialHex(below))});
    }
    below = certificate.get();
  }
  peer.key_sha256 = Sha256OfKey(leaf);
  peer.leaf_sha256 = peer.chain_sha256.front();
  return peer;
}

}  // namespace

HalfDigest HalfOf(const base::Sha256Digest& digest) {
  HalfDigest half;
  std::copy_n(digest.begin(), half.size(), half.begin());
  return half;
}

HalfDigest LinkDigest(const HalfDigest& issuer_key, std::string_view serial) {
  const std::string text = base::StrCat(base::AsText(issuer_key), serial);
  return HalfOf(Sha256(base::AsBytes(text)));
}

ChainVerdict VerifyPeerChain(X509* leaf, STACK_OF(X509) * untrusted, const TrustBundleSet& bundles,
                             PeerRole role, absl::Time now) {
  const ErrorQueueGuard guard;
  ChainVerdict verdict;
  const auto refuse = [&verdict](Problem problem) {
    verdict.error.reason = problem.reason;
    verdict.error.x509_error = problem.x509_error;
    verdict.error.depth = problem.depth;
    verdict.error.detail = std::move(problem.detail);
    return std::move(verdict);
  };
  if (leaf == nullptr) {
    return refuse({CloseReason::kPeerNoCertificate, X509_V_ERR_CERT_REJECTED, -1,
                   "the peer sent no certificate"});
  }
  if (Step problem = CheckSizes(leaf, untrusted)) {
    return refuse(*std::move(problem));
  }
  absl::StatusOr<SpiffeId> id = LeafSpiffeId(leaf);
  if (!id.ok()) {
    return refuse({CloseReason::kPeerBadCertificate, X509_V_ERR_CERT_REJECTED, 0,
                   std::string(base::Message(id.status()))});
  }
  verdict.error.peer_id = id->uri();
  const TrustBundle* const bundle = bundles.Find(id->trust_domain_name());
  if (bundle == nullptr) {
    return refuse({CloseReason::kTrustDomainUnknown, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
                   0, base::StrCat("no trust bundle for '", id->trust_domain_name(), "'")});
  }
  std::variant<Path, Problem> validated = ValidatePath(leaf, untrusted, *bundle, now);
  if (Problem* problem = std::get_if<Problem>(&validated)) {
    return refuse(std::move(*problem));
  }
  const Path& path = std::get<Path>(validated);
  for (Step problem :
       {CheckLeafProfile(leaf), CheckExtendedUsage(path, role), CheckStrength(path)}) {
    if (problem.has_value()) {
      return refuse(*std::move(problem));
    }
  }
  return {FactsOf(*std::move(id), path), {}};
}

}  // namespace postern::x509
