// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"

namespace postern::ca {

inline constexpr std::string_view kPublishedRootsFile = "plugged-roots.pem";  // of the state dir

// A root that proxies were told to trust, and why it still is, or is no more.
struct PublishedRoot {
  x509::X509Ptr certificate;
  bool signs = false;  // certificates are being signed below it
  // Until when it is kept though its CA is gone: what was signed below it may be in use.
  // InfiniteFuture: as long as the directory names it, or it signs.
  absl::Time until = absl::InfiniteFuture();

  // `until` has come: nobody is told to trust it, and connections that stand on it may go on.
  bool retired = false;

  PublishedRoot Share() const {
    return {x509::ShareX509(certificate.get()), signs, until, retired};
  }
};

// Whether both hold the same certificates, in whatever order, and the same ones are retired.
bool SameRoots(const std::vector<PublishedRoot>& a, const std::vector<PublishedRoot>& b);
// The same, and with the same facts.
bool SameRootsAndFacts(const std::vector<PublishedRoot>& a, const std::vector<PublishedRoot>& b);
// Null: not among them.
const PublishedRoot* FindRoot(const std::vector<PublishedRoot>& roots, const X509* certificate);

// The file of the state directory that remembers them over a restart: a PEM text with a line of
// facts in front of each certificate. Written atomically. Empty: there is no file. DataLoss: it is
// damaged; the message names it and the mend.
absl::StatusOr<std::vector<PublishedRoot>> ReadPublishedRoots(const std::string& state_dir);
absl::Status WritePublishedRoots(const std::string& state_dir,
                                 const std::vector<PublishedRoot>& roots);

}  // namespace postern::ca
