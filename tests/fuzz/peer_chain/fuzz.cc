// SPDX-License-Identifier: Apache-2.0
// A peer's certificates, DER one behind the other, leaf first: judged as they stand, and judged
// again as if a CA that is trusted had signed what they say. A fuzzer finds no signature by itself,
// and behind it lies most of what is read.
#include "tests/fuzz/fuzz.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/svid.h"
#include "tests/testing/test_ca.h"

using postern::base::ByteSpan;
using postern::testing::TestCa;
using postern::x509::ChainVerdict;
using postern::x509::PeerRole;
using postern::x509::X509Ptr;

namespace {

constexpr size_t kMostCertificates = 6;

const TestCa& Ca() {
  static const TestCa ca("example.org");
  return ca;
}

std::vector<X509Ptr> ReadChain(ByteSpan bytes) {
  std::vector<X509Ptr> chain;
  while (!bytes.empty() && chain.size() < kMostCertificates) {
    const unsigned char* end = bytes.data();
    const X509Ptr probe(d2i_X509(nullptr, &end, static_cast<long>(bytes.size())));
    ERR_clear_error();
    const size_t size = probe == nullptr ? bytes.size() : static_cast<size_t>(end - bytes.data());
    // Its own heap block, of the exact size.
    const std::vector<uint8_t> der(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    auto certificate = postern::x509::CertificateFromDer(der);
    POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
    POSTERN_FUZZ_CHECK(probe != nullptr || !certificate.ok());
    if (!certificate.ok()) {
      break;
    }
    chain.push_back(*std::move(certificate));
    bytes = bytes.subspan(size);
  }
  return chain;
}

// Names whichever key had signed the certificate.
void RemoveAuthorityKey(X509* certificate) {
  int at = 0;
  while ((at = X509_get_ext_by_NID(certificate, NID_authority_key_identifier, -1)) >= 0) {
    X509_EXTENSION_free(X509_delete_ext(certificate, at));
  }
}

// Each certificate signed by the next one, the last one by the CA. False: OpenSSL would not write
// it.
bool Sign(std::vector<X509Ptr>& chain) {
  static const postern::x509::PkeyPtr key = postern::testing::MakeKey();
  bool done = true;
  for (size_t i = chain.size(); i > 0 && done; --i) {
    X509* const one = chain[i - 1].get();
    X509* const issuer = i == chain.size() ? Ca().certificate() : chain[i].get();
    EVP_PKEY* const signer = i == chain.size() ? Ca().key() : key.get();
    RemoveAuthorityKey(one);
    done = (i == 1 || X509_set_pubkey(one, key.get()) == 1) &&
           X509_set_issuer_name(one, X509_get_subject_name(issuer)) == 1 &&
           X509_sign(one, signer, EVP_sha256()) > 0;
    if (done) {
      // What OpenSSL has noted of the old one goes with it.
      unsigned char* der = nullptr;
      const int size = i2d_X509(one, &der);
      const unsigned char* at = der;
      chain[i - 1].reset(size > 0 ? d2i_X509(nullptr, &at, size) : nullptr);
      OPENSSL_free(der);
      done = chain[i - 1] != nullptr;
    }
  }
  ERR_clear_error();
  return done;
}

void Judge(const std::vector<X509Ptr>& chain) {
  static const postern::x509::TrustBundleSet bundles = Ca().BundleSet();
  const postern::x509::X509StackPtr above(sk_X509_new_null());
  for (size_t i = 1; i < chain.size(); ++i) {
    sk_X509_push(above.get(), chain[i].get());
    X509_up_ref(chain[i].get());
  }
  for (const PeerRole role : {PeerRole::kClient, PeerRole::kServer}) {
    const ChainVerdict verdict = postern::x509::VerifyPeerChain(chain.front().get(), above.get(),
                                                                bundles, role, absl::Now());
    POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
    if (verdict.peer.has_value()) {
      POSTERN_FUZZ_CHECK(verdict.peer->id.trust_domain_name() == "example.org");
      POSTERN_FUZZ_CHECK(verdict.peer->id.IsWorkload());
      POSTERN_FUZZ_CHECK(verdict.peer->chain_sha256.size() >= 2);
      POSTERN_FUZZ_CHECK(verdict.peer->links.size() + 1 == verdict.peer->chain_sha256.size());
    } else {
      POSTERN_FUZZ_CHECK(!verdict.error.detail.empty() && verdict.error.x509_error != 0);
      POSTERN_FUZZ_CHECK(std::none_of(verdict.error.detail.begin(), verdict.error.detail.end(),
                                      [](char c) { return c >= 0 && c < 0x20; }));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<X509Ptr> chain = ReadChain({data, size});
  if (chain.empty()) {
    return 0;
  }
  for (const X509Ptr& certificate : chain) {
    (void)postern::x509::SubjectText(certificate.get());
    (void)postern::x509::LeafSpiffeId(certificate.get());
    (void)postern::x509::IsCa(certificate.get());
    POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  }
  Judge(chain);
  if (Sign(chain)) {
    Judge(chain);
  }
  return 0;
}
