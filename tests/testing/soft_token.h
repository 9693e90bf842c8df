// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace postern::testing {

// A PKCS#11 token of SoftHSM, for one test program: its library reads its settings once. Needs the
// packages softhsm2 and pkcs11-provider or libengine-pkcs11-openssl.
class SoftToken {
 public:
  static constexpr std::string_view kPin = "4711";

  // Empty: it can be used here. Else which package is missing.
  static std::string WhyNot();

  // Makes the token "postern" in `directory`, which outlives the program's use of it. Aborts when
  // that fails.
  explicit SoftToken(const std::string& directory);

  // Puts a private key (PKCS#8 PEM) into it under this name.
  void Import(std::string_view name, std::string_view key_pem, std::string_view id_hex) const;

  // "pkcs11:token=postern;object=NAME?module-path=..."
  std::string Uri(std::string_view name) const;

 private:
  const std::string directory_;
};

}  // namespace postern::testing
