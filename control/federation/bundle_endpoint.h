// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"

namespace postern::federation {

inline constexpr size_t kMaxEndpointConnections = 256;  // the next ones wait in the backlog
inline constexpr int kEndpointDeadlineMs = 5000;        // of a connection, from accept to its end

// The bundle endpoint (SPIFFE Federation section 5): GET / over TLS 1.2 or 1.3 gives the document,
// to anybody. One thread of its own serves all connections; none may last longer than the
// deadline, ask for more than one request of 8 KiB, or be one too many. Made and destroyed by main.
class BundleEndpoint {
 public:
  // `host` is an IP without brackets; port 0 picks one. Unavailable names the address. It refuses
  // handshakes until it has an identity and answers 503 until it has a document.
  static absl::StatusOr<std::unique_ptr<BundleEndpoint>> Listen(const std::string& host,
                                                                uint16_t port);
  ~BundleEndpoint();  // stops and joins
  BundleEndpoint(const BundleEndpoint&) = delete;
  BundleEndpoint& operator=(const BundleEndpoint&) = delete;

  // What new connections are served from now on: leaf first, then its intermediates. Internal:
  // OpenSSL refuses them (InvalidArgument: the key is another's), and the old ones go on.
  absl::Status SetIdentity(const std::vector<x509::X509Ptr>& chain, EVP_PKEY* key);
  void SetDocument(std::string json);

  uint16_t port() const;
  uint64_t served() const;  // answers with the document so far

 private:
  struct Impl;
  explicit BundleEndpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::federation
