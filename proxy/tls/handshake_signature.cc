// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/handshake_signature.h"

#include <openssl/err.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "common/x509/openssl_error.h"
#include "common/x509/openssl_ptr.h"

namespace postern::tls {
namespace {

using MdCtxPtr = x509::OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;

struct Scheme {
  uint16_t id;
  const char* key_type;
  const char* group;   // of an elliptic curve, as OpenSSL names it; null: none
  const char* digest;  // null: the key type's own
};

constexpr std::array<Scheme, 6> kSchemes = {{
    {0x0403, "EC", "prime256v1", "SHA2-256"},
    {0x0807, "ED25519", nullptr, nullptr},
    {0x0503, "EC", "secp384r1", "SHA2-384"},
    {0x0804, "RSA", nullptr, "SHA2-256"},
    {0x0805, "RSA", nullptr, "SHA2-384"},
    {0x0806, "RSA", nullptr, "SHA2-512"},
}};

const Scheme* Find(uint16_t id) {
  const auto* found = std::find_if(kSchemes.begin(), kSchemes.end(),
                                   [id](const Scheme& one) { return one.id == id; });
  return found == kSchemes.end() ? nullptr : found;
}

bool Fits(EVP_PKEY* key, const Scheme& scheme) {
  if (key == nullptr || EVP_PKEY_is_a(key, scheme.key_type) != 1) {
    return false;
  }
  if (scheme.group == nullptr) {
    return true;
  }
  std::array<char, 32> group{};
  size_t size = 0;
  return EVP_PKEY_get_group_name(key, group.data(), group.size(), &size) == 1 &&
         std::string_view(group.data(), size) == scheme.group;
}

// RFC 8446 section 4.4.3.
std::string Signed(base::ByteSpan transcript_hash) {
  std::string content(64, ' ');
  content += "TLS 1.3, client CertificateVerify";
  content.push_back('\0');
  content += base::AsText(transcript_hash);
  return content;
}

bool SetPadding(EVP_PKEY_CTX* ctx, const Scheme& scheme) {
  return std::string_view(scheme.key_type) != "RSA" ||
         (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
          EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1);
}

}  // namespace

std::span<const uint16_t> AcceptedSchemes() {
  static constexpr std::array<uint16_t, 9> kAccepted = {0x0403, 0x0807, 0x0503, 0x0804, 0x0805,
                                                        0x0806, 0x0401, 0x0501, 0x0601};
  return kAccepted;
}

uint16_t ChooseScheme(EVP_PKEY* key, base::ByteSpan offered) {
  const x509::ErrorQueueGuard guard;
  for (size_t at = 0; at + 1 < offered.size(); at += 2) {
    const auto id = static_cast<uint16_t>(offered[at] << 8U | offered[at + 1]);
    if (SchemeFits(key, id)) {
      return id;
    }
  }
  return 0;
}

bool SchemeFits(EVP_PKEY* key, uint16_t id) {
  const x509::ErrorQueueGuard guard;
  const Scheme* const scheme = Find(id);
  return scheme != nullptr && Fits(key, *scheme);
}

std::optional<std::vector<uint8_t>> SignAsClient(EVP_PKEY* key, uint16_t id,
                                                 base::ByteSpan transcript_hash) {
  const x509::ErrorQueueGuard guard;
  const Scheme* const scheme = Find(id);
  const MdCtxPtr ctx(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;  // the context's
  if (scheme == nullptr || ctx == nullptr || !Fits(key, *scheme) ||
      EVP_DigestSignInit_ex(ctx.get(), &parameters, scheme->digest, nullptr, nullptr, key,
                            nullptr) != 1 ||
      !SetPadding(parameters, *scheme)) {
    return std::nullopt;
  }
  const std::string text = Signed(transcript_hash);
  const base::ByteSpan content = base::AsBytes(text);
  size_t size = 0;
  if (EVP_DigestSign(ctx.get(), nullptr, &size, content.data(), content.size()) != 1) {
    return std::nullopt;
  }
  std::vector<uint8_t> signature(size);
  if (EVP_DigestSign(ctx.get(), signature.data(), &size, content.data(), content.size()) != 1) {
    return std::nullopt;
  }
  signature.resize(size);
  return signature;
}

bool VerifyClient(EVP_PKEY* key, uint16_t id, base::ByteSpan transcript_hash,
                  base::ByteSpan signature) {
  const x509::ErrorQueueGuard guard;
  const Scheme* const scheme = Find(id);
  const MdCtxPtr ctx(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;
  if (scheme == nullptr || ctx == nullptr || !Fits(key, *scheme) ||
      EVP_DigestVerifyInit_ex(ctx.get(), &parameters, scheme->digest, nullptr, nullptr, key,
                              nullptr) != 1 ||
      !SetPadding(parameters, *scheme)) {
    return false;
  }
  const std::string text = Signed(transcript_hash);
  const base::ByteSpan content = base::AsBytes(text);
  return EVP_DigestVerify(ctx.get(), signature.data(), signature.size(), content.data(),
                          content.size()) == 1;
}

}  // namespace postern::tls
