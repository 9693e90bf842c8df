// SPDX-License-Identifier: Apache-2.0
#include "control/issue/leaf_profile.h"

#include <openssl/x509v3.h>

#include <cstdint>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/digest.h"
#include "common/x509/openssl_error.h"
#include "common/x509/public_key.h"

namespace postern::issue {
namespace {

constexpr uint8_t kInteger = 0x02;
constexpr uint8_t kBitString = 0x03;
constexpr uint8_t kOctetString = 0x04;
constexpr uint8_t kUtcTime = 0x17;
constexpr uint8_t kGeneralizedTime = 0x18;
constexpr uint8_t kSequence = 0x30;
constexpr uint8_t kUri = 0x86;            // [6] of GeneralName
constexpr uint8_t kKeyIdentifier = 0x80;  // [0] of AuthorityKeyIdentifier
constexpr uint8_t kExplicit3 = 0xa3;      // [3] of TBSCertificate
constexpr size_t kKeyIdBytes = 20;        // RFC 7093 section 2, method 1

// Whole encodings, in hexadecimal.
constexpr std::string_view kVersion3 = "a003020102";
constexpr std::string_view kEcdsaSha256 = "300a06082a8648ce3d040302";
constexpr std::string_view kRsaSha256 = "300d06092a864886f70d01010b0500";  // RFC 4055: NULL
constexpr std::string_view kEd25519 = "300506032b6570";                    // RFC 8410: none
constexpr std::string_view kEmptyName = "3000";
constexpr std::string_view kBasicConstraints = "300c0603551d130101ff04023000";  // critical, no CA
constexpr std::string_view kKeyUsage = "300e0603551d0f0101ff040403020780";      // critical
constexpr std::string_view kExtendedKeyUsage =
    "301d0603551d250416301406082b0601050507030106082b06010505070302";
constexpr std::string_view kSubjectAltName = "0603551d110101ff";  // the OID, and critical
constexpr std::string_view kSubjectKeyId = "0603551d0e";
constexpr std::string_view kAuthorityKeyId = "0603551d23";

// A literal of this file; it is always good.
std::string Bytes(std::string_view hex) {
  return *base::FromHex(hex);
}

std::string Der(uint8_t tag, std::string_view content) {
  std::string out(1, static_cast<char>(tag));
  if (content.size() < 0x80) {
    out += static_cast<char>(content.size());
  } else if (content.size() <= 0xff) {
    out += {static_cast<char>(0x81), static_cast<char>(content.size())};
  } else {  // nothing here comes near 64 KiB: an identity has at most 2048 bytes
    out += {static_cast<char>(0x82), static_cast<char>(content.size() >> 8U),
            static_cast<char>(content.size() & 0xffU)};
  }
  out += content;
  return out;
}

std::string Extension(std::string_view oid_hex, std::string_view value) {
  return Der(kSequence, Bytes(oid_hex) + Der(kOctetString, value));
}

// `hex` as SerialHex writes it: of a positive number.
std::string SerialDer(std::string_view hex) {
  const absl::StatusOr<std::string> number = base::FromHex(hex);
  if (!number.ok() || number->empty()) {
    return {};
  }
  const bool top_bit = (static_cast<uint8_t>(number->front()) & 0x80U) != 0;
  return Der(kInteger, top_bit ? std::string(1, '\0') + *number : *number);
}

// RFC 5280 section 4.1.2.5: two digits of the year until 2049.
std::string TimeDer(absl::Time time) {
  const absl::TimeZone utc = absl::UTCTimeZone();
  return absl::ToCivilYear(time, utc).year() < 2050
             ? Der(kUtcTime, absl::FormatTime("%y%m%d%H%M%SZ", time, utc))
             : Der(kGeneralizedTime, absl::FormatTime("%E4Y%m%d%H%M%SZ", time, utc));
}

std::optional<std::string> NameDer(const X509* certificate) {
  const x509::ErrorQueueGuard guard;
  const unsigned char* data = nullptr;
  size_t size = 0;
  if (X509_NAME_get0_der(X509_get_subject_name(certificate), &data, &size) != 1) {
    return std::nullopt;
  }
  return std::string(reinterpret_cast<const char*>(data), size);
}

std::string KeyIdOf(std::string_view spki) {
  const base::Sha256Digest digest = x509::Sha256(base::AsBytes(spki));
  return std::string(base::AsText(base::ByteSpan(digest).first(kKeyIdBytes)));
}

std::string ExtensionsDer(std::string_view uri, std::string_view key_id,
                          std::string_view signer_key_id) {
  const std::string list =
      Bytes(kBasicConstraints) + Bytes(kKeyUsage) + Bytes(kExtendedKeyUsage) +
      Extension(kSubjectAltName, Der(kSequence, Der(kUri, uri))) +
      Extension(kSubjectKeyId, Der(kOctetString, key_id)) +
      Extension(kAuthorityKeyId, Der(kSequence, Der(kKeyIdentifier, signer_key_id)));
  return Der(kExplicit3, Der(kSequence, list));
}

// The AlgorithmIdentifier of what a key of this type signs.
std::string_view AlgorithmOf(const EVP_PKEY* key) {
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519:
      return kEd25519;
    case EVP_PKEY_RSA:
      return kRsaSha256;
    default:
      return kEcdsaSha256;
  }
}

// Takes one value of `tag` off the front of `rest` and returns its content; nullopt: it is not one,
// or its length is not the shortest form, or reaches beyond the end.
std::optional<std::string_view> Take(std::string_view& rest, uint8_t tag) {
  if (rest.size() < 2 || static_cast<uint8_t>(rest[0]) != tag) {
    return std::nullopt;
  }
  size_t header = 2;
  size_t size = static_cast<uint8_t>(rest[1]);
  if (size >= 0x80) {
    const size_t bytes = size - 0x80;
    if (bytes < 1 || bytes > 2 || rest.size() < 2 + bytes) {
      return std::nullopt;
    }
    size = 0;
    for (size_t i = 0; i < bytes; ++i) {
      size = (size << 8U) | static_cast<uint8_t>(rest[2 + i]);
    }
    if (size < (bytes == 1 ? 0x80U : 0x100U)) {
      return std::nullopt;
    }
    header += bytes;
  }
  if (rest.size() < header + size) {
    return std::nullopt;
  }
  const std::string_view content = rest.substr(header, size);
  rest.remove_prefix(header + size);
  return content;
}

}  // namespace

