// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/knobs.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/ip.h"
#include "common/base/strings.h"

namespace postern::config {
namespace {

using std::chrono::milliseconds;
using Values = std::vector<std::string>;

absl::Status Invalid(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat("'", base::Printable(text, 128), "' ", what));
}

template <auto Member>
Values ShowText(const ProxyConfig& config) {
  return (config.*Member).empty() ? Values() : Values{config.*Member};
}

template <auto Member>
absl::Status SetPath(ProxyConfig& config, std::string_view text) {
  if (text.empty() || text.find('\0') != std::string_view::npos) {
    return Invalid(text, "is no path");
  }
  config.*Member = std::string(text);
  return absl::OkStatus();
}

// "" and "off" mean none.
template <auto Member>
absl::Status SetPathOrOff(ProxyConfig& config, std::string_view text) {
  if (text.empty() || text == "off") {
    (config.*Member).clear();
    return absl::OkStatus();
  }
  return SetPath<Member>(config, text);
}

template <auto Member>
Values ShowTextOrOff(const ProxyConfig& config) {
  return {(config.*Member).empty() ? "off" : config.*Member};
}

template <auto Member>
absl::Status SetAddress(ProxyConfig& config, std::string_view text) {
  const auto address = AddressSpec::Parse(text);
  if (address.ok()) {
    config.*Member = address->ToString();
  }
  return address.status();
}

template <auto Member, uint64_t kMin, uint64_t kMax>
absl::Status SetNumber(ProxyConfig& config, std::string_view text) {
  const bool hex = text.starts_with("0x");
  const auto number = base::ParseNumber<uint64_t>(text.substr(hex ? 2 : 0), hex ? 16 : 10);
  if (!number.has_value() || number.value() < kMin || number.value() > kMax) {
    return Invalid(text, base::StrCat("is no number from ", kMin, " to ", kMax));
  }
  using Number = std::remove_reference_t<decltype(config.*Member)>;
  config.*Member = static_cast<Number>(number.value());
  return absl::OkStatus();
}

template <auto Member>
Values ShowNumber(const ProxyConfig& config) {
  return {std::to_string(config.*Member)};
}

std::string DurationText(milliseconds duration) {
  return absl::FormatDuration(absl::FromChrono(duration));
}

template <auto Member, int64_t kMinMs, int64_t kMaxMs, bool kZeroToo = false>
absl::Status SetDuration(ProxyConfig& config, std::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(base::ToAbsl(text), &duration)) {
    return Invalid(text, "is no duration; write a number with its unit, as in 500ms, 5s, 2m, 1h");
  }
  const bool in_range =
      duration >= absl::Milliseconds(kMinMs) && duration <= absl::Milliseconds(kMaxMs);
  if (!in_range && !(kZeroToo && duration == absl::ZeroDuration())) {
    return Invalid(text,
                   base::StrCat("is not in ", DurationText(milliseconds(kMinMs)), " to ",
                                DurationText(milliseconds(kMaxMs)), kZeroToo ? ", nor 0" : ""));
  }
  config.*Member = absl::ToChronoMilliseconds(duration);
  return absl::OkStatus();
}

template <auto Member>
Values ShowDuration(const ProxyConfig& config) {
  return {DurationText(config.*Member)};
}

template <auto Member, auto Parse>
absl::Status SetWord(ProxyConfig& config, std::string_view text) {
  const auto value = Parse(text);
  if (value.ok()) {
    config.*Member = *value;
  }
  return value.status();
}

template <auto Member>
Values ShowWord(const ProxyConfig& config) {
  return {std::string(Token(config.*Member))};
}

absl::Status SetPin(ProxyConfig& config, std::string_view text) {
  constexpr std::string_view kPrefix = "sha256:";
  constexpr size_t kDigits = 64;
  if (text.starts_with(kPrefix) && text.size() == kPrefix.size() + kDigits) {
    if (auto raw = base::FromHex(text.substr(kPrefix.size())); raw.ok()) {
      config.issuer_pin = *std::move(raw);
      return absl::OkStatus();
    }
  }
  return Invalid(text,
                 "is no pin; write sha256: and the 64 hexadecimal digits over the root's DER");
}

Values ShowPin(const ProxyConfig& config) {
  if (config.issuer_pin.empty()) {
    return {};
  }
  return {base::StrCat("sha256:", base::ToHex(base::AsBytes(config.issuer_pin)))};
}

