// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "proxy/config/proxy_config.h"
#include "proxy/net/loop.h"
#include "proxy/net/name_cache.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/timer.h"
#include "proxy/session/endpoint_health.h"

namespace postern::session {

// Where a connection is to go: an address, or a name whose addresses are all as good. A value.
struct Place {
  net::SocketAddress address;  // with `name`: its port alone counts
  std::string name;
};

// A tunnel's target that is a host name.
inline std::vector<Place> TargetOf(const config::TunnelSpec& tunnel) {
  return {Place{net::SocketAddress(base::IpAddress(), tunnel.target.port), tunnel.target.host}};
}

// Finds the addresses of several places. Once one place has some, the others are waited for only so
// long. Destroying it cancels; `done` comes once, never from inside the constructor, maybe from
// inside Start, and may destroy the finder. Addresses are never empty; errors are the NameCache's,
// of the last name where no place has any. Worker's thread.
class PlaceFinder {
 public:
  using Done = std::function<void(absl::StatusOr<std::vector<Candidate>>)>;

  static constexpr std::chrono::milliseconds kPatience{500};

  PlaceFinder(net::Loop& loop, net::NameCache& names, std::vector<Place> places, Done done);
  void Start();

 private:
  void OnName(size_t place, const absl::StatusOr<net::NameCache::Addresses>& addresses);
  void OnProgress();
  void Finish();

  net::Loop& loop_;
  net::NameCache& names_;
  const std::vector<Place> places_;
  Done done_;
  std::vector<std::vector<Candidate>> found_;  // by place
  std::vector<std::unique_ptr<net::NameCache::Query>> queries_;
  size_t open_ = 0;  // not answered yet, and 1 while Start runs
  absl::Status fault_;
  std::optional<net::Timer> patience_;
};

}  // namespace postern::session
