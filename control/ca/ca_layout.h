// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace postern::ca {

// In which form a CA lies in a directory:
//   kIstio    ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem (may be missing)
//   kTls      tls.crt, tls.key, ca.crt: cert-manager, Linkerd's kubernetes.io/tls
//   kLinkerd  crt.pem, key.pem, ca-bundle.crt: Linkerd's linkerd.io/tls, with its roots beside
enum class CaLayout : uint8_t { kIstio, kTls, kLinkerd };

std::string_view NameOf(CaLayout layout);

// Where a plugged-in CA lies.
struct CaDirectory {
  std::string path;
  std::string roots_file = {};  // holds the roots instead of the directory; empty: the directory
  bool holds_key = true;        // false: the key is elsewhere (PKCS#11), one in here is not read
};

// What lies there, as texts: nothing of it is judged yet (JudgeCa). The key's text is wiped when
// this dies.
struct CaFiles {
  CaFiles() = default;
  CaFiles(CaFiles&&) noexcept = default;
  CaFiles& operator=(CaFiles&&) = delete;
  ~CaFiles();

  CaLayout layout = CaLayout::kIstio;
  std::string signing_pem;  // the signing certificate first; more may follow it
  std::string chain_pem;    // kIstio's cert-chain.pem; empty: none
  std::string roots_pem;
  std::string key_pem;          // empty unless the directory holds the key
  base::Sha256Digest digest{};  // of all of the above
};

// Reads all of it, and once more until two readings agree: where a symlink is swapped or files are
// written meanwhile, never half of the old and half of the new. Symlinks are followed; the key must
// be private (base::ReadMountedSecret). Blocks on the disk; any thread.
// NotFound: a file is missing, or no layout is there. FailedPrecondition: more than one is.
// Aborted: it did not stop changing. InvalidArgument: a PEM text is cut short within its last line.
// ReadFile's errors pass through. Each message names the file.
absl::StatusOr<CaFiles> ReadCaFiles(const CaDirectory& directory);

}  // namespace postern::ca
