// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/record_cipher.h"

#include <endian.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

namespace postern::tls {

namespace {

using CipherPtr = x509::OpensslPtr<EVP_CIPHER, EVP_CIPHER_free>;
using MacPtr = x509::OpensslPtr<EVP_MAC, EVP_MAC_free>;
using MacCtxPtr = x509::OpensslPtr<EVP_MAC_CTX, EVP_MAC_CTX_free>;

constexpr size_t kMaxKeyBytes = 32;
constexpr size_t kShortContent = 2048;

}  // namespace

// Fetched once: OpenSSL 3 looks an algorithm up by its name each time that it is told only that.
struct RecordSuite {
  RecordSuite(uint32_t number, const char* aead_name, const char* digest, size_t key_size,
              size_t secret_size);

  uint32_t id;
  CipherPtr aead;
  MacCtxPtr hmac;  // with its digest and a key of zeros, to be copied
  size_t key_bytes;
  size_t secret_bytes;
};

RecordSuite::RecordSuite(uint32_t number, const char* aead_name, const char* digest,
                         size_t key_size, size_t secret_size)
    : id(number),
      aead(EVP_CIPHER_fetch(nullptr, aead_name, nullptr)),
      key_bytes(key_size),
      secret_bytes(secret_size) {
  const MacPtr mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  hmac.reset(mac == nullptr ? nullptr : EVP_MAC_CTX_new(mac.get()));
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, const_cast<char*>(digest), 0),
      OSSL_PARAM_construct_end()};
  // Any key: some versions of OpenSSL copy no context that has none.
  const std::array<uint8_t, TrafficSecret::kMaxBytes> no_key{};
  if (hmac != nullptr && EVP_MAC_init(hmac.get(), no_key.data(), no_key.size(), params) != 1) {
    hmac.reset();
  }
}

namespace {

const RecordSuite* FindSuite(uint32_t id) {
  static const std::array<RecordSuite, 3> suites = {{
      {0x1301, "AES-128-GCM", "SHA256", 16, 32},
      {0x1302, "AES-256-GCM", "SHA384", 32, 48},
      {0x1303, "ChaCha20-Poly1305", "SHA256", 32, 32},
  }};
  for (const RecordSuite& suite : suites) {
    if (suite.id == (id & 0xFFFFU) && suite.aead != nullptr && suite.hmac != nullptr) {
      return &suite;
    }
  }
  return nullptr;
}

// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1), for several labels in turn. What
// is asked for is never longer than the hash, so HKDF-Expand (RFC 5869 section 2.3) is one HMAC.
class LabelExpander {
 public:
  LabelExpander(const RecordSuite& suite, base::ByteSpan secret)
      : hmac_(EVP_MAC_CTX_dup(suite.hmac.get())), hash_bytes_(suite.secret_bytes) {
    if (hmac_ != nullptr && EVP_MAC_init(hmac_.get(), secret.data(), secret.size(), nullptr) != 1) {
      hmac_.reset();
    }
  }

  bool Expand(std::string_view label, base::MutableByteSpan out) {
    constexpr std::string_view kPrefix = "tls13 ";
    constexpr size_t kMaxLabel = 12;
    if (hmac_ == nullptr || out.size() > hash_bytes_ || label.size() > kMaxLabel ||
        (used_ && EVP_MAC_init(hmac_.get(), nullptr, 0, nullptr) != 1)) {
      return false;
    }
    used_ = true;
    // HkdfLabel: length, label, no context; then the number of HKDF-Expand's only block.
    std::array<uint8_t, 2 + 1 + kPrefix.size() + kMaxLabel + 1 + 1> info{};
    size_t size = 1;
    info[size++] = static_cast<uint8_t>(out.size());
    info[size++] = static_cast<uint8_t>(kPrefix.size() + label.size());
    for (const std::string_view text : {kPrefix, label}) {
      std::copy(text.begin(), text.end(), info.begin() + size);
      size += text.size();
    }
    info[size++] = 0;
    info[size++] = 1;
    std::array<uint8_t, TrafficSecret::kMaxBytes> block{};
    size_t made = 0;
    const bool done = EVP_MAC_update(hmac_.get(), info.data(), size) == 1 &&
                      EVP_MAC_final(hmac_.get(), block.data(), &made, block.size()) == 1 &&
                      made == hash_bytes_;
    std::copy_n(block.begin(), out.size(), out.begin());
    OPENSSL_cleanse(block.data(), block.size());
    return done;
  }

