// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {

// Seals one alert of our choice behind what OpenSSL has sent. OpenSSL has no call for that, and a
// peer that is refused by policy should read access_denied, not a cut connection. The class follows
// one direction's application traffic secret and its record numbers (RFC 8446 sections 5.3, 7.2 and
// 7.3); OpenSSL tells both through its key log and message callbacks. The secret is wiped with the
// object and never formatted. Confined to its engine's thread.
class WriteSecret {
 public:
  WriteSecret() = default;
  ~WriteSecret();
  WriteSecret(const WriteSecret&) = delete;
  WriteSecret& operator=(const WriteSecret&) = delete;

  // From a line of the key log, "<label> <client random> <secret>" in hexadecimal, if its label is
  // the one of this role's application secret. Others are passed over.
  void OnKeyLog(std::string_view line, bool is_server);
  // One more record was written under the secret.
  void CountRecord() { ++sequence_; }
  // Our side has sent a KeyUpdate: the next secret counts from zero.
  void Advance(const SSL_CIPHER* cipher);

  // A whole TLSCiphertext that holds the fatal alert; nullopt without a secret, or for a cipher
  // that is not one of ours.
  std::optional<std::vector<uint8_t>> SealAlert(const SSL_CIPHER* cipher, uint8_t description);

 private:
  static constexpr size_t kMaxSecret = 64;
  void Wipe();

  std::array<uint8_t, kMaxSecret> secret_{};
  size_t size_ = 0;
  uint64_t sequence_ = 0;
};

}  // namespace postern::tls
