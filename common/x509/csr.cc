// SPDX-License-Identifier: Apache-2.0
#include "common/x509/csr.h"

#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "common/base/strings.h"
#include "common/x509/extensions.h"
#include "common/x509/key.h"
#include "common/x509/openssl_error.h"
#include "common/x509/public_key.h"

namespace postern::x509 {
namespace {

inline void FreeExtensions(STACK_OF(X509_EXTENSION) * stack) {
  sk_X509_EXTENSION_pop_free(stack, X509_EXTENSION_free);
}
using ExtensionsPtr = OpensslPtr<STACK_OF(X509_EXTENSION), FreeExtensions>;
using GeneralNamesPtr = OpensslPtr<GENERAL_NAMES, GENERAL_NAMES_free>;
using GeneralNamePtr = OpensslPtr<GENERAL_NAME, GENERAL_NAME_free>;
using Ia5Ptr = OpensslPtr<ASN1_IA5STRING, ASN1_IA5STRING_free>;
using MdCtxPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;
using ConstraintsPtr = OpensslPtr<BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free>;

constexpr int kMinSignatureBits = 112;

absl::Status Refused(std::string_view problem) {
  return absl::InvalidArgumentError(base::StrCat("bad certificate request: ", problem));
}

bool AddUriSan(X509_REQ* request, const std::string& uri) {
  Ia5Ptr text(ASN1_IA5STRING_new());
  GeneralNamePtr name(GENERAL_NAME_new());
  const GeneralNamesPtr names(sk_GENERAL_NAME_new_null());
  if (text == nullptr || name == nullptr || names == nullptr ||
      ASN1_STRING_set(text.get(), uri.data(), static_cast<int>(uri.size())) != 1) {
    return false;
  }
  GENERAL_NAME_set0_value(name.get(), GEN_URI, text.release());
  if (sk_GENERAL_NAME_push(names.get(), name.get()) == 0) {
    return false;
  }
  (void)name.release();  // the list's now
  STACK_OF(X509_EXTENSION)* made = nullptr;
  // Critical, because the subject is empty (RFC 5280 section 4.2.1.6).
  const int added =
      X509V3_add1_i2d(&made, NID_subject_alt_name, names.get(), 1, X509V3_ADD_DEFAULT);
  const ExtensionsPtr extensions(made);
  return added == 1 && X509_REQ_add_extensions(request, extensions.get()) == 1;
}

// Proof of possession: the request is signed by the key that it names. Strength first, so that
// nobody makes us verify with an enormous key.
absl::Status CheckPossession(X509_REQ* request, EVP_PKEY* key) {
  if (absl::Status status = CheckKeyStrength(key); !status.ok()) {
    return Refused(base::Message(status));
  }
  if (X509_REQ_verify(request, key) != 1) {
    return Refused("its signature does not fit its public key");
  }
  int digest = NID_undef;
  if (OBJ_find_sigid_algs(X509_REQ_get_signature_nid(request), &digest, nullptr) == 1 &&
      digest != NID_undef) {
    const EVP_MD* md = EVP_get_digestbynid(digest);
    if (md == nullptr || EVP_MD_get_size(md) * 4 < kMinSignatureBits) {
      return Refused("it is signed with a weak digest");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAsksForNoCa(const STACK_OF(X509_EXTENSION) * extensions) {
  int critical = 0;
  const ConstraintsPtr constraints(static_cast<BASIC_CONSTRAINTS*>(
      X509V3_get_d2i(extensions, NID_basic_constraints, &critical, nullptr)));
  if (constraints == nullptr && critical != -1) {
    return Refused("its basicConstraints are malformed or stand twice");
  }
  if (constraints != nullptr && constraints->ca != 0) {
    return Refused("it asks for a CA certificate");
  }
  return absl::OkStatus();
}

absl::StatusOr<X509ReqPtr> ParseRequest(base::ByteSpan der) {
  if (der.size() > kMaxCsrBytes) {
    return Refused(base::StrCat("it has ", der.size(), " bytes, more than ", kMaxCsrBytes));
  }
  const unsigned char* at = der.data();
  X509ReqPtr request(d2i_X509_REQ(nullptr, &at, static_cast<long>(der.size())));
  if (request == nullptr) {
    return Refused("it does not parse");
  }
  if (at != der.data() + der.size()) {
    return Refused("it has bytes behind its end");
  }
  return request;
}

// The request that a proxy makes, up to its signature's length: SEQUENCE { SEQUENCE { version 0, an
// empty subject, a P-256 key in its usual form, no attributes }, ecdsa-with-SHA256, BIT STRING }.
constexpr std::array<uint8_t, 7> kUsualInfo = {0x30, 0x62, 0x02, 0x01, 0x00, 0x30, 0x00};
constexpr size_t kUsualSpkiBytes = 91;
constexpr std::array<uint8_t, 2> kNoAttributes = {0xa0, 0x00};
constexpr std::array<uint8_t, 13> kUsualSignature = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                                     0xce, 0x3d, 0x04, 0x03, 0x02, 0x03};

// Takes `prefix` off the front of `bytes`; false: it does not stand there.
template <size_t kSize>
bool Consume(base::ByteSpan& bytes, const std::array<uint8_t, kSize>& prefix) {
  if (bytes.size() < kSize || !std::equal(prefix.begin(), prefix.end(), bytes.begin())) {
    return false;
  }
  bytes = bytes.subspan(kSize);
  return true;
}

// The key of a request that is, byte for byte, as CreateCsr makes it for a P-256 key and no name,
// proven by its signature. Null: it is anything else, good or bad. OpenSSL 3.0 needs longer to
// parse a request than to verify it.
PkeyPtr VerifyUsualCsr(base::ByteSpan der) {
  if (der.size() < 3 || der[0] != 0x30 || der[1] != 0x81 || der[2] < 0x80 ||
      der.size() != 3U + der[2]) {
    return nullptr;
  }
  const base::ByteSpan info = der.subspan(3);
  base::ByteSpan rest = info;
  if (!Consume(rest, kUsualInfo) || rest.size() < kUsualSpkiBytes) {
    return nullptr;
  }
  const base::ByteSpan spki = rest.first(kUsualSpkiBytes);
  rest = rest.subspan(kUsualSpkiBytes);
  if (!Consume(rest, kNoAttributes)) {
    return nullptr;
  }
  const base::ByteSpan is_signed = info.first(info.size() - rest.size());
  // The bit string's length fits one byte (an ECDSA signature has at most 72) and reaches the end.
  if (!Consume(rest, kUsualSignature) || rest.size() < 3 || rest[0] >= 0x80 ||
      rest.size() != 1U + rest[0] || rest[1] != 0) {
    return nullptr;
  }
  const base::ByteSpan signature = rest.subspan(2);
  PkeyPtr key = UsualP256FromDer(spki);
  const MdCtxPtr context(EVP_MD_CTX_new());
  if (key == nullptr || context == nullptr ||
      EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()) != 1 ||
      EVP_DigestVerify(context.get(), signature.data(), signature.size(), is_signed.data(),
                       is_signed.size()) != 1) {
    return nullptr;
  }
  return key;
}

}  // namespace

absl::StatusOr<std::string> CreateCsr(EVP_PKEY* key, const std::optional<SpiffeId>& id) {
  const ErrorQueueGuard guard;
  const X509ReqPtr request(X509_REQ_new());
  if (request == nullptr || X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_pubkey(request.get(), key) != 1) {
    return OpensslFailure("cannot make a certificate request");
  }
  if (id.has_value() && !AddUriSan(request.get(), id->uri())) {
    return OpensslFailure("cannot put the SPIFFE ID into a certificate request");
  }
  const EVP_MD* digest = SignatureDigest(key);
  if (X509_REQ_sign(request.get(), key, digest) <= 0) {
    return OpensslFailure("cannot sign a certificate request");
  }
  unsigned char* data = nullptr;
  const int size = i2d_X509_REQ(request.get(), &data);
  if (size <= 0) {
    return OpensslFailure("cannot encode a certificate request");
  }
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

absl::StatusOr<VerifiedCsr> VerifyCsr(base::ByteSpan der) {
  const ErrorQueueGuard guard;
  if (PkeyPtr key = VerifyUsualCsr(der); key != nullptr) {
    return VerifiedCsr{.public_key = std::move(key), .uri = std::nullopt};
  }
  ERR_clear_error();
  const absl::StatusOr<X509ReqPtr> request = ParseRequest(der);
  if (!request.ok()) {
    return request.status();
  }
  EVP_PKEY* const key = X509_REQ_get0_pubkey(request->get());
  if (key == nullptr) {
    return Refused("its public key does not parse");
  }
  if (absl::Status status = CheckPossession(request->get(), key); !status.ok()) {
    return status;
  }
  const ExtensionsPtr extensions(X509_REQ_get_extensions(request->get()));
  if (absl::Status status = CheckAsksForNoCa(extensions.get()); !status.ok()) {
    return status;
  }
  absl::StatusOr<SubjectAltNames> names = ReadSubjectAltNames(extensions.get());
  if (!names.ok()) {
    return Refused(base::Message(names.status()));
  }
  if (names->uris.size() > 1) {
    return Refused(base::StrCat("it names ", names->uris.size(), " URIs; one is allowed"));
  }
  VerifiedCsr verified;
  verified.public_key = SharePkey(key);
  if (!names->uris.empty()) {
    verified.uri = std::move(names->uris.front());
  }
  return verified;
}

}  // namespace postern::x509