absl::Status SetTrustDomain(ProxyConfig& config, std::string_view text) {
  const auto domain = x509::TrustDomain::Parse(text);
  if (domain.ok()) {
    config.trust_domain = domain->name();
  }
  return domain.status();
}

absl::Status AddTunnel(ProxyConfig& config, std::string_view text) {
  auto tunnel = TunnelSpec::Parse(text);
  if (!tunnel.ok()) {
    return tunnel.status();
  }
  // Two on port 0 get a name each, too.
  const std::string stem = tunnel->name;
  const auto taken = [&config](const std::string& name) {
    for (const TunnelSpec& other : config.tunnels) {
      if (other.name == name) {
        return true;
      }
    }
    return false;
  };
  for (int i = 2; taken(tunnel->name); ++i) {
    tunnel->name = base::StrCat(stem, "#", i);
  }
  config.tunnels.push_back(*std::move(tunnel));
  return absl::OkStatus();
}

Values ShowTunnels(const ProxyConfig& config) {
  static const std::vector<base::Sha256Digest> kNoPins;
  Values values;
  for (const TunnelSpec& tunnel : config.tunnels) {
    std::string text = base::StrCat(Token(tunnel.direction), ",listen=", tunnel.listen.ToString(),
                                    ",target=", tunnel.target.ToString());
    for (const x509::SpiffeIdPattern& peer : tunnel.peers) {
      base::StrAppend(text, ",peer=", peer.ToString());
    }
    for (const auto& pin : tunnel.pins != nullptr ? tunnel.pins->ca_sha256 : kNoPins) {
      base::StrAppend(text, ",pin-ca=", x509::PinText(pin));
    }
    for (const auto& pin : tunnel.pins != nullptr ? tunnel.pins->key_sha256 : kNoPins) {
      base::StrAppend(text, ",pin-key=", x509::PinText(pin));
    }
    base::StrAppend(text, tunnel.client_auth ? "" : ",client-auth=none",
                    tunnel.proxy_protocol ? ",proxy-protocol=v2" : "");
    values.push_back(std::move(text));
  }
  return values;
}

Values ShowHandover(const ProxyConfig& config) {
  return config.handover_fd < 0 ? Values() : Values{std::to_string(config.handover_fd)};
}

// Whoever reaches such a port speaks with this workload's identity.
absl::Status AddOutboundProxy(ProxyConfig& config, std::string_view text) {
  const auto address = AddressSpec::Parse(text);
  if (!address.ok()) {
    return address.status();
  }
  const auto ip = base::IpAddress::Parse(address->host);
  if (!address->is_unix() && (!ip.ok() || !ip->IsLoopback())) {
    return Invalid(text,
                   "can be reached from elsewhere; write a loopback address such as "
                   "127.0.0.1:1080, or unix:/path");
  }
  config.outbound_proxies.push_back(*address);
  return absl::OkStatus();
}

absl::Status AddNameServer(ProxyConfig& config, std::string_view text) {
  constexpr uint16_t kDnsPort = 53;
  const auto parsed =
      base::HostPort::Parse(text, {.no_port = true, .bare_v6 = true, .what = "name server"});
  if (!parsed.ok()) {
    return parsed.status();
  }
  AddressSpec server;
  server.host = parsed->ip->ToString();
  server.port = parsed->port.value_or(kDnsPort);
  config.name_servers.push_back(std::move(server));
  return absl::OkStatus();
}

template <auto Member>
Values ShowAddresses(const ProxyConfig& config) {
  Values values;
  for (const AddressSpec& address : config.*Member) {
    values.push_back(address.ToString());
  }
  return values;
}

absl::Status SetPeerMode(ProxyConfig& config, std::string_view text) {
  if (const auto mode = ParsePeerMode(text); mode.ok() && IsOnlyForOnePort(*mode)) {
    return Invalid(text, "is said of single ports; give --port-mode PORT=MODE");
  }
  config.peer_mode_explicit = true;
  return SetWord<&ProxyConfig::peer_mode, ParsePeerMode>(config, text);
}

constexpr char kNoPortMode[] = "is no PORT=MODE; write for example 3306=permissive";
constexpr char kNoPortTls[] = "is no PORT=wrap or PORT=pass; write for example 5432=pass";

