// SPDX-License-Identifier: Apache-2.0
#include "control/federation/certificate_files.h"

#include <openssl/crypto.h>

#include <vector>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"

namespace postern::federation {
namespace {

absl::Status Naming(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), base::StrCat(path, ": ", base::Message(status)));
}

std::string DigestOf(std::string_view certificate, std::string_view key) {
  return base::StrCat(base::AsText(x509::Sha256(base::AsBytes(certificate))),
                      base::AsText(x509::Sha256(base::AsBytes(key))));
}

}  // namespace

absl::Status CertificateFiles::Reload(BundleEndpoint& endpoint) {
  const absl::StatusOr<std::string> certificate = base::ReadFile(certificate_file_);
  if (!certificate.ok()) {
    return certificate.status();
  }
  absl::StatusOr<std::string> key = base::ReadSecretFile(key_file_, true);
  if (!key.ok()) {
    return key.status();
  }
  std::string digest = DigestOf(*certificate, *key);
  absl::StatusOr<x509::PkeyPtr> parsed_key = x509::PrivateKeyFromPem(*key);
  OPENSSL_cleanse(key->data(), key->size());
  if (digest == installed_) {
    return absl::OkStatus();
  }
  const absl::StatusOr<std::vector<x509::X509Ptr>> chain = x509::CertificatesFromPem(*certificate);
  if (!chain.ok() || !parsed_key.ok()) {
    return chain.ok() ? Naming(key_file_, parsed_key.status())
                      : Naming(certificate_file_, chain.status());
  }
  if (absl::Status set = endpoint.SetIdentity(*chain, parsed_key->get()); !set.ok()) {
    return Naming(certificate_file_, set);
  }
  installed_ = std::move(digest);
  return absl::OkStatus();
}

}  // namespace postern::federation
