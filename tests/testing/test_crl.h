// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "tests/testing/test_ca.h"

namespace postern::testing {

// What stands in a certificate revocation list; the defaults are a proper one.
struct CrlSpec {
  std::vector<std::string> serials = {};  // hex, as x509::SerialHex gives them
  absl::Time this_update = absl::Now() - absl::Minutes(1);
  absl::Time next_update = absl::Now() + absl::Hours(1);
  bool delta = false;  // with a critical delta CRL indicator
  std::string digest = "SHA256";
};

// A CRL that `ca` signs; or that `signer` signs in its name. Aborts when OpenSSL refuses.
x509::X509CrlPtr MakeCrl(const TestCa& ca, const CrlSpec& spec);
x509::X509CrlPtr MakeCrl(const TestCa& ca, const CrlSpec& spec, EVP_PKEY* signer);

std::string CrlPem(X509_CRL* crl);
std::string CrlDer(X509_CRL* crl);

}  // namespace postern::testing
