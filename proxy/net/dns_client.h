// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ip.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"

namespace postern::net {

// What a name service said of one host name.
struct DnsAnswer {
  // OK; NotFound: there is no such name, or it has no address; Unavailable: nobody could say.
  absl::Status status;
  std::vector<base::IpAddress> addresses;  // IPv4 and IPv6, in the order that RFC 6724 prefers
  std::chrono::seconds ttl{0};             // of the shortest-lived record on the way to them
};

// Asks for the addresses of host names on a loop, with c-ares: /etc/hosts, then the name servers
// and search domains of /etc/resolv.conf, as /etc/nsswitch.conf orders the two; the files are read
// again when they have changed. Remembers no answer. Loop thread only; destroying it cancels all
// questions: their callbacks do not come.
class DnsClient {
 public:
  struct Options {
    std::vector<SocketAddress> servers;       // instead of those of /etc/resolv.conf; empty: those
    std::vector<std::string> search;          // likewise
    uint32_t mark = 0;                        // SO_MARK, as on connections; 0 none
    std::chrono::milliseconds timeout{1000};  // for the first answer; each try waits longer
    int tries = 3;
    std::string resolv_conf = "/etc/resolv.conf";  // whose changes are looked for
  };
  using Done = std::function<void(DnsAnswer)>;

  DnsClient(Loop& loop, Options options);
  ~DnsClient();
  DnsClient(const DnsClient&) = delete;
  DnsClient& operator=(const DnsClient&) = delete;

  // Calls `done` once, maybe inside this call (a name of /etc/hosts). It may ask for other names,
  // and must not destroy the client.
  void Ask(const std::string& name, Done done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::net
