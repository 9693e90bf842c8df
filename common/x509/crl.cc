// SPDX-License-Identifier: Apache-2.0
#include "common/x509/crl.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <climits>
#include <ctime>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

constexpr int kLeastSecurityBits = 112;
constexpr char kDerSequence = '\x30';

std::optional<absl::Time> ToTime(const ASN1_TIME* time) {
  std::tm tm{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1) {
    return std::nullopt;
  }
  return absl::FromTM(tm, absl::UTCTimeZone());
}

absl::StatusOr<X509CrlPtr> CrlFromDer(base::ByteSpan der) {
  const unsigned char* at = der.data();
  X509CrlPtr crl(d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
  if (crl == nullptr) {
    return absl::InvalidArgumentError("a CRL does not parse: " + TakeOpensslReason());
  }
  if (at != der.data() + der.size()) {
    return absl::InvalidArgumentError("a CRL has bytes behind its end");
  }
  return crl;
}

// One PEM block into `content`; other blocks are passed over.
absl::Status AddBlock(std::string_view name, base::ByteSpan der, CrlContent& content) {
  if (name == PEM_STRING_X509_CRL) {
    absl::StatusOr<X509CrlPtr> crl = CrlFromDer(der);
    if (!crl.ok()) {
      return crl.status();
    }
    content.crls.push_back(*std::move(crl));
  } else if (name == PEM_STRING_X509) {
    absl::StatusOr<X509Ptr> certificate = CertificateFromDer(der);
    if (!certificate.ok()) {
      return certificate.status();
    }
    content.authorities.push_back(*std::move(certificate));
  }
  return absl::OkStatus();
}

absl::Status ReadPem(std::string_view text, CrlContent& content) {
  const BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (bio == nullptr) {
    return OpensslFailure("cannot read PEM");
  }
  while (true) {
    char* name = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long size = 0;
    ERR_clear_error();
    if (PEM_read_bio(bio.get(), &name, &header, &data, &size) != 1) {
      return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE
                 ? absl::OkStatus()
                 : absl::InvalidArgumentError("a PEM block is damaged or cut short");
    }
    const absl::Status added = AddBlock(name, {data, static_cast<size_t>(size)}, content);
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<size_t>(size));  // it may be the key of a combined file
    if (!added.ok()) {
      return added;
    }
  }
}

bool HasCriticalExtension(const STACK_OF(X509_EXTENSION) * extensions) {
  for (int i = 0; i < sk_X509_EXTENSION_num(extensions); ++i) {
    if (X509_EXTENSION_get_critical(sk_X509_EXTENSION_value(extensions, i)) != 0) {
      return true;
    }
  }
  return false;
}

// A CRL that says less, or about others, than its issuer's whole list says so in a critical
// extension.
absl::Status CheckForm(X509_CRL* crl) {
  if (HasCriticalExtension(X509_CRL_get0_extensions(crl))) {
    return absl::InvalidArgumentError(
        "a CRL with a critical extension (delta, partial or indirect) cannot be used: give the "
        "CA's "
        "complete one");
  }
  STACK_OF(X509_REVOKED)* const entries = X509_CRL_get_REVOKED(crl);
  for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
    if (HasCriticalExtension(X509_REVOKED_get0_extensions(sk_X509_REVOKED_value(entries, i)))) {
      return absl::InvalidArgumentError(
          "a CRL with a critical extension in an entry (indirect) cannot be used");
    }
  }
  if (!ToTime(X509_CRL_get0_lastUpdate(crl)).has_value()) {
    return absl::InvalidArgumentError("a CRL has no thisUpdate");
  }
  return absl::OkStatus();
}

absl::Status CheckStrength(X509_CRL* crl) {
  int digest = NID_undef;
  int bits = 0;
  if (OBJ_find_sigid_algs(X509_CRL_get_signature_nid(crl), &digest, nullptr) != 1) {
    return absl::InvalidArgumentError("a CRL has a signature of an unknown kind");
  }
  const EVP_MD* const md = digest == NID_undef ? nullptr : EVP_get_digestbynid(digest);
  bits = md == nullptr ? kLeastSecurityBits : EVP_MD_get_size(md) * 4;  // Ed25519 names no digest
  return bits >= kLeastSecurityBits && digest != NID_sha1
             ? absl::OkStatus()
             : absl::InvalidArgumentError("a CRL is signed with a weak digest");
}

