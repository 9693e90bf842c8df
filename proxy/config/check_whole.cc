// SPDX-License-Identifier: Apache-2.0
// What must hold over several knobs, checked before any listener opens.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ip.h"
#include "common/base/strings.h"
#include "proxy/config/knobs.h"

namespace postern::config {
namespace {

absl::Status Invalid(std::string_view message) {
  return absl::InvalidArgumentError(base::ToAbsl(message));
}

bool HasIdentityFiles(const ProxyConfig& config) {
  return !config.svid_file.empty() || !config.svid_key_file.empty() || !config.bundle_file.empty();
}

// Whether anything of the traffic may be TLS.
bool NeedsIdentity(const ProxyConfig& config) {
  return !config.tunnels.empty() || !config.destinations_file.empty() ||
         config.peer_mode != PeerMode::kDisabled ||
         std::ranges::any_of(config.port_modes,
                             [](const auto& it) { return MayBeMeshTls(it.second); });
}

absl::Status CheckIdentityFiles(const ProxyConfig& config) {
  if (!HasIdentityFiles(config)) {
    return absl::OkStatus();
  }
  const std::string_view missing = config.svid_file.empty()       ? "--svid"
                                   : config.svid_key_file.empty() ? "--svid-key"
                                   : config.bundle_file.empty()   ? "--bundle"
                                                                  : "";
  if (!missing.empty()) {
    return Invalid(base::StrCat(
        missing, ": missing; identity from files takes --svid, --svid-key and --bundle together"));
  }
  if (!config.issuer.empty()) {
    return Invalid(
        "--issuer and --svid: identity comes from the issuer or from files, not both; leave one "
        "out");
  }
  return absl::OkStatus();
}

absl::Status CheckIssuer(const ProxyConfig& config) {
  if (config.issuer.empty()) {
    const std::string_view useless = !config.issuer_bundle_file.empty() ? "--issuer-bundle"
                                     : !config.issuer_pin.empty()       ? "--issuer-pin"
                                     : !config.join_token_file.empty()  ? "--join-token-file"
                                     : !config.member_key_file.empty()  ? "--member-key"
                                     : !config.trust_domain.empty()     ? "--trust-domain"
                                     : config.max_stale.count() > 0     ? "--max-stale"
                                                                        : "";
    return useless.empty() ? absl::OkStatus()
                           : Invalid(base::StrCat(useless, ": needs --issuer HOST:PORT as well"));
  }
  if (!config.issuer_bundle_file.empty() && !config.issuer_pin.empty()) {
    return Invalid("--issuer-bundle and --issuer-pin: both say how to trust the issuer; give one");
  }
  const bool trusted = !config.issuer_bundle_file.empty() || !config.issuer_pin.empty();
  if (!trusted && config.state_dir.empty()) {
    return Invalid(
        "--issuer: nothing says how to trust it; give --issuer-bundle FILE, --issuer-pin "
        "sha256:HEX or the --state-dir of an earlier run");
  }
  if (!config.issuer_pin.empty() && config.trust_domain.empty() && config.state_dir.empty()) {
    return Invalid("--issuer-pin: does not tell the trust domain; give --trust-domain TD");
  }
  const auto address = AddressSpec::Parse(config.issuer);
  if (address.ok() && !address->is_unix() && address->port == 0) {
    return Invalid("--issuer: port 0 cannot be dialled; write its port, usually 15012");
  }
  if (address.ok() && !address->is_unix() && config.join_token_file.empty() &&
      config.member_key_file.empty() && config.state_dir.empty()) {
    return Invalid(
        "--issuer: nothing proves to it who this workload is; give --join-token-file FILE, "
        "--member-key FILE, or the --state-dir of an earlier run");
  }
  if (address.ok() && address->is_unix() && !config.member_key_file.empty()) {
    return Invalid(
        "--member-key: over a unix socket the socket itself is the evidence; leave it out, or give "
        "--issuer HOST:PORT");
  }
  return absl::OkStatus();
}

absl::Status CheckTraffic(const ProxyConfig& config) {
  if (config.tunnels.empty() && config.outbound_proxies.empty() &&
      config.intercept == InterceptMode::kNone && config.handover_fd < 0) {
    return Invalid(
        "there is nothing to do; give --tunnel inbound,... or --tunnel outbound,... or "
        "--outbound-proxy ADDR or --intercept redirect");
  }
  if (!config.proxy_protocol_ports.empty() && config.intercept == InterceptMode::kNone &&
      config.handover_fd < 0) {
    return Invalid(
        "--proxy-protocol: is about intercepted ports; give --intercept as well, or write "
        "proxy-protocol=v2 into the --tunnel");
  }
  if (NeedsIdentity(config) && !HasIdentityFiles(config) && config.issuer.empty()) {
    return Invalid(
        "no identity; give --issuer HOST:PORT, or --svid FILE, --svid-key FILE and --bundle FILE");
  }
  if (config.peer_mode == PeerMode::kStrict && config.peer_mode_explicit) {
    for (const TunnelSpec& tunnel : config.tunnels) {
      if (!tunnel.client_auth) {
        return Invalid(base::StrCat("--tunnel: ", tunnel.name,
                                    " has client-auth=none, which --peer-mode strict forbids; "
                                    "leave one of them out"));
      }
    }
  }
  if (config.low_watermark >= config.high_watermark) {
    return Invalid(base::StrCat("--low-watermark: ", config.low_watermark,
                                " is not below --high-watermark ", config.high_watermark));
  }
  return absl::OkStatus();
}

// A place that the proxy listens at, and the flag that says so.
struct Listening {
  std::string who;
  AddressSpec address;
};

bool Unspecified(const AddressSpec& address) {
  const auto ip = base::IpAddress::Parse(address.host);
  return ip.ok() && ip->IsUnspecified();
}

bool SameFamily(const AddressSpec& a, const AddressSpec& b) {
  const auto is_v6 = [](const AddressSpec& it) { return it.host.find(':') != std::string::npos; };
  return is_v6(a) == is_v6(b);
}

bool Collide(const AddressSpec& a, const AddressSpec& b) {
  if (a.is_unix() || b.is_unix()) {
    return a.is_unix() && b.is_unix() && a.unix_path == b.unix_path;
  }
  if (a.port != b.port || a.port == 0) {
    return false;
  }
  return a.host == b.host || (SameFamily(a, b) && (Unspecified(a) || Unspecified(b)));
}

std::vector<Listening> ListeningPlaces(const ProxyConfig& config) {
  std::vector<Listening> places;
  for (const TunnelSpec& tunnel : config.tunnels) {
    places.push_back({base::StrCat("--tunnel ", tunnel.name), tunnel.listen});
  }
  for (size_t i = 0; i < config.outbound_proxies.size(); ++i) {
    places.push_back({base::StrCat("--outbound-proxy (", i + 1, ")"), config.outbound_proxies[i]});
  }
  const auto add_text = [&places](std::string_view who, const std::string& text) {
    if (const auto address = AddressSpec::Parse(text); address.ok()) {
      places.push_back({std::string(who), *address});
    }
  };
  const auto add_port = [&places](std::string_view who, std::string_view host, uint16_t port) {
    AddressSpec address;
    address.host = std::string(host);
    address.port = port;
    places.push_back({std::string(who), address});
  };
  add_text("--admin", config.admin);
  add_text("--metrics", config.metrics);
  if (!config.admin_socket.empty()) {
    AddressSpec address;
    address.unix_path = config.admin_socket;
    places.push_back({"--admin-socket", address});
  }
  if (config.intercept != InterceptMode::kNone) {
    add_port("--inbound-port", "0.0.0.0", config.inbound_port);
    add_port("--inbound-port", "::", config.inbound_port);
    add_port("--outbound-port", "127.0.0.1", config.outbound_port);
    add_port("--outbound-port", "::1", config.outbound_port);
  }
  return places;
}

absl::Status CheckListeners(const ProxyConfig& config) {
  const auto admin = AddressSpec::Parse(config.admin);
  if (admin.ok() && !admin->is_unix() && admin->host != "localhost") {
    const auto ip = base::IpAddress::Parse(admin->host);
    if (!ip.ok() || !ip->IsLoopback()) {
      return Invalid(base::StrCat("--admin: ", config.admin,
                                  " can be reached from elsewhere; write a loopback address such "
                                  "as 127.0.0.1:15000, or unix:/path"));
    }
  }
  const std::vector<Listening> places = ListeningPlaces(config);
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (places[i].who != places[j].who && Collide(places[i].address, places[j].address)) {
        return Invalid(base::StrCat(places[j].who, " and ", places[i].who, " both listen at ",
                                    places[i].address.ToString(), "; give one another address"));
      }
    }
  }
  for (size_t i = 0; i < config.tunnels.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (Collide(config.tunnels[i].listen, config.tunnels[j].listen)) {
        return Invalid(base::StrCat("--tunnel: two listen at ", config.tunnels[i].listen.ToString(),
                                    "; give one another address"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckWhole(const ProxyConfig& config) {
  for (const auto check : {CheckIdentityFiles, CheckIssuer, CheckTraffic, CheckListeners}) {
    if (absl::Status status = check(config); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace postern::config
