// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <span>

namespace postern::x509 {

// The only owners of OpenSSL objects; a raw owning pointer is a defect.
template <typename T, auto Free>
struct OpensslDelete {
  void operator()(T* object) const noexcept { Free(object); }
};
template <typename T, auto Free>
using OpensslPtr = std::unique_ptr<T, OpensslDelete<T, Free>>;

using BioPtr = OpensslPtr<BIO, BIO_free_all>;
using PkeyPtr = OpensslPtr<EVP_PKEY, EVP_PKEY_free>;
using X509Ptr = OpensslPtr<X509, X509_free>;
using X509CrlPtr = OpensslPtr<X509_CRL, X509_CRL_free>;
using X509ReqPtr = OpensslPtr<X509_REQ, X509_REQ_free>;
using X509StorePtr = OpensslPtr<X509_STORE, X509_STORE_free>;
using X509StoreCtxPtr = OpensslPtr<X509_STORE_CTX, X509_STORE_CTX_free>;
using SslPtr = OpensslPtr<SSL, SSL_free>;
using SslCtxPtr = OpensslPtr<SSL_CTX, SSL_CTX_free>;

// Owns the certificates in it as well as the stack.
inline void FreeX509Stack(STACK_OF(X509) * stack) {
  sk_X509_pop_free(stack, X509_free);
}
using X509StackPtr = OpensslPtr<STACK_OF(X509), FreeX509Stack>;

inline X509Ptr ShareX509(X509* certificate) {
  X509_up_ref(certificate);
  return X509Ptr(certificate);
}
inline PkeyPtr SharePkey(EVP_PKEY* key) {
  EVP_PKEY_up_ref(key);
  return PkeyPtr(key);
}

// A stack that shares the given certificates, in their order; null when out of memory.
inline X509StackPtr ShareX509Stack(std::span<const X509Ptr> certificates) {
  X509StackPtr stack(sk_X509_new_reserve(nullptr, static_cast<int>(certificates.size())));
  for (const X509Ptr& certificate : certificates) {
    X509Ptr shared = ShareX509(certificate.get());
    if (stack == nullptr || sk_X509_push(stack.get(), shared.get()) == 0) {
      return nullptr;
    }
    (void)shared.release();  // the stack's now
  }
  return stack;
}

}  // namespace postern::x509
