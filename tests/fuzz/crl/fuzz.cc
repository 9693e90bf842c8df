// SPDX-License-Identifier: Apache-2.0
// What a file of --crl may hold, PEM or DER. Each CRL is verified as it stands, and again as if the
// CA had signed what it says: behind the signature lies most of what is read.
#include "tests/fuzz/fuzz.h"

#include <openssl/err.h>
#include <openssl/x509.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "common/x509/crl.h"
#include "common/x509/revocation_set.h"
#include "tests/testing/test_ca.h"

using postern::testing::TestCa;
using postern::x509::X509CrlPtr;
using postern::x509::X509Ptr;

namespace {

const TestCa& Ca() {
  static const TestCa ca("example.org");
  return ca;
}

X509CrlPtr Signed(const X509_CRL* crl) {
  X509CrlPtr copy(X509_CRL_dup(crl));
  if (copy == nullptr ||
      X509_CRL_set_issuer_name(copy.get(), X509_get_subject_name(Ca().certificate())) != 1 ||
      X509_CRL_sign(copy.get(), Ca().key(), EVP_sha256()) <= 0) {
    ERR_clear_error();
    return nullptr;
  }
  unsigned char* der = nullptr;
  const int size = i2d_X509_CRL(copy.get(), &der);
  const unsigned char* at = der;
  copy.reset(size > 0 ? d2i_X509_CRL(nullptr, &at, size) : nullptr);
  OPENSSL_free(der);
  ERR_clear_error();
  return copy;
}

void Judge(X509_CRL* crl, const std::vector<X509Ptr>& authorities) {
  const auto verified = postern::x509::VerifyCrl(crl, "f", authorities);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  if (!verified.ok()) {
    return;
  }
  const auto entries =
      static_cast<size_t>(std::max(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)), 0));
  POSTERN_FUZZ_CHECK((*verified)->revoked.size() <= entries);
  POSTERN_FUZZ_CHECK(entries == 0 || !(*verified)->revoked.empty());
  const postern::x509::RevocationSet set({}, {*verified});
  POSTERN_FUZZ_CHECK(set.crls().size() == 1 && !set.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<X509Ptr> ours = [] {
    std::vector<X509Ptr> list;
    list.emplace_back(X509_dup(Ca().certificate()));
    return list;
  }();
  const std::string_view content(reinterpret_cast<const char*>(data), size);
  const auto parsed = postern::x509::ParseCrlFile(content);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  if (!parsed.ok()) {
    return 0;
  }
  POSTERN_FUZZ_CHECK(!parsed->crls.empty() || !parsed->authorities.empty());
  for (const X509CrlPtr& crl : parsed->crls) {
    Judge(crl.get(), parsed->authorities);
    if (const X509CrlPtr resigned = Signed(crl.get()); resigned != nullptr) {
      Judge(resigned.get(), ours);
    }
  }
  return 0;
}
