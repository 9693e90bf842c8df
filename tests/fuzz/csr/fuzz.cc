// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <string>

#include "common/x509/csr.h"
#include "common/x509/key.h"

namespace {

using postern::base::ByteSpan;

void Judge(ByteSpan der) {
  const absl::StatusOr<postern::x509::VerifiedCsr> csr = postern::x509::VerifyCsr(der);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  if (csr.ok()) {
    POSTERN_FUZZ_CHECK(postern::x509::CheckKeyStrength(csr->public_key.get()).ok());
  }
}

// The same request as if its sender had the key: a fuzzer
// finds no signature by itself, and behind it lies most of what is read.
void JudgeSigned(ByteSpan der) {
  static const postern::x509::PkeyPtr key = postern::x509::GenerateP256Key().value();
  const unsigned char* at = der.data();
  const postern::x509::X509ReqPtr request(
      d2i_X509_REQ(nullptr, &at, static_cast<long>(der.size())));
  if (request != nullptr && X509_REQ_set_pubkey(request.get(), key.get()) == 1 &&
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) > 0) {
    unsigned char* made = nullptr;
    const int size = i2d_X509_REQ(request.get(), &made);
    ERR_clear_error();
    if (size > 0) {
      Judge({made, static_cast<size_t>(size)});
      OPENSSL_free(made);
    }
  }
  ERR_clear_error();
}

}  // namespace

// DER as a client sends it. Some seeds are text: the content of a PEM block is judged as well.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Judge({data, size});
  JudgeSigned({data, size});
  const postern::x509::BioPtr bio(BIO_new_mem_buf(data, static_cast<int>(size)));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* der = nullptr;
  long length = 0;
  if (PEM_read_bio(bio.get(), &name, &header, &der, &length) == 1) {
    Judge({der, static_cast<size_t>(length)});
    JudgeSigned({der, static_cast<size_t>(length)});
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(der);
  }
  ERR_clear_error();
  return 0;
}
