// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/ticket_secret.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

namespace postern::identity {

std::shared_ptr<const TicketSecret> TicketSecret::Make() {
  std::shared_ptr<TicketSecret> secret(new TicketSecret());
  if (RAND_priv_bytes(secret->bytes_.data(), static_cast<int>(secret->bytes_.size())) != 1) {
    ERR_clear_error();
    return nullptr;
  }
  return secret;
}

TicketSecret::~TicketSecret() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
}

}  // namespace postern::identity