bool MaySignCrls(const X509* authority) {
  const std::optional<uint32_t> usage = ReadUsage(authority).key_usage;
  return IsCa(authority) && (!usage.has_value() || (*usage & KU_CRL_SIGN) != 0);
}

// The CA whose key made the signature. Several may have the name: a CA and its successor.
absl::StatusOr<X509*> FindIssuer(X509_CRL* crl, const std::vector<X509Ptr>& authorities) {
  bool name_known = false;
  for (const X509Ptr& authority : authorities) {
    if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(authority.get())) != 0) {
      continue;
    }
    name_known = true;
    EVP_PKEY* const key = X509_get0_pubkey(authority.get());
    if (key != nullptr && X509_CRL_verify(crl, key) == 1) {
      if (!MaySignCrls(authority.get())) {
        return absl::InvalidArgumentError(
            base::StrCat(SubjectText(authority.get()), " may not sign CRLs (key usage cRLSign)"));
      }
      if (absl::Status strong = CheckKeyStrength(key); !strong.ok()) {
        return strong;
      }
      return authority.get();
    }
  }
  return absl::InvalidArgumentError(
      name_known ? "the CRL's signature is not of the CA that it names"
                 : "the CRL's CA is not known: put its certificate beside the CRL, into the same "
                   "file or directory");
}

}  // namespace

absl::StatusOr<CrlContent> ParseCrlFile(std::string_view content) {
  const ErrorQueueGuard guard;
  CrlContent parsed;
  if (content.size() > INT_MAX) {
    return absl::InvalidArgumentError("the file is too large");
  }
  if (content.starts_with(kDerSequence)) {
    absl::StatusOr<X509CrlPtr> crl = CrlFromDer(base::AsBytes(content));
    if (crl.ok()) {
      parsed.crls.push_back(*std::move(crl));
      return parsed;
    }
    // A CA's certificate may lie beside its CRL in DER as well.
    absl::StatusOr<X509Ptr> certificate = CertificateFromDer(base::AsBytes(content));
    if (!certificate.ok()) {
      return crl.status();
    }
    parsed.authorities.push_back(*std::move(certificate));
    return parsed;
  }
  if (absl::Status read = ReadPem(content, parsed); !read.ok()) {
    return read;
  }
  if (parsed.crls.empty() && parsed.authorities.empty()) {
    return absl::InvalidArgumentError("no CRL, neither as PEM nor as DER");
  }
  return parsed;
}

absl::StatusOr<std::shared_ptr<const Crl>> VerifyCrl(X509_CRL* crl, std::string_view source,
                                                     const std::vector<X509Ptr>& authorities) {
  const ErrorQueueGuard guard;
  if (absl::Status formed = CheckForm(crl); !formed.ok()) {
    return formed;
  }
  if (absl::Status strong = CheckStrength(crl); !strong.ok()) {
    return strong;
  }
  const absl::StatusOr<X509*> authority = FindIssuer(crl, authorities);
  if (!authority.ok()) {
    return authority.status();
  }
  auto verified = std::make_shared<Crl>();
  verified->source = source;
  verified->issuer = SubjectText(*authority);
  verified->issuer_key = HalfOf(Sha256OfKey(*authority));
  verified->this_update = ToTime(X509_CRL_get0_lastUpdate(crl)).value_or(absl::InfinitePast());
  const ASN1_TIME* const next = X509_CRL_get0_nextUpdate(crl);
  // One that cannot be read is as good as past.
  verified->next_update =
      next == nullptr ? absl::InfiniteFuture() : ToTime(next).value_or(absl::InfinitePast());
  STACK_OF(X509_REVOKED)* const entries = X509_CRL_get_REVOKED(crl);
  for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
    const X509_REVOKED* const entry = sk_X509_REVOKED_value(entries, i);
    verified->revoked.insert(
        LinkDigest(verified->issuer_key, SerialHex(X509_REVOKED_get0_serialNumber(entry))));
  }
  return std::shared_ptr<const Crl>(std::move(verified));
}

}  // namespace postern::x509
