// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/ticket_keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <string>

#include "common/x509/digest.h"

namespace postern::tls {
namespace {

constexpr int kIvBytes = 16;
constexpr std::string_view kBindingLabel = "postern ticket 1";

template <size_t N>
void TakeFrom(base::ByteSpan& secret, std::array<uint8_t, N>& out) {
  std::copy_n(secret.begin(), N, out.begin());
  secret = secret.subspan(N);
}

}  // namespace

base::Sha256Digest BindingOf(const TrustState& trust, std::string_view listener) {
  std::string text(kBindingLabel);
  for (const uint64_t value : {trust.bundle_epoch, trust.bundle_sequence, trust.policy_revision,
                               trust.policies_given, trust.revocation_sequence}) {
    for (unsigned shift = 64; shift > 0; shift -= 8) {
      text.push_back(static_cast<char>(value >> (shift - 8)));
    }
  }
  text.append(listener);
  return x509::Sha256(base::AsBytes(text));
}

absl::StatusOr<std::shared_ptr<const TicketKeys>> TicketKeys::Create(base::ByteSpan secret) {
  if (secret.size() != kSecretBytes) {
    return absl::InvalidArgumentError("a secret for ticket keys of another size");
  }
  std::shared_ptr<TicketKeys> keys(new TicketKeys());
  keys->cipher_.reset(EVP_CIPHER_fetch(nullptr, "AES-256-CBC", nullptr));
  if (keys->cipher_ == nullptr) {
    ERR_clear_error();
    return absl::InternalError("OpenSSL: no AES-256-CBC for tickets");
  }
  TakeFrom(secret, keys->name_);
  TakeFrom(secret, keys->cipher_key_);
  TakeFrom(secret, keys->mac_key_);
  return std::shared_ptr<const TicketKeys>(std::move(keys));
}

TicketKeys::~TicketKeys() {
  OPENSSL_cleanse(cipher_key_.data(), cipher_key_.size());
  OPENSSL_cleanse(mac_key_.data(), mac_key_.size());
}

bool TicketKeys::SetMacKey(EVP_MAC_CTX* mac) const {
  // OpenSSL's parameters are not const; neither of the two is written to.
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, const_cast<uint8_t*>(mac_key_.data()),
                                        mac_key_.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, const_cast<char*>("SHA256"), 0),
      OSSL_PARAM_construct_end()};
  return EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

int TicketKeys::ReadyToSeal(uint8_t* name, uint8_t* iv, EVP_CIPHER_CTX* cipher,
                            EVP_MAC_CTX* mac) const {
  if (RAND_bytes(iv, kIvBytes) != 1 ||
      EVP_EncryptInit_ex2(cipher, cipher_.get(), cipher_key_.data(), iv, nullptr) != 1 ||
      !SetMacKey(mac)) {
    return -1;
  }
  std::copy(name_.begin(), name_.end(), name);
  return 1;
}

int TicketKeys::ReadyToOpen(const uint8_t* name, const uint8_t* iv, EVP_CIPHER_CTX* cipher,
                            EVP_MAC_CTX* mac) const {
  if (!std::equal(name_.begin(), name_.end(), name)) {
    return 0;
  }
  if (EVP_DecryptInit_ex2(cipher, cipher_.get(), cipher_key_.data(), iv, nullptr) != 1 ||
      !SetMacKey(mac)) {
    return -1;
  }
  return 1;
}

}  // namespace postern::tls
