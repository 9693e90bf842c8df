// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proxy/admin/pages.h"

namespace postern::admin {

// The unix socket of the changing verbs: HTTP/1.1, one request for each connection, so that
// `curl --unix-socket` is all an operator needs. The kernel says who the peer is (SO_PEERCRED):
// root and this process's own user are let in. It speaks the little HTTP it needs by itself because
// the HTTP library does not show a handler its socket. Owned by main; one thread of its own.
class ControlSocket {
 public:
  // Makes the socket with mode 0600. A stale file is replaced; FailedPrecondition when another
  // process still listens there; Unavailable names path and system error.
  static absl::StatusOr<std::unique_ptr<ControlSocket>> Start(const std::string& path,
                                                              const Pages& pages,
                                                              const Verbs& verbs);
  ~ControlSocket();  // stops, joins, removes the file if it is still its own
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

 private:
  struct Impl;
  explicit ControlSocket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::admin