 private:
  MacCtxPtr hmac_;
  size_t hash_bytes_;
  bool used_ = false;
};

}  // namespace

void TrafficSecret::Set(base::ByteSpan secret) {
  Wipe();
  if (secret.size() <= bytes_.size()) {
    std::copy(secret.begin(), secret.end(), bytes_.begin());
    size_ = secret.size();
  }
}

void TrafficSecret::Wipe() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  size_ = 0;
}

bool RecordCipher::Start(uint32_t suite, base::ByteSpan secret, Use use) {
  suite_ = FindSuite(suite);
  use_ = use;
  sequence_ = 0;
  ctx_.reset();
  secret_.Set(secret);
  if (suite_ == nullptr || secret.size() != suite_->secret_bytes) {
    return false;
  }
  ctx_.reset(EVP_CIPHER_CTX_new());
  const int seals = use_ == Use::kSeal ? 1 : 0;
  if (ctx_ == nullptr ||
      EVP_CipherInit_ex2(ctx_.get(), suite_->aead.get(), nullptr, nullptr, seals, nullptr) != 1) {
    ctx_.reset();
    return false;
  }
  return SetUp();
}

bool RecordCipher::SetUp() {
  std::array<uint8_t, kMaxKeyBytes> key{};
  LabelExpander labels(*suite_, secret_.bytes());
  const bool ready = labels.Expand("key", {key.data(), suite_->key_bytes}) &&
                     labels.Expand("iv", iv_) &&
                     EVP_CipherInit_ex2(ctx_.get(), nullptr, key.data(), nullptr, -1, nullptr) == 1;
  OPENSSL_cleanse(key.data(), key.size());
  if (!ready) {
    ERR_clear_error();
    ctx_.reset();
  }
  return ready;
}

bool RecordCipher::Advance() {
  std::array<uint8_t, TrafficSecret::kMaxBytes> next{};
  const base::MutableByteSpan used(next.data(), secret_.bytes().size());
  const bool derived =
      ctx_ != nullptr && LabelExpander(*suite_, secret_.bytes()).Expand("traffic upd", used);
  secret_.Set(used);
  OPENSSL_cleanse(next.data(), next.size());
  sequence_ = 0;
  if (!derived) {
    ERR_clear_error();
    ctx_.reset();
    return false;
  }
  return SetUp();
}

size_t RecordCipher::HashBytes() const {
  return suite_ == nullptr ? 0 : suite_->secret_bytes;
}

bool RecordCipher::FinishedMac(base::ByteSpan transcript_hash, base::MutableByteSpan mac) const {
  const size_t bytes = HashBytes();
  if (bytes == 0 || transcript_hash.size() != bytes || mac.size() != bytes) {
    return false;
  }
  std::array<uint8_t, TrafficSecret::kMaxBytes> key{};
  size_t made = 0;
  const MacCtxPtr hmac(EVP_MAC_CTX_dup(suite_->hmac.get()));
  const bool done =
      hmac != nullptr &&
      LabelExpander(*suite_, secret_.bytes()).Expand("finished", {key.data(), bytes}) &&
      EVP_MAC_init(hmac.get(), key.data(), bytes, nullptr) == 1 &&
      EVP_MAC_update(hmac.get(), transcript_hash.data(), transcript_hash.size()) == 1 &&
      EVP_MAC_final(hmac.get(), mac.data(), &made, mac.size()) == 1 && made == bytes;
  OPENSSL_cleanse(key.data(), key.size());
  if (!done) {
    ERR_clear_error();
  }
  return done;
}

// The number in network order over the last eight bytes of the IV (RFC 8446 section 5.3).
RecordCipher::Nonce RecordCipher::NextNonce() const {
  Nonce nonce = iv_;
  uint64_t low = 0;
  uint8_t* at = nonce.data() + nonce.size() - sizeof(low);
  std::memcpy(&low, at, sizeof(low));
  low ^= htobe64(sequence_);
  std::memcpy(at, &low, sizeof(low));
  return nonce;
}

