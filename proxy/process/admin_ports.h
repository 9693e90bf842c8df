// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/http/http_server.h"
#include "proxy/admin/control_socket.h"
#include "proxy/admin/pages.h"
#include "proxy/config/proxy_config.h"

namespace postern::process {

// Where a proxy answers its operators: --admin (a port, or a unix socket), --metrics and
// --admin-socket. Owned by the process; the pages are called from threads of these ports, which are
// joined when it is destroyed.
class AdminPorts {
 public:
  // Opens all that `config` names. `pages` and `verbs` outlive it. Errors name the flag.
  static absl::StatusOr<std::unique_ptr<AdminPorts>> Open(const config::ProxyConfig& config,
                                                          const admin::Pages& pages,
                                                          const admin::Verbs& verbs);

  uint16_t admin_port() const;  // 0: --admin is a unix socket
  uint16_t metrics_port() const { return metrics_->port(); }

 private:
  AdminPorts() = default;
  absl::Status OpenAdmin(const config::ProxyConfig& config, const admin::Pages& pages,
                         const admin::Verbs& verbs);
  absl::Status OpenMetrics(const config::ProxyConfig& config, const admin::Pages& pages);
  absl::Status OpenSocket(std::string_view flag, const std::string& path, const admin::Pages& pages,
                          const admin::Verbs& verbs);

  std::unique_ptr<http::HttpServer> metrics_;
  std::unique_ptr<http::HttpServer> admin_;
  std::vector<std::unique_ptr<admin::ControlSocket>> sockets_;
};

}  // namespace postern::process
