// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proxy/admin/pages.h"

namespace postern::admin {

// Which pages a port shows, and to whom.
enum class Audience : uint8_t {
  kOperators,  // every reading page; the Host header must name this machine (DNS rebinding)
  kScrapers,   // /live /ready /metrics
};

// A reading HTTP port with a few threads of its own, so that administration never disturbs the data
// plane. GET alone; bodies are refused; slow clients are cut after five seconds. Owned by main.
class HttpServer {
 public:
  // `host` is an IP without brackets; the IPv4 wildcard listens on both families where the machine
  // has IPv6. Port 0 picks one. Unavailable names the address. `pages` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, uint16_t port,
                                                           Audience audience, const Pages& pages);
  ~HttpServer();  // stops and joins
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::admin