// A call into OpenSSL costs more than to copy a short text: such a one is encrypted where it goes,
// with its type behind it. A long one is encrypted from where it lies, and its type by itself.
bool RecordCipher::SealInto(uint8_t* record, ContentType type, base::ByteSpan content) {
  const Nonce nonce = NextNonce();
  uint8_t* at = record + kRecordHeaderBytes;
  int size = 0;
  EVP_CIPHER_CTX* ctx = ctx_.get();
  if (EVP_CipherInit_ex2(ctx, nullptr, nullptr, nonce.data(), -1, nullptr) != 1 ||
      EVP_EncryptUpdate(ctx, nullptr, &size, record, kRecordHeaderBytes) != 1) {
    return false;
  }
  const uint8_t* rest = at;
  auto rest_size = static_cast<int>(content.size());
  if (content.size() <= kShortContent) {
    std::copy(content.begin(), content.end(), at);
    at[rest_size++] = static_cast<uint8_t>(type);
  } else {
    if (EVP_EncryptUpdate(ctx, at, &size, content.data(), rest_size) != 1) {
      return false;
    }
    at += size;
    *at = static_cast<uint8_t>(type);
    rest = at;
    rest_size = 1;
  }
  if (EVP_EncryptUpdate(ctx, at, &size, rest, rest_size) != 1) {
    return false;
  }
  at += size;
  return EVP_EncryptFinal_ex(ctx, at, &size) == 1 &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(kRecordTagBytes), at) ==
             1;
}

bool RecordCipher::Seal(ContentType type, base::ByteSpan content, RecordBuffer& out) {
  if (ctx_ == nullptr || use_ != Use::kSeal || !HasNumber() ||
      content.size() > kMaxRecordPlaintext) {
    return false;
  }
  const size_t start = out.size();
  const size_t length = content.size() + 1 + kRecordTagBytes;
  out.resize(start + kRecordHeaderBytes + length);
  uint8_t* record = out.data() + start;
  record[0] = static_cast<uint8_t>(ContentType::kApplicationData);
  record[1] = 3;
  record[2] = 3;
  record[3] = static_cast<uint8_t>(length >> 8U);
  record[4] = static_cast<uint8_t>(length);
  if (!SealInto(record, type, content)) {
    out.resize(start);
    ERR_clear_error();
    ctx_.reset();  // what has become of the nonce is not known
    return false;
  }
  ++sequence_;
  return true;
}

std::optional<RecordCipher::Opened> RecordCipher::Open(base::ByteSpan record,
                                                       base::MutableByteSpan room) {
  const size_t inner = RoomFor(record);
  if (ctx_ == nullptr || use_ != Use::kOpen || !HasNumber() || inner == 0 || room.size() < inner) {
    return std::nullopt;
  }
  const Nonce nonce = NextNonce();
  const base::ByteSpan sealed = record.subspan(kRecordHeaderBytes, inner);
  const base::ByteSpan tag = record.last(kRecordTagBytes);
  int size = 0;
  uint8_t none = 0;
  EVP_CIPHER_CTX* ctx = ctx_.get();
  if (EVP_CipherInit_ex2(ctx, nullptr, nullptr, nonce.data(), -1, nullptr) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag.size()),
                          const_cast<uint8_t*>(tag.data())) != 1 ||
      EVP_DecryptUpdate(ctx, nullptr, &size, record.data(), kRecordHeaderBytes) != 1 ||
      EVP_DecryptUpdate(ctx, room.data(), &size, sealed.data(), static_cast<int>(inner)) != 1 ||
      EVP_DecryptFinal_ex(ctx, &none, &size) != 1) {
    OPENSSL_cleanse(room.data(), inner);
    ERR_clear_error();
    return std::nullopt;
  }
  ++sequence_;
  size_t end = inner;
  while (end > 0 && room[end - 1] == 0) {
    --end;
  }
  if (end == 0) {
    return Opened{ContentType::kInvalid, 0, inner};
  }
  return Opened{static_cast<ContentType>(room[end - 1]), end - 1, inner};
}

}  // namespace postern::tls
