// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_layout.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/digest.h"

namespace postern::ca {
namespace {

constexpr size_t kMostBytes = 1U << 20U;  // of one file; a bundle of hundreds of roots is smaller
constexpr int kMostAttempts = 3;

struct Names {
  CaLayout layout;
  std::string_view text;
  const char* signing;
  const char* key;
  const char* roots;
  const char* chain;  // null: it follows the signing certificate in its file
};

constexpr std::array<Names, 3> kLayouts = {{
    {CaLayout::kIstio, "Istio cacerts", "ca-cert.pem", "ca-key.pem", "root-cert.pem",
     "cert-chain.pem"},
    {CaLayout::kTls, "kubernetes.io/tls", "tls.crt", "tls.key", "ca.crt", nullptr},
    {CaLayout::kLinkerd, "linkerd.io/tls", "crt.pem", "key.pem", "ca-bundle.crt", nullptr},
}};

bool Exists(const std::string& path) {
  struct stat facts {};
  return stat(path.c_str(), &facts) == 0;
}

absl::StatusOr<const Names*> FindLayout(const std::string& directory) {
  const Names* found = nullptr;
  for (const Names& names : kLayouts) {
    if (!Exists(base::StrCat(directory, "/", names.signing))) {
      continue;
    }
    if (found != nullptr) {
      return absl::FailedPreconditionError(
          base::StrCat("'", base::Printable(directory), "' holds both ", found->signing, " and ",
                       names.signing, ": which of the two signs? Leave one"));
    }
    found = &names;
  }
  if (found == nullptr) {
    return absl::NotFoundError(base::StrCat(
        "'", base::Printable(directory),
        "' holds no CA: ca-cert.pem (Istio's cacerts), tls.crt (cert-manager, Linkerd) or crt.pem "
        "(Linkerd) was looked for"));
  }
  return found;
}

// A PEM text whose last line is a piece of a BEGIN or END line. PEM readers take such a piece for a
// comment, and then a bundle has silently lost its last root.
bool IsCutShort(std::string_view pem) {
  while (!pem.empty() && (pem.back() == '\n' || pem.back() == '\r' || pem.back() == ' ')) {
    pem.remove_suffix(1);
  }
  const size_t line_break = pem.rfind('\n');
  const std::string_view last =
      line_break == std::string_view::npos ? pem : pem.substr(line_break + 1);
  return last.starts_with('-') && !(last.starts_with("-----END ") && last.ends_with("-----"));
}

absl::Status ReadPem(const std::string& path, bool secret, std::string& out) {
  absl::StatusOr<std::string> text =
      secret ? base::ReadMountedSecret(path, kMostBytes) : base::ReadFile(path, kMostBytes);
  if (!text.ok()) {
    return text.status();
  }
  out = *std::move(text);
  if (IsCutShort(out)) {
    return absl::InvalidArgumentError(
        base::StrCat("'", base::Printable(path), "' is cut short within its last line"));
  }
  return absl::OkStatus();
}

base::Sha256Digest DigestOf(const CaFiles& files) {
  std::string digests;
  for (const std::string* text :
       {&files.signing_pem, &files.chain_pem, &files.roots_pem, &files.key_pem}) {
    digests += base::AsText(x509::Sha256(base::AsBytes(*text)));
  }
  return x509::Sha256(base::AsBytes(digests));
}

// The folder that the files of one version lie in: behind a symlink of the directory itself, and
// behind the `..data` of a mounted secret, which is swapped as a whole. Through it no file can be
// of another version; one that has been taken away is not found.
std::string OneVersionOf(const std::string& directory) {
  for (const std::string& path : {base::StrCat(directory, "/..data"), directory}) {
    const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                           &std::free);
    if (real != nullptr && (path == directory || FindLayout(real.get()).ok())) {
      return real.get();
    }
  }
  return directory;
}

absl::StatusOr<CaFiles> ReadOnce(const CaDirectory& directory) {
  const std::string folder = OneVersionOf(directory.path);
  const absl::StatusOr<const Names*> names = FindLayout(folder);
  if (!names.ok()) {
    return names.status();
  }
  const auto path = [&folder](const char* name) { return base::StrCat(folder, "/", name); };
  CaFiles files;
  files.layout = (*names)->layout;
  absl::Status status = ReadPem(path((*names)->signing), false, files.signing_pem);
  if (status.ok() && (*names)->chain != nullptr && Exists(path((*names)->chain))) {
    status = ReadPem(path((*names)->chain), false, files.chain_pem);
  }
  if (status.ok()) {
    const bool elsewhere = !directory.roots_file.empty();
    status =
        ReadPem(elsewhere ? directory.roots_file : path((*names)->roots), false, files.roots_pem);
    if (absl::IsNotFound(status) && !elsewhere) {
      return absl::NotFoundError(base::StrCat(base::Message(status),
                                              ": the roots belong there, or name another file "
                                              "with --ca-roots"));
    }
  }
  if (status.ok() && directory.holds_key) {
    status = ReadPem(path((*names)->key), true, files.key_pem);
  }
  if (!status.ok()) {
    return status;
  }
  files.digest = DigestOf(files);
  return files;
}

}  // namespace

CaFiles::~CaFiles() {
  OPENSSL_cleanse(key_pem.data(), key_pem.size());
}

std::string_view NameOf(CaLayout layout) {
  for (const Names& names : kLayouts) {
    if (names.layout == layout) {
      return names.text;
    }
  }
  return "";
}

absl::StatusOr<CaFiles> ReadCaFiles(const CaDirectory& directory) {
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    const absl::StatusOr<CaFiles> before = ReadOnce(directory);
    absl::StatusOr<CaFiles> files = ReadOnce(directory);
    const bool agree = files.ok() && before.ok() ? files->digest == before->digest
                                                 : files.status() == before.status();
    if (agree) {
      return files;
    }
  }
  return absl::AbortedError(
      base::StrCat("'", base::Printable(directory.path), "' does not stop changing"));
}

}  // namespace postern::ca