absl::StatusOr<std::string> ExpectedTbs(const ca::SignedSvid& made,
                                        const ca::SvidTemplate& wanted) {
  X509* const signer = made.signer->chain.front().get();
  const absl::StatusOr<std::string> spki = x509::PublicKeyToDer(wanted.public_key);
  if (!spki.ok()) {
    return spki.status();
  }
  const std::optional<std::string> issuer = NameDer(signer);
  const ASN1_OCTET_STRING* const signer_key_id = X509_get0_subject_key_id(signer);
  if (!issuer.has_value() || signer_key_id == nullptr) {
    return absl::InternalError("the signer's certificate lacks a name or a key identifier");
  }
  const std::string_view authority(
      reinterpret_cast<const char*>(ASN1_STRING_get0_data(signer_key_id)),
      static_cast<size_t>(ASN1_STRING_length(signer_key_id)));
  const std::string algorithm = Bytes(AlgorithmOf(X509_get0_pubkey(signer)));
  return Der(kSequence, Bytes(kVersion3) + SerialDer(made.serial) + algorithm + *issuer +
                            Der(kSequence, TimeDer(made.not_before) + TimeDer(made.not_after)) +
                            Bytes(kEmptyName) + *spki +
                            ExtensionsDer(wanted.id.uri(), KeyIdOf(*spki), authority));
}

SignedParts SplitCertificate(std::string_view der, const EVP_PKEY* signer) {
  const std::optional<std::string_view> whole = Take(der, kSequence);
  if (!whole.has_value() || !der.empty()) {
    return {};
  }
  std::string_view rest = *whole;
  if (!Take(rest, kSequence).has_value()) {
    return {};
  }
  const std::string_view tbs = whole->substr(0, whole->size() - rest.size());
  const std::string algorithm = Bytes(AlgorithmOf(signer));
  if (!rest.starts_with(algorithm)) {
    return {};
  }
  rest.remove_prefix(algorithm.size());
  const std::optional<std::string_view> bits = Take(rest, kBitString);
  if (!bits.has_value() || !rest.empty() || bits->size() < 2 || bits->front() != '\0') {
    return {};
  }
  return {tbs, bits->substr(1)};
}

}  // namespace postern::issue
