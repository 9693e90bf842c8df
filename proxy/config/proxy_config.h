// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/failure.h"
#include "common/base/log.h"
#include "common/x509/peer_pins.h"
#include "common/x509/spiffe_id.h"
#include "proxy/config/plaintext_bans.h"

namespace postern::config {

enum class PeerMode : uint8_t {
  kStrict,      // mesh mTLS only
  kPermissive,  // mesh mTLS, the application's own TLS, and plaintext
  kDisabled,    // no mTLS: bytes pass as they are
  kOpaque,      // never looked into: bytes pass as they are, without the workload's mesh having
                // been switched off; policy sees an unauthenticated client
  kSkip,        // as if interception had left the port out: not even policy is asked
};
// What is declared of one port and is no mode for all of them.
constexpr bool IsOnlyForOnePort(PeerMode mode) {
  return mode == PeerMode::kOpaque || mode == PeerMode::kSkip;
}
// Whether clients of such a port may be members of the mesh that prove who they are.
constexpr bool MayBeMeshTls(PeerMode mode) {
  return mode == PeerMode::kStrict || mode == PeerMode::kPermissive;
}
enum class InterceptMode : uint8_t { kNone, kRedirect, kTproxy };
enum class OutboundDefault : uint8_t { kPassthrough, kDeny };
// What becomes of the application's own TLS to a destination of the mesh.
enum class ApplicationTls : uint8_t {
  kWrap,  // carried inside mTLS, as everything else
  kPass,  // passed on untouched
};
// What becomes of a connection whose peer's certificate has expired.
enum class OnPeerExpiry : uint8_t {
  kAuto,   // it goes on while the issuer is heard
  kAllow,  // it goes on
  kClose,
};

// The words of the flags and documents.
std::string_view Token(PeerMode mode) noexcept;
std::string_view Token(InterceptMode mode) noexcept;
std::string_view Token(OutboundDefault value) noexcept;
std::string_view Token(OnPeerExpiry value) noexcept;
std::string_view Token(ApplicationTls value) noexcept;
// InvalidArgument names the words that exist.
absl::StatusOr<PeerMode> ParsePeerMode(std::string_view text);
absl::StatusOr<InterceptMode> ParseInterceptMode(std::string_view text);
absl::StatusOr<OutboundDefault> ParseOutboundDefault(std::string_view text);
absl::StatusOr<OnPeerExpiry> ParseOnPeerExpiry(std::string_view text);
absl::StatusOr<ApplicationTls> ParseApplicationTls(std::string_view text);

// "IP:port", "[v6]:port", "name:port" or "unix:/path", not resolved yet. A value.
struct AddressSpec {
  std::string host;  // IP without brackets, or a name; empty for unix
  uint16_t port = 0;
  std::string unix_path;

  static absl::StatusOr<AddressSpec> Parse(std::string_view text);
  bool is_unix() const { return !unix_path.empty(); }
  std::string ToString() const;
};

// One --tunnel.
struct TunnelSpec {
  base::Direction direction = base::Direction::kInbound;
  AddressSpec listen;
  AddressSpec target;
  std::vector<x509::SpiffeIdPattern> peers;
  std::shared_ptr<const x509::PeerPins> pins;  // outbound: beyond the bundle; null: none
  bool client_auth = true;      // false: client-auth=none, the TLS-only mode of an inbound tunnel
  bool proxy_protocol = false;  // inbound: the target is told of the client, PROXY version 2
  std::string name;             // "inbound:127.0.0.1:8443": for logs, metrics and policy

  static absl::StatusOr<TunnelSpec> Parse(std::string_view text);
};

// Everything that postern-proxy can be told, checked as a whole: made by Parse before any listener
// opens, immutable afterwards. Each field is one row of the knob table (knobs.cc), which also makes
// docs/CONFIG.md. Durations in the unit of their type.
struct ProxyConfig {
  // Identity from files.
  std::string svid_file, svid_key_file, bundle_file;
  // Identity from the issuer.
  std::string issuer;  // HOST:PORT or unix:PATH
  std::string issuer_bundle_file;
  std::string issuer_pin;    // SHA-256 of the root's DER, 32 raw bytes; empty without one
  std::string trust_domain;  // of the issuer; needed with --issuer-pin or --issuer-bundle unless
                             // the bundle or the state directory tells it
  std::string join_token_file;
  std::string member_key_file;  // private key of an enrolled member
  std::string state_dir;
  std::chrono::milliseconds max_stale{0};  // of what the issuer confirmed; 0: off

