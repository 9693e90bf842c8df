// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "control/service/certify_service.h"

namespace postern::service {

inline constexpr size_t kMaxMeshStreams = 20'000;

// postern.v1.Mesh, on the callback API: a stream costs no thread. Owned by main; the grpc::Server
// that serves it must be shut down before it is destroyed.
//
// A stream: Hello, then (on the service's own thread, because the store may block) authentication
// by the channel's client certificate, or over the unix socket by the peer's credentials; then
// whatever the mesh session has for this proxy, one write at a time. It ends at the certificate's
// notAfter; over the unix socket, when a certificate of now would end.
class MeshService {
 public:
  explicit MeshService(const ServiceParts& parts);
  ~MeshService();
  MeshService(const MeshService&) = delete;
  MeshService& operator=(const MeshService&) = delete;

  grpc::Service* service();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::service
