// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postern::http {

struct Reply {
  int status = 200;
  std::string content_type;
  std::string body;
};

inline constexpr std::string_view kJson = "application/json";
inline constexpr std::string_view kText = "text/plain; charset=utf-8";
inline constexpr std::string_view kPrometheus = "text/plain; version=0.0.4; charset=utf-8";

// A 200 of that type.
Reply Ok(std::string_view content_type, std::string body);
// A JSON reply {"error": text}; `text` is made printable.
Reply ErrorReply(int status, std::string_view text);

// The reply to GET `path`; nullopt: no such page. Called from a server thread.
using ReadPage = std::function<std::optional<Reply>(std::string_view path)>;

enum class HostCheck : uint8_t {
  kNone,         // any Host header
  kThisMachine,  // it must name loopback or the listening address (against DNS rebinding)
};

// A reading HTTP port with a few threads of its own, so that administration never disturbs the
// work. GET alone; bodies are refused; slow clients are cut after five seconds. Owned by main.
class HttpServer {
 public:
  // `host` is an IP without brackets; the IPv4 wildcard listens on both families where the machine
  // has IPv6. Port 0 picks one. Unavailable names the address.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, uint16_t port,
                                                           HostCheck check, ReadPage read_page);
  ~HttpServer();  // stops and joins
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::http
