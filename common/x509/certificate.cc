// SPDX-License-Identifier: Apache-2.0
#include "common/x509/certificate.h"

#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <optional>

#include "common/base/strings.h"
#include "common/x509/digest.h"
#include "common/x509/extensions.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

using BignumPtr = OpensslPtr<BIGNUM, BN_free>;

constexpr size_t kMaxSubjectText = 512;

std::string ContentOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, size > 0 ? static_cast<size_t>(size) : 0);
}

std::optional<absl::Time> ToTime(const ASN1_TIME* time) {
  std::tm tm{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1) {
    return std::nullopt;
  }
  return absl::FromTM(tm, absl::UTCTimeZone());
}

enum class BlockResult : uint8_t { kCertificate, kOther, kEnd, kDamaged };

// Reads the next PEM block; `der` gets the content of a certificate and nothing of other blocks.
BlockResult ReadBlock(BIO* bio, std::string& der) {
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  ERR_clear_error();
  if (PEM_read_bio(bio, &name, &header, &data, &size) != 1) {
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? BlockResult::kEnd
                                                                        : BlockResult::kDamaged;
  }
  const bool wanted = std::string_view(name) == PEM_STRING_X509;
  if (wanted) {
    der.assign(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  }
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_clear_free(data, static_cast<size_t>(size));  // it may be the key of a combined file
  return wanted ? BlockResult::kCertificate : BlockResult::kOther;
}

std::string_view WithoutByteOrderMark(std::string_view text) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

}  // namespace

absl::StatusOr<X509Ptr> CertificateFromDer(base::ByteSpan der) {
  const ErrorQueueGuard guard;
  if (der.size() > INT_MAX) {
    return absl::InvalidArgumentError("a certificate is too large");
  }
  const unsigned char* at = der.data();
  X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError("a certificate does not parse: " + TakeOpensslReason());
  }
  if (at != der.data() + der.size()) {
    return absl::InvalidArgumentError("a certificate has bytes behind its end");
  }
  return certificate;
}

std::string CertificateToDer(const X509* certificate) {
  const ErrorQueueGuard guard;
  unsigned char* data = nullptr;
  const int size = i2d_X509(certificate, &data);
  if (size <= 0) {
    return {};
  }
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

std::string CertificateToPem(const X509* certificate) {
  const ErrorQueueGuard guard;
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_X509(bio.get(), certificate) != 1) {
    return {};
  }
  return ContentOf(bio.get());
}

absl::StatusOr<std::vector<X509Ptr>> CertificatesFromPem(std::string_view pem) {
  const ErrorQueueGuard guard;
  pem = WithoutByteOrderMark(pem);
  if (pem.size() > INT_MAX) {
    return absl::InvalidArgumentError("the PEM text is too large");
  }
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (bio == nullptr) {
    return OpensslFailure("cannot read PEM");
  }
  std::vector<X509Ptr> certificates;
  std::string der;
  for (BlockResult result = ReadBlock(bio.get(), der); result != BlockResult::kEnd;
       result = ReadBlock(bio.get(), der)) {
    if (result == BlockResult::kOther) {
      continue;
    }
    const std::string number = base::StrCat("certificate ", certificates.size() + 1);
    if (result == BlockResult::kDamaged) {
      return absl::InvalidArgumentError(
          base::StrCat(number, ": its PEM block is damaged or cut short"));
    }
    absl::StatusOr<X509Ptr> certificate = CertificateFromDer(base::AsBytes(der));
    if (!certificate.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat(number, ": ", base::Message(certificate.status())));
    }
    certificates.push_back(*std::move(certificate));
  }
  if (certificates.empty()) {
    return absl::InvalidArgumentError("the text holds no certificate in PEM form");
  }
  return certificates;
}

std::string CertificatesToPem(const std::vector<X509Ptr>& certificates) {
  std::string pem;
  for (const X509Ptr& certificate : certificates) {
    pem += CertificateToPem(certificate.get());
  }
  return pem;
}

// A time that does not parse makes the certificate invalid at every time.
absl::Time NotBefore(const X509* certificate) {
  const ErrorQueueGuard guard;
  return ToTime(X509_get0_notBefore(certificate)).value_or(absl::InfiniteFuture());
}

absl::Time NotAfter(const X509* certificate) {
  const ErrorQueueGuard guard;
  return ToTime(X509_get0_notAfter(certificate)).value_or(absl::InfinitePast());
}

std::string SerialHex(const X509* certificate) {
  return SerialHex(X509_get0_serialNumber(certificate));
}

std::string SerialHex(const ASN1_INTEGER* integer) {
  const ErrorQueueGuard guard;
  const BignumPtr serial(ASN1_INTEGER_to_BN(integer, nullptr));
  if (serial == nullptr) {
    return {};
  }
  std::string bytes(static_cast<size_t>(std::max(BN_num_bytes(serial.get()), 1)), '\0');
  BN_bn2binpad(serial.get(), reinterpret_cast<unsigned char*>(bytes.data()),
               static_cast<int>(bytes.size()));
  return (BN_is_negative(serial.get()) != 0 ? "-" : "") + base::ToHex(base::AsBytes(bytes));
}

std::string SubjectText(const X509* certificate) {
  const ErrorQueueGuard guard;
  const BioPtr bio(BIO_new(BIO_s_mem()));
  // XN_FLAG_RFC2253 escapes control characters and everything above ASCII.
  if (bio == nullptr ||
      X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) < 0) {
    return {};
  }
  return ContentOf(bio.get()).substr(0, kMaxSubjectText);
}

base::Sha256Digest Sha256OfCertificate(const X509* certificate) {
  const ErrorQueueGuard guard;
  base::Sha256Digest digest{};
  unsigned int size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1 || size != digest.size()) {
    // Out of memory, or no SHA-256 at all. An invented digest would slip past a revocation.
    std::abort();
  }
  return digest;
}

base::Sha256Digest Sha256OfKey(const X509* certificate) {
  const ErrorQueueGuard guard;
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) {
    std::abort();  // as above
  }
  const base::Sha256Digest digest = Sha256({der, static_cast<size_t>(size)});
  OPENSSL_free(der);
  return digest;
}

bool IsCa(const X509* certificate) {
  const ErrorQueueGuard guard;
  // OpenSSL computes the flags on first use, under its own lock.
  return (X509_get_extension_flags(const_cast<X509*>(certificate)) & EXFLAG_CA) != 0;
}

std::vector<std::string> UriSans(const X509* certificate) {
  absl::StatusOr<SubjectAltNames> names = ReadSubjectAltNames(X509_get0_extensions(certificate));
  return names.ok() ? std::move(names->uris) : std::vector<std::string>{};
}

absl::StatusOr<SpiffeId> LeafSpiffeId(const X509* certificate) {
  const absl::StatusOr<SubjectAltNames> names =
      ReadSubjectAltNames(X509_get0_extensions(certificate));
  if (!names.ok()) {
    return names.status();
  }
  if (names->uris.empty()) {
    return absl::InvalidArgumentError("the certificate names no SPIFFE ID (it has no URI SAN)");
  }
  if (names->uris.size() > 1) {
    return absl::InvalidArgumentError(base::StrCat("the certificate has ", names->uris.size(),
                                                   " URI SANs; an X.509-SVID has exactly one"));
  }
  absl::StatusOr<SpiffeId> id = SpiffeId::Parse(names->uris.front());
  if (id.ok() && !id->IsWorkload()) {
    return absl::InvalidArgumentError(
        base::StrCat("'", id->uri(), "' names a trust domain, not a workload (it has no path)"));
  }
  return id;
}

}  // namespace postern::x509
