// SPDX-License-Identifier: Apache-2.0
#include "common/x509/public_key.h"

#include <openssl/core_names.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

constexpr size_t kPointBytes = 65;
constexpr uint8_t kUncompressed = 4;

// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING without unused bits }, up to the
// point.
constexpr std::array<uint8_t, 26> kP256Prefix = {
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

// Some key, for its curve. Null: OpenSSL could not make one.
EVP_PKEY* P256Parameters() {
  static EVP_PKEY* const key = EVP_EC_gen("P-256");
  return key;
}

// A key keeps the form that it was read in, and is written in it again.
bool IsUncompressed(EVP_PKEY* key) {
  std::array<char, 40> form{};
  size_t size = 0;
  return EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                        form.data(), form.size(), &size) == 1 &&
         std::string_view(form.data(), size) == OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_UNCOMPRESSED;
}

bool IsNamedP256(EVP_PKEY* key) {
  std::array<char, 80> name{};
  size_t size = 0;
  int from_explicit = 0;
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_group_name(key, name.data(), name.size(), &size) == 1 &&
         std::string_view(name.data(), size) == "prime256v1" &&
         EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS,
                                &from_explicit) == 1 &&
         from_explicit == 0;
}

}  // namespace

std::string UsualP256Point(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  std::array<unsigned char, 2 * kPointBytes> point{};
  size_t size = 0;
  if (key == nullptr || !IsNamedP256(key) || !IsUncompressed(key) ||
      EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point.data(),
                                      point.size(), &size) != 1 ||
      size != kPointBytes || point[0] != kUncompressed) {
    return {};
  }
  return std::string(reinterpret_cast<const char*>(point.data()), size);
}

absl::StatusOr<std::string> PublicKeyToDer(EVP_PKEY* key) {
  const ErrorQueueGuard guard;
  const std::string point = UsualP256Point(key);
  if (!point.empty()) {
    return std::string(base::AsText(kP256Prefix)) + point;
  }
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(key, &data);
  if (size <= 0) {
    return OpensslFailure("cannot encode a public key");
  }
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  return der;
}

PkeyPtr UsualP256FromDer(base::ByteSpan spki) {
  const ErrorQueueGuard guard;
  if (spki.size() != kP256Prefix.size() + kPointBytes ||
      !std::equal(kP256Prefix.begin(), kP256Prefix.end(), spki.begin()) ||
      spki[kP256Prefix.size()] != kUncompressed) {
    return nullptr;
  }
  const base::ByteSpan point = spki.subspan(kP256Prefix.size());
  PkeyPtr key(EVP_PKEY_new());
  EVP_PKEY* const parameters = P256Parameters();
  if (key == nullptr || parameters == nullptr ||
      EVP_PKEY_copy_parameters(key.get(), parameters) != 1 ||
      EVP_PKEY_set1_encoded_public_key(key.get(), point.data(), point.size()) != 1) {
    return nullptr;
  }
  return key;
}

}  // namespace postern::x509
