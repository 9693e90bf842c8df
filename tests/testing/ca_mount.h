// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/testing/test_ca.h"

namespace postern::testing {

enum class CaFileNames : uint8_t {
  kIstio,    // ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem
  kTls,      // tls.crt, tls.key, ca.crt
  kLinkerd,  // crt.pem, key.pem, ca-bundle.crt
};

// A directory with a CA as somebody else's tool leaves it there. Aborts the test program when it
// cannot write. The directory's parent owns it (a TempDir).
class CaMount {
 public:
  // Makes the directory if it is missing.
  explicit CaMount(std::string path, CaFileNames names = CaFileNames::kIstio);

  // Writes the files in place, one after the other. `roots_pem` empty: the CA's own root.
  void Write(const TestCa& ca, std::string_view roots_pem = {}) const;

  // As Kubernetes renews a mounted secret: a new directory, then the symlink "..data", through
  // which all names lead, is swapped. Not to be mixed with Write.
  void Swap(const TestCa& ca, std::string_view roots_pem = {});

  const std::string& path() const { return path_; }
  std::string Path(std::string_view name) const;
  std::string Read(std::string_view name) const;
  // Replaces one file, keeping its mode private.
  void Put(std::string_view name, std::string_view content) const;

  std::string_view signing_name() const;
  std::string_view key_name() const;
  std::string_view roots_name() const;

 private:
  void WriteTo(const std::string& directory, const TestCa& ca, std::string_view roots_pem) const;

  const std::string path_;
  const CaFileNames names_;
  int swaps_ = 0;
};

}  // namespace postern::testing