// "PORT=WORD" into a map by port.
template <auto Member, auto Parse, const char* Form>
absl::Status AddForPort(ProxyConfig& config, std::string_view text) {
  const size_t equals = text.find('=');
  const uint16_t port = base::ParseNumber<uint16_t>(text.substr(0, equals)).value_or(uint16_t{0});
  if (equals == std::string_view::npos || port == 0) {
    return Invalid(text, Form);
  }
  const auto word = Parse(text.substr(equals + 1));
  if (!word.ok()) {
    return word.status();
  }
  if (!(config.*Member).emplace(port, *word).second) {
    return Invalid(text, "names a port that has a mode already; give each port once");
  }
  return absl::OkStatus();
}

template <auto Member>
Values ShowForPorts(const ProxyConfig& config) {
  Values values;
  for (const auto& [port, word] : config.*Member) {
    values.push_back(base::StrCat(port, "=", Token(word)));
  }
  return values;
}

absl::Status AddProxyProtocolPort(ProxyConfig& config, std::string_view text) {
  const uint16_t port = base::ParseNumber<uint16_t>(text).value_or(uint16_t{0});
  if (port == 0) {
    return Invalid(text, "is no port from 1 to 65535");
  }
  config.proxy_protocol_ports.insert(port);
  return absl::OkStatus();
}

Values ShowProxyProtocolPorts(const ProxyConfig& config) {
  Values values;
  for (const uint16_t port : config.proxy_protocol_ports) {
    values.push_back(std::to_string(port));
  }
  return values;
}

absl::Status AddPlaintextBan(ProxyConfig& config, std::string_view text) {
  return config.require_mtls.Add(text);
}

Values ShowPlaintextBans(const ProxyConfig& config) {
  return config.require_mtls.Show();
}

absl::Status AddCrl(ProxyConfig& config, std::string_view text) {
  if (text.empty() || text.find('\0') != std::string_view::npos) {
    return Invalid(text, "is no path");
  }
  config.crl_paths.emplace_back(text);
  return absl::OkStatus();
}

Values ShowCrls(const ProxyConfig& config) {
  return config.crl_paths;
}

absl::Status SetResumption(ProxyConfig& config, std::string_view text) {
  if (text != "true" && text != "false") {
    return Invalid(text, "is not one of: true, false");
  }
  config.resumption = text == "true";
  return absl::OkStatus();
}

Values ShowResumption(const ProxyConfig& config) {
  return {config.resumption ? "true" : "false"};
}

absl::Status SetLogLevel(ProxyConfig& config, std::string_view text) {
  for (const std::string_view level : {"trace", "debug", "info", "warn", "error", "off"}) {
    if (text == level) {
      config.log_level = std::string(text);
      return absl::OkStatus();
    }
  }
  return Invalid(text, "is not one of: trace, debug, info, warn, error, off");
}

absl::Status SetLogFormat(ProxyConfig& config, std::string_view text) {
  if (text != "text" && text != "json") {
    return Invalid(text, "is not one of: text, json");
  }
  config.log_format = text == "json" ? base::LogFormat::kJson : base::LogFormat::kText;
  return absl::OkStatus();
}

Values ShowLogFormat(const ProxyConfig& config) {
  return {config.log_format == base::LogFormat::kJson ? "json" : "text"};
}

constexpr int64_t kSecond = 1000;
constexpr int64_t kMinute = 60 * kSecond;
constexpr int64_t kHour = 60 * kMinute;

using C = ProxyConfig;
constexpr std::string_view kFiles = "Identity from files";
constexpr std::string_view kIssuer = "Identity from the issuer";
constexpr std::string_view kTraffic = "What is carried";
constexpr std::string_view kLimits = "Limits and deadlines";
constexpr std::string_view kOperation = "Operation";

