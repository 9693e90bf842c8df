// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/peer_certificates.h"

namespace postern::tls {

// The stack of "untrusted" certificates is the one that the SSL makes its session's peer chain of
// after the callback (3.0 to 3.5: tls_process_client_certificate shifts the leaf off it,
// tls_post_process_server_certificate shares its first element), and the key that CertificateVerify
// is checked by is taken from its first element then. So what stands there must be the same
// certificate, byte for byte, which the digest says.
void PeerCertificates::Share(X509_STORE_CTX* store_ctx, const base::Sha256Digest& sha256) {
  STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store_ctx);
  X509* leaf = X509_STORE_CTX_get0_cert(store_ctx);
  if (sent == nullptr || sk_X509_num(sent) == 0 || sk_X509_value(sent, 0) != leaf) {
    return;
  }
  while (sk_X509_num(sent) > 1) {
    const x509::X509Ptr let_go(sk_X509_pop(sent));
  }
  const auto found = leaves_.find(sha256);
  if (found == leaves_.end()) {
    if (leaves_.size() >= kMostLeaves) {
      leaves_.clear();
    }
    leaves_.emplace(sha256, x509::ShareX509(leaf));
    return;
  }
  x509::X509Ptr kept = x509::ShareX509(found->second.get());
  X509_STORE_CTX_set_cert(store_ctx, kept.get());
  const x509::X509Ptr let_go(leaf);
  sk_X509_set(sent, 0, kept.release());
}

}  // namespace postern::tls
