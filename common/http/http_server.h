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
// As it goes over the wire, with `Connection: close`. `head_only`: without the body (to a HEAD).
std::string Serialize(const Reply& reply, bool head_only = false);

// The reply to GET `path`; nullopt: no such page. Called from a few threads of the server's.
using ReadPage = std::function<std::optional<Reply>(std::string_view path)>;

enum class HostCheck : uint8_t {
  kNone,         // any Host header
  kThisMachine,  // it must name loopback or the listening address (against DNS rebinding)
};

inline constexpr size_t kMaxConnections = 64;

// A reading HTTP port with a few threads of its own, so that administration never disturbs the
// work. GET and HEAD alone, one request for each connection, without a body, with at most
// kMaxRequestHead of head. Anybody may reach it, so that everything is bounded: a request comes
// within five seconds, a reply is taken within ten, and when kMaxConnections are open, or there is
// no descriptor left, the one that has been at its step for the longest, 100 ms at least, makes
// room for a new one. Owned by main.
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
