// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/existing.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace postern::intercept {
namespace {

constexpr std::string_view kEstablished = "01";

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  size_t at = 0;
  while ((at = line.find_first_not_of(' ', at)) != std::string_view::npos) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

// The addresses are hexadecimal 32-bit words as this machine stores them: on a little-endian
// machine the first octet of an IPv4 address is the last pair of digits.
bool IsLoopback(std::string_view address) {
  constexpr std::string_view kV6 = "00000000000000000000000001000000";
  constexpr std::string_view kMapped = "0000000000000000FFFF0000";
  if (address == kV6) {
    return true;
  }
  if (address.starts_with(kMapped)) {
    address.remove_prefix(kMapped.size());
  }
  return address.size() == 8 && address.substr(6) == "7F";
}

bool IsTheProxys(std::string_view uid_text, const InterceptConfig& config) {
  uid_t uid = 0;
  std::from_chars(uid_text.data(), uid_text.data() + uid_text.size(), uid);
  return std::find(config.proxy_uids.begin(), config.proxy_uids.end(), uid) !=
         config.proxy_uids.end();
}

std::string Content(const char* path) {
  const std::ifstream file(path);
  std::ostringstream text;
  if (file) {
    text << file.rdbuf();
  }
  return text.str();
}

template <typename Value>
bool Has(const std::vector<Value>& values, const Value& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}
bool HasPort(const std::vector<PortRange>& ranges, uint16_t port) {
  return std::any_of(ranges.begin(), ranges.end(), [port](const PortRange& range) {
    return range.first <= port && port <= range.last;
  });
}
bool HasAddress(const std::vector<base::Cidr>& ranges, const base::IpAddress& ip) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&ip](const base::Cidr& range) { return range.Contains(ip); });
}

using Address = std::pair<base::IpAddress, uint16_t>;

Address LocalOf(const TcpSocket& socket) {
  return {socket.local_ip, socket.local_port};
}
Address PeerOf(const TcpSocket& socket) {
  return {socket.peer_ip, socket.peer_port};
}

// The rules of rules.cc, asked about a connection that stands.
class Judge {
 public:
  Judge(const std::vector<TcpSocket>& sockets, const InterceptConfig& config) : config_(config) {
    for (const TcpSocket& socket : sockets) {
      if (socket.listening) {
        listening_.insert(socket.local_port);
        continue;
      }
      local_.insert(LocalOf(socket));
      if (socket.local_port == config.outbound_port || socket.local_port == config.inbound_port) {
        taken_.insert(PeerOf(socket));
      }
    }
  }

  bool OpenedPastTheRules(const TcpSocket& socket) const {
    if (socket.listening || socket.peer_ip.IsLoopback() || IsTheProxysOwn(socket) ||
        Has(config_.exclude_interfaces, socket.interface)) {
      return false;
    }
    // Both ends are here: the application calls itself, or its proxy calls it.
    if (local_.contains(PeerOf(socket)) || taken_.contains(LocalOf(socket))) {
      return false;
    }
    return listening_.contains(socket.local_port) ? IsInbound(socket) : IsOutbound(socket);
  }

 private:
  bool IsTheProxysOwn(const TcpSocket& socket) const {
    return Has(config_.proxy_uids, socket.uid) ||
           (config_.proxy_mark != 0 && socket.mark == config_.proxy_mark);
  }
  bool IsInbound(const TcpSocket& socket) const {
    return config_.inbound && !Has(PortsNeverTaken(config_), socket.local_port) &&
           !HasPort(config_.exclude_inbound_ports, socket.local_port) &&
           !HasAddress(config_.exclude_inbound_cidrs, socket.peer_ip) &&
           (config_.inbound_ports.empty() || HasPort(config_.inbound_ports, socket.local_port));
  }
  bool IsOutbound(const TcpSocket& socket) const {
    return config_.outbound && !Has(PortsNeverTaken(config_), socket.peer_port) &&
           !HasPort(config_.exclude_outbound_ports, socket.peer_port) &&
           !Has(config_.exclude_uids, socket.uid) &&
           (config_.app_uids.empty() || Has(config_.app_uids, socket.uid)) &&
           !HasAddress(config_.exclude_outbound_cidrs, socket.peer_ip) &&
           (config_.outbound_ports.empty() || HasPort(config_.outbound_ports, socket.peer_port)) &&
           (config_.outbound_cidrs.empty() || HasAddress(config_.outbound_cidrs, socket.peer_ip));
  }

  const InterceptConfig& config_;
  std::set<uint16_t> listening_;
  std::set<Address> local_;
  std::set<Address> taken_;  // whose connections the proxy has
};

}  // namespace

size_t CountInTable(std::string_view table, const InterceptConfig& config) {
  size_t count = 0;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    const std::vector<std::string_view> words = Words(table.substr(0, end));
    table.remove_prefix(std::min(end + 1, table.size()));
    // sl local_address rem_address st tx:rx tr:tm->when retrnsmt uid ...
    if (words.size() < 8 || words[3] != kEstablished) {
      continue;
    }
    const std::string_view peer = words[2].substr(0, words[2].find(':'));
    if (!IsLoopback(peer) && !IsTheProxys(words[7], config)) {
      ++count;
    }
  }
  return count;
}

size_t CountExistingConnections(const InterceptConfig& config) {
  return CountInTable(Content("/proc/net/tcp"), config) +
         CountInTable(Content("/proc/net/tcp6"), config);
}

std::vector<TcpSocket> OpenedPastTheRules(const std::vector<TcpSocket>& sockets,
                                          const InterceptConfig& config) {
  const Judge judge(sockets, config);
  std::vector<TcpSocket> found;
  std::copy_if(sockets.begin(), sockets.end(), std::back_inserter(found),
               [&judge](const TcpSocket& socket) { return judge.OpenedPastTheRules(socket); });
  return found;
}

absl::Status CheckKillExisting(const InterceptConfig& config) {
  if (config.proxy_gids.empty() && config.app_gids.empty() && config.exclude_gids.empty() &&
      config.app_cgroups.empty() && config.exclude_cgroups.empty()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "--kill-existing: a connection does not tell the group or control group that opened it, so "
      "--proxy-gid, --app-gid, --exclude-gid, --app-cgroup and --exclude-cgroup cannot be "
      "respected; give users (--proxy-uid, --app-uid, --exclude-uid) instead");
}

absl::StatusOr<size_t> KillExistingConnections(const InterceptConfig& config) {
  const absl::StatusOr<std::vector<TcpSocket>> sockets = ReadTcpSockets();
  if (!sockets.ok()) {
    return sockets.status();
  }
  const std::vector<TcpSocket> found = OpenedPastTheRules(*sockets, config);
  for (const TcpSocket& socket : found) {
    if (absl::Status status = DestroySocket(socket); !status.ok()) {
      return status;
    }
  }
  return found.size();
}

}  // namespace postern::intercept
