// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/evp.h>
#include <openssl/types.h>

namespace postern::tls {

// The OpenSSL library context for the TLS contexts of an identity with this key; null: the
// process's own. Before OpenSSL 3.2 each certificate that a peer shows makes OpenSSL go through all
// its decoders to find the one for its key, a quarter of a handshake, and each key that it makes
// through all names that it knows. So TLS gets a context of its own, with the process's default
// provider behind it, from which only the decoders of public keys are taken that a certificate here
// may have (common/x509 accepts no others), and the ciphers of TLS 1.3.
//
// The process's own it is where that gains nothing (newer OpenSSL), where the operator has
// configured other providers than the default one, and for keys that would be copied out of locked
// memory on the way from one context to the other (all but elliptic curves'). Any thread; made
// once, and as old as the process.
OSSL_LIB_CTX* TlsLibraryFor(const EVP_PKEY* own_key);

}  // namespace postern::tls
