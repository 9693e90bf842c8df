// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/write_secret.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <memory>
#include <span>

#include "common/x509/openssl_ptr.h"

namespace postern::tls {
namespace {

using x509::OpensslPtr;
using KdfPtr = OpensslPtr<EVP_KDF, EVP_KDF_free>;
using KdfCtxPtr = OpensslPtr<EVP_KDF_CTX, EVP_KDF_CTX_free>;
using CipherCtxPtr = OpensslPtr<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;

constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr size_t kRecordHeader = 5;
constexpr size_t kInnerBytes = 3;  // level, description, the inner content type
constexpr uint8_t kApplicationDataRecord = 23;
constexpr uint8_t kAlertRecord = 21;
constexpr uint8_t kFatal = 2;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

const EVP_CIPHER* AeadOf(const SSL_CIPHER* cipher) {
  switch (cipher == nullptr ? 0 : SSL_CIPHER_get_protocol_id(cipher)) {
    case 0x1301:
      return EVP_aes_128_gcm();
    case 0x1302:
      return EVP_aes_256_gcm();
    case 0x1303:
      return EVP_chacha20_poly1305();
    default:
      return nullptr;
  }
}

// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
bool ExpandLabel(const EVP_MD* digest, base::ByteSpan secret, std::string_view label,
                 base::MutableByteSpan out) {
  const KdfPtr kdf(EVP_KDF_fetch(nullptr, "TLS13-KDF", nullptr));
  const KdfCtxPtr ctx(kdf == nullptr ? nullptr : EVP_KDF_CTX_new(kdf.get()));
  if (ctx == nullptr || digest == nullptr) {
    return false;
  }
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  std::string_view prefix = "tls13 ";
  const auto octets = [](const char* key, const void* bytes, size_t size) {
    return OSSL_PARAM_construct_octet_string(key, const_cast<void*>(bytes), size);
  };
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
                                       const_cast<char*>(EVP_MD_get0_name(digest)), 0),
      octets(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      octets(OSSL_KDF_PARAM_PREFIX, prefix.data(), prefix.size()),
      octets(OSSL_KDF_PARAM_LABEL, label.data(), label.size()),
      OSSL_PARAM_construct_end()};
  return EVP_KDF_derive(ctx.get(), out.data(), out.size(), params) == 1;
}

struct RecordKeys {
  std::array<uint8_t, 32> key{};
  std::array<uint8_t, kNonceBytes> nonce{};
  ~RecordKeys() { OPENSSL_cleanse(key.data(), key.size()); }
};

// Encrypts `inner` under `header` as associated data and appends ciphertext and tag to `record`.
bool Seal(const EVP_CIPHER* aead, const RecordKeys& keys, base::ByteSpan header,
          base::ByteSpan inner, std::vector<uint8_t>& record) {
  const CipherCtxPtr ctx(EVP_CIPHER_CTX_new());
  std::array<uint8_t, kInnerBytes> sealed{};
  std::array<uint8_t, kTagBytes> tag{};
  int size = 0;
  if (ctx == nullptr ||
      EVP_EncryptInit_ex(ctx.get(), aead, nullptr, keys.key.data(), keys.nonce.data()) != 1 ||
      EVP_EncryptUpdate(ctx.get(), nullptr, &size, header.data(),
                        static_cast<int>(header.size())) != 1 ||
      EVP_EncryptUpdate(ctx.get(), sealed.data(), &size, inner.data(),
                        static_cast<int>(inner.size())) != 1 ||
      EVP_EncryptFinal_ex(ctx.get(), sealed.data() + size, &size) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag.size()),
                          tag.data()) != 1) {
    return false;
  }
  record.insert(record.end(), sealed.begin(), sealed.end());
  record.insert(record.end(), tag.begin(), tag.end());
  return true;
}

}  // namespace

WriteSecret::~WriteSecret() {
  Wipe();
}

void WriteSecret::Wipe() {
  OPENSSL_cleanse(secret_.data(), secret_.size());
  size_ = 0;
}

void WriteSecret::OnKeyLog(std::string_view line, bool is_server) {
  const std::string_view label =
      is_server ? "SERVER_TRAFFIC_SECRET_0 " : "CLIENT_TRAFFIC_SECRET_0 ";
  if (line.substr(0, label.size()) != label) {
    return;
  }
  const size_t space = line.rfind(' ');
  const std::string_view hex = line.substr(space + 1);
  Wipe();
  if (hex.empty() || hex.size() % 2 != 0 || hex.size() / 2 > kMaxSecret) {
    return;
  }
  for (size_t i = 0; i < hex.size() / 2; ++i) {
    const int high = HexDigit(hex[2 * i]);
    const int low = HexDigit(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return;
    }
    secret_[i] = static_cast<uint8_t>(high * 16 + low);
  }
  size_ = hex.size() / 2;
  sequence_ = 0;
}

void WriteSecret::Advance(const SSL_CIPHER* cipher) {
  std::array<uint8_t, kMaxSecret> next{};
  const EVP_MD* digest = cipher == nullptr ? nullptr : SSL_CIPHER_get_handshake_digest(cipher);
  const bool derived = ExpandLabel(digest, {secret_.data(), size_}, "traffic upd",
                                   base::MutableByteSpan(next.data(), size_));
  const size_t size = derived ? size_ : 0;
  Wipe();
  secret_ = next;
  size_ = size;
  sequence_ = 0;
  OPENSSL_cleanse(next.data(), next.size());
}

std::optional<std::vector<uint8_t>> WriteSecret::SealAlert(const SSL_CIPHER* cipher,
                                                           uint8_t description) {
  const EVP_CIPHER* aead = AeadOf(cipher);
  if (aead == nullptr || size_ == 0) {
    return std::nullopt;
  }
  const EVP_MD* digest = SSL_CIPHER_get_handshake_digest(cipher);
  const base::ByteSpan secret(secret_.data(), size_);
  RecordKeys keys;
  const auto key_size = static_cast<size_t>(EVP_CIPHER_get_key_length(aead));
  if (!ExpandLabel(digest, secret, "key", base::MutableByteSpan(keys.key).first(key_size)) ||
      !ExpandLabel(digest, secret, "iv", keys.nonce)) {
    return std::nullopt;
  }
  for (size_t i = 0; i < sizeof(sequence_); ++i) {
    keys.nonce[kNonceBytes - 1 - i] ^= static_cast<uint8_t>(sequence_ >> (8 * i));
  }
  std::vector<uint8_t> record = {kApplicationDataRecord, 3, 3, 0, kInnerBytes + kTagBytes};
  const std::array<uint8_t, kRecordHeader> header = {record[0], record[1], record[2], record[3],
                                                     record[4]};
  const std::array<uint8_t, kInnerBytes> inner = {kFatal, description, kAlertRecord};
  if (!Seal(aead, keys, header, inner, record)) {
    return std::nullopt;
  }
  ++sequence_;
  return record;
}

}  // namespace postern::tls
