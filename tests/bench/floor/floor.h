// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace postern::bench {

constexpr size_t kRecord = 16U << 10U;
constexpr size_t kRead = 64U << 10U;

[[noreturn]] inline void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

inline sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Sealing costs what opening does: both sides of a pair seal.
class Cipher {
 public:
  Cipher() : context_(EVP_CIPHER_CTX_new()), sealed_(kRead) {
    const std::array<uint8_t, 16> key{};
    if (context_ == nullptr ||
        EVP_EncryptInit_ex(context_, EVP_aes_128_gcm(), nullptr, key.data(), nonce_.data()) != 1) {
      Die("AES-128-GCM");
    }
  }
  Cipher(const Cipher&) = delete;
  Cipher& operator=(const Cipher&) = delete;
  ~Cipher() { EVP_CIPHER_CTX_free(context_); }

  void Work(const uint8_t* bytes, size_t size) {
    for (size_t at = 0; at < size; at += kRecord) {
      const int part = static_cast<int>(std::min(kRecord, size - at));
      std::array<uint8_t, 16> tag{};
      int written = 0;
      ++nonce_[11];
      if (EVP_EncryptInit_ex(context_, nullptr, nullptr, nullptr, nonce_.data()) != 1 ||
          EVP_EncryptUpdate(context_, sealed_.data(), &written, bytes + at, part) != 1 ||
          EVP_EncryptFinal_ex(context_, sealed_.data(), &written) != 1 ||
          EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, 16, tag.data()) != 1) {
        Die("AES-128-GCM");
      }
    }
  }

 private:
  EVP_CIPHER_CTX* context_;
  std::array<uint8_t, 12> nonce_{};
  std::vector<uint8_t> sealed_;
};

// Each carries connections from one port of 127.0.0.1 to another until a signal ends the process.
[[noreturn]] void RelayByEpoll(uint16_t listen_port, uint16_t dial_port);
[[noreturn]] void RelayByUvPoll(uint16_t listen_port, uint16_t dial_port);
[[noreturn]] void RelayByUvTcp(uint16_t listen_port, uint16_t dial_port);

}  // namespace postern::bench
