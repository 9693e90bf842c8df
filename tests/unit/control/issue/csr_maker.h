// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/x509v3.h>

#include <string>
#include <utility>
#include <vector>

#include "common/x509/openssl_ptr.h"

namespace postern::issue {

// What a hostile or careless client may put into a CSR.
struct CsrFacts {
  EVP_PKEY* signer = nullptr;  // null: the key itself
  std::string common_name = {};
  std::vector<std::pair<int, std::string>> extensions = {};  // NID, in OpenSSL's notation
};

// A CSR with these facts, DER.
inline std::string MakeCsr(EVP_PKEY* key, const CsrFacts& facts) {
  const x509::X509ReqPtr request(X509_REQ_new());
  X509_REQ_set_pubkey(request.get(), key);
  if (!facts.common_name.empty()) {
    X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(facts.common_name.c_str()),
                               -1, -1, 0);
  }
  STACK_OF(X509_EXTENSION)* extensions = sk_X509_EXTENSION_new_null();
  for (const auto& [nid, value] : facts.extensions) {
    sk_X509_EXTENSION_push(extensions, X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str()));
  }
  if (!facts.extensions.empty()) {
    X509_REQ_add_extensions(request.get(), extensions);
  }
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  X509_REQ_sign(request.get(), facts.signer == nullptr ? key : facts.signer, EVP_sha256());
  unsigned char* der = nullptr;
  const int size = i2d_X509_REQ(request.get(), &der);
  std::string bytes(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return bytes;
}

}  // namespace postern::issue
