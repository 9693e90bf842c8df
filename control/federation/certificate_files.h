// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "control/federation/bundle_endpoint.h"

namespace postern::federation {

// The endpoint's certificate from files (https_web), read again and again: by content, so that a
// symlink swap or a network file system is noticed as well. One thread.
class CertificateFiles {
 public:
  // PEM: the certificate with its intermediates, and its key, which only its owner may read.
  CertificateFiles(std::string certificate_file, std::string key_file)
      : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)) {}

  // Gives what stands in the files to the endpoint if it is not what it has. On an error, which
  // names the file, the endpoint goes on with the old one.
  absl::Status Reload(BundleEndpoint& endpoint);

 private:
  const std::string certificate_file_;
  const std::string key_file_;
  std::string installed_;  // SHA-256 over both files
};

}  // namespace postern::federation
