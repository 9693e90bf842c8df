// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

namespace postern::tls {

// On what the worth of a ticket hangs beside its keys, at this moment. Its owner, a worker, changes
// it in place on its own thread; a ticket is bound to what it says when the ticket is made, and
// judged by what it says when the ticket comes back.
struct TrustState {
  uint64_t bundle_epoch = 0;
  uint64_t bundle_sequence = 0;
  uint64_t policy_revision = 0;
  uint64_t policies_given = 0;       // to this worker so far: tells two sets of one revision apart
  uint64_t revocation_sequence = 0;  // counts the lists and CRLs given to this worker so far
};

// The SHA-256 over all of it and the listener by which a client came.
base::Sha256Digest BindingOf(const TrustState& trust, std::string_view listener);

// What seals the session tickets of a server: AES-256-CBC and HMAC-SHA256, as OpenSSL's ticket
// callback wants them. Made from a secret that lives as long as one identity snapshot, so that the
// workers of a process open each other's tickets and nobody opens those of an earlier snapshot.
// Immutable; never formatted; wiped with the object.
class TicketKeys {
 public:
  static constexpr size_t kSecretBytes = 80;

  // InvalidArgument: `secret` is not of kSecretBytes. Internal: OpenSSL lacks the cipher.
  static absl::StatusOr<std::shared_ptr<const TicketKeys>> Create(base::ByteSpan secret);
  ~TicketKeys();
  TicketKeys(const TicketKeys&) = delete;
  TicketKeys& operator=(const TicketKeys&) = delete;

  // What OpenSSL's callback answers: 1 the contexts are ready, 0 the name is of no key of ours, -1
  // OpenSSL refused. `name` has 16 bytes, `iv` EVP_MAX_IV_LENGTH.
  int ReadyToSeal(uint8_t* name, uint8_t* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac) const;
  int ReadyToOpen(const uint8_t* name, const uint8_t* iv, EVP_CIPHER_CTX* cipher,
                  EVP_MAC_CTX* mac) const;

 private:
  using CipherPtr = x509::OpensslPtr<EVP_CIPHER, EVP_CIPHER_free>;

  TicketKeys() = default;
  bool SetMacKey(EVP_MAC_CTX* mac) const;

  CipherPtr cipher_;
  std::array<uint8_t, 16> name_{};
  std::array<uint8_t, 32> cipher_key_{};
  std::array<uint8_t, 32> mac_key_{};
};

}  // namespace postern::tls
