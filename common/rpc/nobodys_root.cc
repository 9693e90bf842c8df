// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/nobodys_root.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "common/x509/openssl_ptr.h"

namespace postern::rpc {
namespace {

constexpr long kVersion3 = 2;
constexpr unsigned char kName[] = "nobody";

// Valid for one second from now: nothing has to be verified by it, ever.
bool Fill(X509* root, EVP_PKEY* key) {
  X509_NAME* name = X509_get_subject_name(root);
  return X509_set_version(root, kVersion3) == 1 &&
         ASN1_INTEGER_set(X509_get_serialNumber(root), 1) == 1 &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, kName, -1, -1, 0) == 1 &&
         X509_set_issuer_name(root, name) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(root), 0) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(root), 1) != nullptr &&
         X509_set_pubkey(root, key) == 1 && X509_sign(root, key, EVP_sha256()) > 0;
}

absl::StatusOr<std::string> Make() {
  const auto key = x509::GenerateP256Key();
  if (!key.ok()) {
    return key.status();
  }
  const x509::X509Ptr root(X509_new());
  const bool made = root != nullptr && Fill(root.get(), key->get());
  ERR_clear_error();
  if (!made) {
    return absl::InternalError("OpenSSL: cannot make a certificate");
  }
  return x509::CertificateToPem(root.get());
}

}  // namespace

absl::StatusOr<std::string> NobodysRoot() {
  static const absl::StatusOr<std::string> root = Make();
  return root;
}

}  // namespace postern::rpc