constexpr auto kKnobs = std::to_array<Knob>({
    {kFiles, "svid", "FILE",
     "Certificate of this workload with its intermediates, PEM; re-read when it changes.", false,
     SetPath<&C::svid_file>, ShowText<&C::svid_file>},
    {kFiles, "svid-key", "FILE", "Private key of the certificate, PEM; readable by this user only.",
     false, SetPath<&C::svid_key_file>, ShowText<&C::svid_key_file>},
    {kFiles, "bundle", "FILE",
     "Trusted roots: PEM for the own trust domain, or a SPIFFE bundle map (JSON) for several.",
     false, SetPath<&C::bundle_file>, ShowText<&C::bundle_file>},

    {kIssuer, "issuer", "HOST:PORT|unix:PATH", "Address of postern-identity.", false,
     SetAddress<&C::issuer>, ShowText<&C::issuer>},
    {kIssuer, "issuer-bundle", "FILE", "Roots to trust the issuer by at the first contact, PEM.",
     false, SetPath<&C::issuer_bundle_file>, ShowText<&C::issuer_bundle_file>},
    {kIssuer, "issuer-pin", "sha256:HEX",
     "SHA-256 of the issuer's root (over its DER), instead of --issuer-bundle.", false, SetPin,
     ShowPin},
    {kIssuer, "trust-domain", "TD",
     "Trust domain of the issuer, where neither bundle nor state directory tells it.", false,
     SetTrustDomain, ShowText<&C::trust_domain>},
    {kIssuer, "join-token-file", "FILE",
     "Single-use token for the first certificate; not needed once the state directory holds one.",
     false, SetPath<&C::join_token_file>, ShowText<&C::join_token_file>},
    {kIssuer, "member-key", "FILE",
     "Private key that an entry of the issuer names (PEM, Ed25519 or P-256; readable by this user "
     "only): attests instead of a token, as often as it is needed.",
     false, SetPath<&C::member_key_file>, ShowText<&C::member_key_file>},
    {kIssuer, "state-dir", "DIR",
     "Where certificate, key and bundles survive a restart; private to this user and to this "
     "proxy.",
     false, SetPath<&C::state_dir>, ShowText<&C::state_dir>},
    {kIssuer, "max-stale", "DURATION",
     "Refuses new connections once the issuer has not confirmed trust bundles, policy and "
     "revocations for so long; open ones go on. 0 never does.",
     false, SetDuration<&C::max_stale, 30 * kSecond, 720 * kHour, true>,
     ShowDuration<&C::max_stale>},

    {kTraffic, "tunnel",
     "inbound|outbound,listen=ADDR,target=ADDR,peer=SPIFFE-ID[,peer=...][,client-auth=none]"
     "[,proxy-protocol=v2][,pin-ca=sha256:HEX][,pin-key=sha256:HEX]",
     "Explicit tunnel. ADDR is IP:port, [v6]:port, name:port or unix:PATH; '*' as a peer's last "
     "path segment means all below. Inbound, proxy-protocol=v2 tells the target who the client is, "
     "as --proxy-protocol does. Outbound, beyond the bundle: the server must have one of the "
     "pinned keys (SHA-256 over its SubjectPublicKeyInfo), and one of the pinned CA certificates "
     "(SHA-256 over the DER) on its verified path; each may be given several times.",
     true, AddTunnel, ShowTunnels},
    {kTraffic, "outbound-proxy", "ADDR",
     "Listens for SOCKS5 and HTTP CONNECT requests of applications on this host, told apart by the "
     "first byte; they go the way of intercepted outbound connections. A loopback address or "
     "unix:PATH only.",
     true, AddOutboundProxy, ShowAddresses<&C::outbound_proxies>},
    {kTraffic, "intercept", "redirect|tproxy|none",
     "How traffic that the rules of `postern intercept` catch arrives.", false,
     SetWord<&C::intercept, ParseInterceptMode>, ShowWord<&C::intercept>},
    {kTraffic, "inbound-port", "PORT", "Port that inbound connections are redirected to.", false,
     SetNumber<&C::inbound_port, 1, 65535>, ShowNumber<&C::inbound_port>},
    {kTraffic, "outbound-port", "PORT", "Port that outbound connections are redirected to.", false,
     SetNumber<&C::outbound_port, 1, 65535>, ShowNumber<&C::outbound_port>},
    {kTraffic, "handover-fd", "NUMBER",
     "Descriptor over which `postern run` hands over the connections and ports of its command, and "
     "which it sets itself. Unless they are given, --admin and --metrics are then at 127.0.0.1 and "
     "a port of the system's choice, --access-log is off, and --drain-delay 0.",
     false, SetNumber<&C::handover_fd, 3, 65535>, ShowHandover},
    {kTraffic, "intercept-probe", "DURATION",
     "How often the proxy looks, by dialling itself, whether the rules of `postern intercept` are "
     "in "
     "force; 0 never does.",
     false, SetDuration<&C::intercept_probe, 100, kHour, true>, ShowDuration<&C::intercept_probe>},
    {kTraffic, "mark", "NUMBER",
     "Firewall mark on every connection that the proxy opens, for the loop guard; 0 for none.",
     false, SetNumber<&C::mark, 0, UINT32_MAX>, ShowNumber<&C::mark>},
    {kTraffic, "peer-mode", "strict|permissive|disabled",
     "What intercepted inbound ports accept: mesh mTLS only, plaintext and application TLS too, or "
     "everything as it is.",
     false, SetPeerMode, ShowWord<&C::peer_mode>},
    {kTraffic, "port-mode", "PORT=MODE",
     "Peer mode of one inbound port: strict, permissive, disabled, or opaque (never looked into, "
     "plaintext for policy), or skip (passed as if interception had left the port out; no policy "
     "is asked).",
     true, AddForPort<&C::port_modes, ParsePeerMode, kNoPortMode>, ShowForPorts<&C::port_modes>},
    {kTraffic, "proxy-protocol", "PORT",
     "The application on this intercepted inbound port is told of each client in a PROXY protocol "
     "header, version 2: addresses, and with mTLS the SPIFFE ID (TLV 0xD0) and the facts of TLS.",
     true, AddProxyProtocolPort, ShowProxyProtocolPorts},
    {kTraffic, "outbound-default", "passthrough|deny",
     "What happens to destinations that are not in the mesh.", false,
     SetWord<&C::outbound_default, ParseOutboundDefault>, ShowWord<&C::outbound_default>},
    {kTraffic, "require-mtls", "CIDR|NAME|*.NAME|all",
     "Destinations that are reached over mTLS or not at all: a connection to one that is not in "
     "the mesh is refused, whatever --outbound-default says. By name where a client says one "
     "(--outbound-proxy); *.NAME is every name below NAME.",
     true, AddPlaintextBan, ShowPlaintextBans},
    {kTraffic, "application-tls", "PORT=wrap|pass",
     "What becomes of the application's own TLS to this port of a destination in the mesh: carried "
     "inside mTLS, as on every port that is not named, or passed on untouched.",
     true, AddForPort<&C::application_tls, ParseApplicationTls, kNoPortTls>,
     ShowForPorts<&C::application_tls>},
    {kTraffic, "policy", "FILE",
     "Authorisation policy and peer modes, YAML; without it and without an issuer the own trust "
     "domain is let in.",
     false, SetPath<&C::policy_file>, ShowText<&C::policy_file>},
    {kTraffic, "destinations", "FILE",
     "Addresses and names that are in the mesh, the identities expected there and where to dial, "
     "YAML.",
     false, SetPath<&C::destinations_file>, ShowText<&C::destinations_file>},
    {kTraffic, "name-server", "IP[:PORT]",
     "Name server to ask instead of those of /etc/resolv.conf.", true, AddNameServer,
     ShowAddresses<&C::name_servers>},
    {kTraffic, "crl", "FILE|DIR",
     "CRLs of the CAs of peers, PEM or DER, with the certificates of CAs that no bundle holds; "
     "re-read when they change. Past its nextUpdate a CRL refuses every new connection with its "
     "CA.",
     true, AddCrl, ShowCrls},
    {kTraffic, "resumption", "true|false",
     "TLS 1.3 session resumption between proxies, in both directions. A renewal, and any change of "
     "bundles or policy, means full handshakes.",
     false, SetResumption, ShowResumption},
    {kTraffic, "on-peer-expiry", "auto|allow|close",
     "What becomes of an open connection when its peer's certificate has expired and was not "
     "renewed "
     "inside it. Clients of this proxy are asked to renew it there; servers cannot be. auto: it "
     "goes "
     "on while the issuer is heard, and is closed without one (also with identity from files).",
     false, SetWord<&C::on_peer_expiry, ParseOnPeerExpiry>, ShowWord<&C::on_peer_expiry>},

    {kLimits, "max-connections", "N",
     "Connections at the same time; 0 derives it from the limit of file descriptors, at most "
     "100000. Locked memory for keys is sized by it: 64 bytes each.",
     false, SetNumber<&C::max_connections, 0, 10'000'000>, ShowNumber<&C::max_connections>},
    {kLimits, "max-handshakes", "N",
     "Inbound handshakes under way at the same time, before accepting waits for them; 0 is 2048 "
     "for each worker.",
     false, SetNumber<&C::max_handshakes, 0, 1'000'000>, ShowNumber<&C::max_handshakes>},
    {kLimits, "max-handshakes-per-source", "N",
     "Of these from one source: an IPv4 address or an IPv6 /64, none on this host. A source never "
     "has more than sixteen or a quarter of the places left; 0 is no other limit.",
     false, SetNumber<&C::max_handshakes_per_source, 0, 1'000'000>,
     ShowNumber<&C::max_handshakes_per_source>},
    {kLimits, "max-connections-per-source", "N",
     "Inbound connections at the same time from one source. A source never has more than seven "
     "eighths of --max-connections; 0 is no other limit.",
     false, SetNumber<&C::max_connections_per_source, 0, 10'000'000>,
     ShowNumber<&C::max_connections_per_source>},
    {kLimits, "max-rate-per-source", "N",
     "New inbound connections in a second from one source; what was not used in two seconds, at "
     "least 10, may come at once. 0 is no limit.",
     false, SetNumber<&C::max_rate_per_source, 0, 100'000>, ShowNumber<&C::max_rate_per_source>},
    {kLimits, "max-connections-per-peer", "N",
     "Inbound connections at the same time of one SPIFFE ID, wherever they come from; 0 is no "
     "limit.",
     false, SetNumber<&C::max_connections_per_peer, 0, 10'000'000>,
     ShowNumber<&C::max_connections_per_peer>},
    {kLimits, "sniff-timeout", "DURATION",
     "Permissive ports: how long to wait for a client's first bytes before the server is let speak "
     "first.",
     false, SetDuration<&C::sniff_timeout, 1, kMinute>, ShowDuration<&C::sniff_timeout>},
    {kLimits, "handshake-timeout", "DURATION",
     "Deadline of a TLS handshake, and of a request at an outbound proxy port.", false,
     SetDuration<&C::handshake_timeout, 10, 10 * kMinute>, ShowDuration<&C::handshake_timeout>},
    {kLimits, "connect-timeout", "DURATION", "Deadline of connecting to the next hop.", false,
     SetDuration<&C::connect_timeout, 10, 10 * kMinute>, ShowDuration<&C::connect_timeout>},
    {kLimits, "lookup-timeout", "DURATION",
     "Deadline of looking a destination up at the issuer, and the name of one that was asked for "
     "by name.",
     false, SetDuration<&C::lookup_timeout, 10, 10 * kMinute>, ShowDuration<&C::lookup_timeout>},
    {kLimits, "idle-timeout", "DURATION",
     "Ends a connection on which no byte moved for so long; 0 never does.", false,
     SetDuration<&C::idle_timeout, kSecond, 720 * kHour, true>, ShowDuration<&C::idle_timeout>},
    {kLimits, "drain-delay", "DURATION",
     "How long inbound connections are still accepted after SIGTERM.", false,
     SetDuration<&C::drain_delay, 0, kHour>, ShowDuration<&C::drain_delay>},
    {kLimits, "drain-timeout", "DURATION", "How long open connections may go on after SIGTERM.",
     false, SetDuration<&C::drain_timeout, 0, 24 * kHour>, ShowDuration<&C::drain_timeout>},
    {kLimits, "high-watermark", "BYTES",
     "Bytes waiting for a slow reader at which reading from the other side stops.", false,
     SetNumber<&C::high_watermark, 1024, 64U << 20U>, ShowNumber<&C::high_watermark>},
    {kLimits, "low-watermark", "BYTES", "Bytes waiting at which reading resumes.", false,
     SetNumber<&C::low_watermark, 0, 64U << 20U>, ShowNumber<&C::low_watermark>},

    {kOperation, "admin", "ADDR", "Local status pages; loopback or unix:PATH only.", false,
     SetAddress<&C::admin>, ShowText<&C::admin>},
    {kOperation, "admin-socket", "PATH",
     "Unix socket for the verbs that change something: /drain, /shutdown, /logging, /renew; 'off' "
     "for none.",
     false, SetPathOrOff<&C::admin_socket>, ShowTextOrOff<&C::admin_socket>},
    {kOperation, "metrics", "ADDR", "/metrics, /live and /ready.", false, SetAddress<&C::metrics>,
     ShowText<&C::metrics>},
    {kOperation, "workers", "N", "Threads that carry traffic.", false,
     SetNumber<&C::workers, 1, 256>, ShowNumber<&C::workers>},
    {kOperation, "access-log", "FILE|-|off",
     "One JSON line for each connection: a file, '-' for standard output, 'off' for none.", false,
     SetPathOrOff<&C::access_log>, ShowTextOrOff<&C::access_log>},
    {kOperation, "log-level", "LEVEL", "trace, debug, info, warn, error or off.", false,
     SetLogLevel, ShowText<&C::log_level>},
    {kOperation, "log-format", "json|text", "Form of the log lines on standard error.", false,
     SetLogFormat, ShowLogFormat},
});

}  // namespace

std::span<const Knob> Knobs() {
  return kKnobs;
}

std::string EnvironmentName(std::string_view name) {
  std::string text = "POSTERN_";
  for (const char c : name) {
    text += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  return text;
}

}  // namespace postern::config
