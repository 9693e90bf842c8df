// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/x509_vfy.h>

#include "absl/container/flat_hash_map.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

namespace postern::tls {

// Keeps one copy of each peer's certificate. OpenSSL holds the chain of every connection's peer
// until the connection ends: 5 KB for each certificate, the same bytes again for each connection of
// the same peer, and nobody asks for them after the handshake, as VerifiedPeer has the facts. Owned
// by a TlsContext; worker's thread.
class PeerCertificates {
 public:
  // For the cert_verify_callback, once the chain is verified: the leaf of `store_ctx`, whose
  // SHA-256 is `sha256`, gives way to the copy that is kept (it becomes that copy when there is
  // none), and the rest of what the peer sent goes.
  void Share(X509_STORE_CTX* store_ctx, const base::Sha256Digest& sha256);

  size_t size() const { return leaves_.size(); }

 private:
  // Connections hold what they use; more peers than this begin to share anew.
  static constexpr size_t kMostLeaves = 64;

  absl::flat_hash_map<base::Sha256Digest, x509::X509Ptr> leaves_;
};

}  // namespace postern::tls
