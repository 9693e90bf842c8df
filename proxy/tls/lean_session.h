// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <vector>

namespace postern::tls {

// The DER of a session without the peer's certificate: who the peer is stands in facts of our own,
// and the certificate would triple a ticket's size and be parsed again with each use. Empty when
// OpenSSL refuses, or writes a session in a way that we do not know.
std::vector<uint8_t> LeanSession(const SSL_SESSION* session);

// Takes the peer's certificate out of a session that OpenSSL is about to seal into a ticket; the
// chain that the session holds beside it is never sealed. A session whose form we do not know stays
// as it is. False: OpenSSL failed halfway, and the session must not be used.
bool DropCertificate(SSL_SESSION* session);

}  // namespace postern::tls
