// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"

// A private key that stays in a PKCS#11 token (an HSM, a smart card, SoftHSM): OpenSSL asks the
// token for each signature.
namespace postern::ca {

// Where it is. `uri` is RFC 7512's: "pkcs11:token=ca;object=issuing"; its query may name the
// token's library ("?module-path=/usr/lib/softhsm/libsofthsm2.so"), else p11-kit's modules are
// looked through.
struct Pkcs11Location {
  std::string uri;
  std::string pin_file;  // private (base::ReadMountedSecret); empty: the token needs no PIN
};

// InvalidArgument: no pkcs11 URI, or one with a pin-value or pin-source: a PIN has no business on a
// command line.
absl::Status CheckPkcs11Uri(std::string_view uri);

// Finds the key, logging in with the PIN: once, for a token counts wrong ones. Through OpenSSL's
// provider "pkcs11" (package pkcs11-provider) where it is installed, else through the engine of the
// same name (libengine-pkcs11-openssl). What is loaded stays until the process ends. Blocks; one
// thread at a time; the key itself may be used by all.
// FailedPrecondition: neither is installed, or the module-path is not the first call's. NotFound:
// the token or the key is not there, or the PIN is wrong (PKCS#11 does not let OpenSSL tell). The
// PIN file's errors pass through. No message holds the PIN.
absl::StatusOr<x509::PkeyPtr> LoadPkcs11Key(const Pkcs11Location& location);

}  // namespace postern::ca
