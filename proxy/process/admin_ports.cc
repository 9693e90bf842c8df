// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/admin_ports.h"

#include <utility>

#include "common/base/with_flag.h"

namespace postern::process {

absl::StatusOr<std::unique_ptr<AdminPorts>> AdminPorts::Open(const config::ProxyConfig& config,
                                                             const admin::Pages& pages,
                                                             const admin::Verbs& verbs) {
  std::unique_ptr<AdminPorts> ports(new AdminPorts());
  if (absl::Status opened = ports->OpenAdmin(config, pages, verbs); !opened.ok()) {
    return opened;
  }
  if (absl::Status opened = ports->OpenMetrics(config, pages); !opened.ok()) {
    return opened;
  }
  if (!config.admin_socket.empty()) {
    absl::Status opened = ports->OpenSocket("--admin-socket", config.admin_socket, pages, verbs);
    if (!opened.ok()) {
      return opened;
    }
  }
  return ports;
}

absl::Status AdminPorts::OpenAdmin(const config::ProxyConfig& config, const admin::Pages& pages,
                                   const admin::Verbs& verbs) {
  const absl::StatusOr<config::AddressSpec> address = config::AddressSpec::Parse(config.admin);
  if (!address.ok()) {
    return base::WithFlag("--admin", address.status());
  }
  if (address->is_unix()) {
    return OpenSocket("--admin", address->unix_path, pages, verbs);
  }
  auto server = http::HttpServer::Start(
      address->host, address->port, http::HostCheck::kThisMachine,
      [&pages](std::string_view path) { return admin::ReadPage(pages, path); });
  if (!server.ok()) {
    return base::WithFlag("--admin", server.status());
  }
  admin_ = *std::move(server);
  return absl::OkStatus();
}

absl::Status AdminPorts::OpenMetrics(const config::ProxyConfig& config, const admin::Pages& pages) {
  const absl::StatusOr<config::AddressSpec> address = config::AddressSpec::Parse(config.metrics);
  if (!address.ok()) {
    return base::WithFlag("--metrics", address.status());
  }
  auto server = http::HttpServer::Start(
      address->host, address->port, http::HostCheck::kNone,
      [&pages](std::string_view path) { return admin::ReadHealthPage(pages, path); });
  if (!server.ok()) {
    return base::WithFlag("--metrics", server.status());
  }
  metrics_ = *std::move(server);
  return absl::OkStatus();
}

absl::Status AdminPorts::OpenSocket(std::string_view flag, const std::string& path,
                                    const admin::Pages& pages, const admin::Verbs& verbs) {
  auto socket = admin::ControlSocket::Start(path, pages, verbs);
  if (!socket.ok()) {
    return base::WithFlag(flag, socket.status());
  }
  sockets_.push_back(*std::move(socket));
  return absl::OkStatus();
}

uint16_t AdminPorts::admin_port() const {
  return admin_ == nullptr ? uint16_t{0} : admin_->port();
}

}  // namespace postern::process
