// SPDX-License-Identifier: Apache-2.0
#include "common/x509/key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/pem.h>

#include <array>
#include <climits>
#include <cstdint>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

constexpr int kMinRsaBits = 2048;
constexpr int kMaxRsaBits = 8192;
constexpr int kMaxRsaExponentBits = 64;  // more is legal, rare, and makes each verification slow

using Pkcs8Ptr = OpensslPtr<PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free>;
using BignumPtr = OpensslPtr<BIGNUM, BN_free>;

// One block of a PEM text; wiped when it dies, for it may hold a key.
class PemBlock {
 public:
  PemBlock() = default;
  PemBlock(const PemBlock&) = delete;
  PemBlock& operator=(const PemBlock&) = delete;
  ~PemBlock() {
    OPENSSL_free(name_);
    OPENSSL_free(header_);
    OPENSSL_clear_free(data_, static_cast<size_t>(size_));
  }

  bool Read(BIO* from) { return PEM_read_bio(from, &name_, &header_, &data_, &size_) == 1; }
  std::string_view name() const { return name_; }
  bool has_header() const { return header_ != nullptr && *header_ != '\0'; }
  base::ByteSpan data() const { return {data_, static_cast<size_t>(size_)}; }

 private:
  char* name_ = nullptr;
  char* header_ = nullptr;
  unsigned char* data_ = nullptr;
  long size_ = 0;
};

absl::Status NoKey(std::string_view problem) {
  return absl::InvalidArgumentError(base::StrCat("no usable private key: ", problem));
}

PkeyPtr DecodeKey(std::string_view block_name, base::ByteSpan der) {
  const unsigned char* at = der.data();
  const long size = static_cast<long>(der.size());
  PkeyPtr key;
  if (block_name == PEM_STRING_PKCS8INF) {
    const Pkcs8Ptr info(d2i_PKCS8_PRIV_KEY_INFO(nullptr, &at, size));
    key.reset(info == nullptr ? nullptr : EVP_PKCS82PKEY(info.get()));
  } else {
    const int type = block_name == PEM_STRING_ECPRIVATEKEY ? EVP_PKEY_EC : EVP_PKEY_RSA;
    key.reset(d2i_PrivateKey(type, nullptr, &at, size));
  }
  if (at != der.data() + der.size()) {
    key.reset();
  }
  return key;
}

absl::StatusOr<PkeyPtr> KeyFromBlock(const PemBlock& block) {
  if (block.name() == PEM_STRING_PKCS8 || block.has_header()) {
    return NoKey("it is encrypted; Postern has nobody to ask for a passphrase");
  }
  PkeyPtr key = DecodeKey(block.name(), block.data());
  if (key == nullptr) {
    return NoKey(base::StrCat("the block '", block.name(), "' does not parse"));
  }
  return key;
}

bool IsKeyBlock(std::string_view name) {
  return name == PEM_STRING_PKCS8INF || name == PEM_STRING_PKCS8 ||
         name == PEM_STRING_ECPRIVATEKEY || name == PEM_STRING_RSA;
}

absl::Status Weak(std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat(
      what, " is refused; P-256, P-384, Ed25519 and RSA of 2048 to 8192 bits are accepted"));
}

absl::Status CheckEcKey(EVP_PKEY* key) {
  std::array<char, 80> name{};
  size_t size = 0;
  if (EVP_PKEY_get_group_name(key, name.data(), name.size(), &size) != 1) {
    return Weak("an EC key without a named curve");
  }
  int from_explicit = 0;
  EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &from_explicit);
  if (from_explicit != 0) {  // RFC 5480 section 2.1.1 forbids them; CVE-2020-0601
    return Weak("an EC key with explicit parameters");
  }
  const std::string_view group(name.data(), size);
  for (const std::string_view good : {"prime256v1", "P-256", "secp384r1", "P-384"}) {
    if (group == good) {
      return absl::OkStatus();
    }
  }
  return Weak(base::StrCat("an EC key on the curve ", base::Printable(group)));
}

absl::Status CheckRsaKey(EVP_PKEY* key) {
  const int bits = EVP_PKEY_get_bits(key);
  if (bits < kMinRsaBits || bits > kMaxRsaBits) {
    return Weak(base::StrCat("an RSA key of ", bits, " bits"));
  }
  BIGNUM* read = nullptr;
  const bool known = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &read) == 1;
  const BignumPtr exponent(read);
  if (!known || BN_is_odd(exponent.get()) == 0 || BN_is_one(exponent.get()) != 0 ||
      BN_num_bits(exponent.get()) > kMaxRsaExponentBits) {
    return Weak("an RSA key with an unusual public exponent");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PkeyPtr> GenerateP256Key() {
  const ErrorQueueGuard guard;
  PkeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) {
    return OpensslFailure("cannot make a P-256 key");
  }
  return key;
}

absl::StatusOr<PkeyPtr> PrivateKeyFromPem(std::string_view pem) {
  const ErrorQueueGuard guard;
  if (pem.size() > INT_MAX) {
    return NoKey("the text is too large");
  }
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (bio == nullptr) {
    return OpensslFailure("cannot read a private key");
  }
  absl::StatusOr<PkeyPtr> found = NoKey("the text holds none in PEM form");
  bool seen = false;
  while (true) {
    PemBlock block;
    if (!block.Read(bio.get())) {
      break;
    }
    if (!IsKeyBlock(block.name())) {
      continue;  // EC PARAMETERS, or the certificates of a combined file
    }
    if (seen) {
      return NoKey("the text holds more than one");
    }
    seen = true;
    found = KeyFromBlock(block);
  }
  // The loop ends well only at the end of the text: a damaged block may be the key's.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return NoKey("a PEM block is damaged or cut short");
  }
  return found;
}

absl::StatusOr<std::string> PrivateKeyToPem(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  // The secure memory BIO wipes what it frees.
  const BioPtr bio(BIO_new(BIO_s_secmem()));
  if (bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpensslFailure("cannot write a private key");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::Status CheckKeyStrength(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  if (key == nullptr) {
    return Weak("a key that does not parse");
  }
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519:
      return absl::OkStatus();
    case EVP_PKEY_EC:
      return CheckEcKey(key);
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
      return CheckRsaKey(key);
    default: {
      const char* name = EVP_PKEY_get0_type_name(key);
      return Weak(base::StrCat("a key of type ", name == nullptr ? "unknown" : name));
    }
  }
}

const EVP_MD* SignatureDigest(const EVP_PKEY* key) {
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
}

}  // namespace postern::x509
