// SPDX-License-Identifier: Apache-2.0
#include "common/x509/extensions.h"

#include <openssl/objects.h>
#include <openssl/x509v3.h>

#include "common/base/strings.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

constexpr int kMinSignatureBits = 112;

using GeneralNamesPtr = OpensslPtr<GENERAL_NAMES, GENERAL_NAMES_free>;

// OpenSSL computes and keeps these facts on first use, under a lock of its own; its signatures
// therefore lack a const that they honour.
X509* Mutable(const X509* certificate) {
  return const_cast<X509*>(certificate);
}

std::optional<uint32_t> UnlessAbsent(uint32_t bits) {
  return bits == UINT32_MAX ? std::nullopt : std::optional<uint32_t>(bits);
}

}  // namespace

absl::StatusOr<SubjectAltNames> ReadSubjectAltNames(const STACK_OF(X509_EXTENSION) * extensions) {
  const ErrorQueueGuard guard;
  const int at = X509v3_get_ext_by_NID(extensions, NID_subject_alt_name, -1);
  if (at < 0) {
    return SubjectAltNames{};
  }
  if (X509v3_get_ext_by_NID(extensions, NID_subject_alt_name, at) >= 0) {
    return absl::InvalidArgumentError("the subjectAltName extension stands twice");
  }
  const ASN1_OCTET_STRING* value = X509_EXTENSION_get_data(X509v3_get_ext(extensions, at));
  const unsigned char* cursor = ASN1_STRING_get0_data(value);
  const unsigned char* const end = cursor + ASN1_STRING_length(value);
  const GeneralNamesPtr names(d2i_GENERAL_NAMES(nullptr, &cursor, ASN1_STRING_length(value)));
  if (names == nullptr || cursor != end) {
    return absl::InvalidArgumentError("the subjectAltName extension is malformed");
  }
  SubjectAltNames found;
  const int count = sk_GENERAL_NAME_num(names.get());
  found.count = static_cast<size_t>(count);
  for (int i = 0; i < count; ++i) {
    int type = 0;
    const void* name = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (type == GEN_URI) {
      const auto* uri = static_cast<const ASN1_STRING*>(name);
      found.uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                              static_cast<size_t>(ASN1_STRING_length(uri)));
    }
  }
  return found;
}

CertificateUsage ReadUsage(const X509* certificate) {
  const ErrorQueueGuard guard;
  return {UnlessAbsent(X509_get_key_usage(Mutable(certificate))),
          UnlessAbsent(X509_get_extended_key_usage(Mutable(certificate)))};
}

bool MaySignCertificates(const X509* certificate) {
  return (ReadUsage(certificate).key_usage.value_or(KU_KEY_CERT_SIGN) & KU_KEY_CERT_SIGN) != 0;
}

absl::Status CheckEncoding(const X509* certificate) {
  const ErrorQueueGuard guard;
  if ((X509_get_extension_flags(Mutable(certificate)) & EXFLAG_INVALID) != 0) {
    return absl::InvalidArgumentError("an extension is malformed or stands twice");
  }
  return absl::OkStatus();
}

absl::Status CheckSignatureStrength(const X509* certificate) {
  const ErrorQueueGuard guard;
  int digest = NID_undef;
  int bits = 0;
  if (X509_get_signature_info(Mutable(certificate), &digest, nullptr, &bits, nullptr) != 1) {
    return absl::InvalidArgumentError("its signature algorithm is unknown");
  }
  if (bits < kMinSignatureBits) {
    const char* name = OBJ_nid2sn(digest);
    return absl::InvalidArgumentError(base::StrCat("it is signed with ",
                                                   name == nullptr ? "a weak digest" : name,
                                                   "; SHA-256 or better is needed"));
  }
  return absl::OkStatus();
}

}  // namespace postern::x509