  std::vector<TunnelSpec> tunnels;
  std::vector<AddressSpec> outbound_proxies;  // loopback or unix: SOCKS5 and HTTP CONNECT
  std::vector<AddressSpec> name_servers;      // IP and port; empty: those of the system
  InterceptMode intercept = InterceptMode::kNone;
  uint16_t inbound_port = 15006;
  uint16_t outbound_port = 15001;
  int handover_fd = -1;                             // the channel to `postern run`; -1: none
  std::chrono::milliseconds intercept_probe{5000};  // between looks at the rules; 0: off
  uint32_t mark = 0;  // SO_MARK on every connection the proxy opens; 0 none
  PeerMode peer_mode = PeerMode::kStrict;
  bool peer_mode_explicit = false;
  std::map<uint16_t, PeerMode> port_modes;  // --port-mode PORT=MODE, repeatable
  std::set<uint16_t> proxy_protocol_ports;  // intercepted inbound ones; --proxy-protocol PORT
  OutboundDefault outbound_default = OutboundDefault::kPassthrough;
  PlaintextBans require_mtls;
  std::map<uint16_t, ApplicationTls> application_tls;  // by destination port; others are wrapped
  std::string policy_file;
  std::vector<std::string> crl_paths;  // files and directories
  std::string destinations_file;

  bool resumption = true;  // TLS sessions, in both directions
  OnPeerExpiry on_peer_expiry = OnPeerExpiry::kAuto;
  std::string admin = "127.0.0.1:15000";
  std::string admin_socket;  // unix socket for the changing verbs; empty: none
  std::string metrics = "0.0.0.0:15020";
  unsigned workers = 1;
  uint32_t max_connections = 0;  // 0: derived from the file descriptor limit
  uint32_t max_handshakes = 0;   // inbound, under way; 0: by the workers
  // Of one IPv4 address or IPv6 /64, inbound; 0: no limit but the share of what is left.
  uint32_t max_handshakes_per_source = 0;
  uint32_t max_connections_per_source = 0;
  uint32_t max_rate_per_source = 0;             // new connections in a second
  uint32_t max_connections_per_peer = 0;        // of one SPIFFE ID, inbound; 0: no limit
  std::chrono::milliseconds sniff_timeout{50};  // permissive: how long to wait for first bytes
  std::chrono::milliseconds handshake_timeout{5000};
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds lookup_timeout{5000};
  std::chrono::milliseconds idle_timeout{0};  // 0: never
  std::chrono::milliseconds drain_delay{5000};
  std::chrono::milliseconds drain_timeout{30000};
  uint32_t high_watermark = 256U << 10U;
  uint32_t low_watermark = 64U << 10U;
  std::string access_log = "-";  // file, "-" standard output, "" off
  std::string log_level = "info";
  base::LogFormat log_format = base::LogFormat::kText;

  // Knob name -> where its value came from ("flag", "environment POSTERN_X", "file PATH:LINE");
  // knobs at their default are not in it.
  std::map<std::string, std::string> origins;
};

// What Parse says when nothing is to be run: --help, --version, a documentation dump. Print `text`
// and exit with `exit_code` (2 for usage errors, whose text names flag and mend).
struct ParseExit {
  int exit_code = 0;
  std::string text;
};

// Reads flags, then environment (POSTERN_NAME, repeatable flags separated by newlines), then the
// TOML file of --config, in this precedence, and checks the whole (contradictions, missing
// partners, file syntax of the values). Sets exactly one of the two. Pure but for reading the
// --config file.
struct ParseOutcome {
  std::optional<ProxyConfig> config;
  std::optional<ParseExit> exit;
};
ParseOutcome ParseProxyConfig(int argc, const char* const* argv);

// docs/CONFIG.md, made from the knob table.
std::string ConfigReference();

// The effective configuration as JSON for /config: each knob with its value and where it came from;
// paths are shown, contents never.
std::string ConfigAsJson(const ProxyConfig& config);

}  // namespace postern::config
