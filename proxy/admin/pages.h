// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/http/http_server.h"

namespace postern::admin {

// What the administration ports answer. Filled in by main; each function is called from an
// administration thread, so it answers from snapshots or posts to a loop and waits for it, bounded.
struct Pages {
  std::function<std::string()> status;       // JSON
  std::function<std::string()> config;       // JSON
  std::function<std::string()> certs;        // JSON, public parts alone
  std::function<std::string()> connections;  // JSON
  std::function<std::string()> failures;     // JSON
  std::function<std::string()> seen;         // JSON: destinations that were ever of the mesh
  std::function<std::string()> metrics;      // Prometheus text format 0.0.4
  // What is missing for readiness, a sentence each; empty: ready.
  std::function<std::vector<std::string>()> missing;
  // What a ready proxy should be looked after for, a sentence each.
  std::function<std::vector<std::string>()> hints;
};

// What changes something; reachable over the unix socket alone.
struct Verbs {
  std::function<void()> drain;
  std::function<void()> shutdown;
  std::function<absl::Status(std::string_view level)> set_log_level;
  // Asks for a new certificate; /status says what came of it. An error: there is nobody to ask.
  std::function<absl::Status()> renew;
  // Lets a destination, or "all", leave the mesh: it may be reached in plaintext again.
  std::function<absl::Status(std::string_view destination)> forget_seen;
};

// The reply to a reading request of the administration port; nullopt for an unknown path.
std::optional<http::Reply> ReadPage(const Pages& pages, std::string_view path);

// The reply to /live, /ready or /metrics; nullopt for another path.
std::optional<http::Reply> ReadHealthPage(const Pages& pages, std::string_view path);

}  // namespace postern::admin
