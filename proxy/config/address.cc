// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "proxy/config/proxy_config.h"

namespace postern::config {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr size_t kMaxUnixPath = 107;  // sockaddr_un::sun_path without its final NUL

absl::Status Wrong(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat("'", base::Printable(text, 128), "' ", what));
}

absl::StatusOr<AddressSpec> ParseUnix(std::string_view text) {
  const std::string_view path = text.substr(kUnixPrefix.size());
  if (path.empty() || path.find('\0') != std::string_view::npos) {
    return Wrong(text, "lacks a path; write unix:/path");
  }
  if (path.size() > kMaxUnixPath) {
    return Wrong(text, base::StrCat("is too long for a unix socket; at most ", kMaxUnixPath,
                                    " bytes of path"));
  }
  AddressSpec address;
  address.unix_path = std::string(path);
  return address;
}

// Splits "key=value"; the key is empty without a '='.
struct Part {
  std::string_view key, value;
};
Part SplitPart(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    return {"", text};
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

absl::Status SetOnce(std::optional<AddressSpec>& address, const Part& part) {
  if (address) {
    return absl::InvalidArgumentError(base::StrCat(part.key, " is given twice; give it once"));
  }
  auto parsed = AddressSpec::Parse(part.value);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(base::StrCat(part.key, ": ", base::Message(parsed.status())));
  }
  address = *std::move(parsed);
  return absl::OkStatus();
}

// The parts of a tunnel behind its direction.
struct TunnelParts {
  std::optional<AddressSpec> listen, target;
  std::vector<x509::SpiffeIdPattern> peers;
  x509::PeerPins pins;
  bool client_auth = true;
  bool proxy_protocol = false;

  absl::Status TakePin(const Part& part) {
    const auto pin = x509::ParsePin(part.value);
    if (!pin.ok()) {
      return absl::InvalidArgumentError(base::StrCat(part.key, ": ", base::Message(pin.status())));
    }
    (part.key == "pin-ca" ? pins.ca_sha256 : pins.key_sha256).push_back(*pin);
    return absl::OkStatus();
  }

  absl::Status Take(const Part& part) {
    if (part.key == "listen") {
      return SetOnce(listen, part);
    }
    if (part.key == "target") {
      return SetOnce(target, part);
    }
    if (part.key == "peer") {
      auto pattern = x509::SpiffeIdPattern::Parse(part.value);
      if (!pattern.ok()) {
        return absl::InvalidArgumentError(base::StrCat("peer: ", base::Message(pattern.status())));
      }
      peers.push_back(*std::move(pattern));
      return absl::OkStatus();
    }
    if (part.key == "client-auth") {
      if (part.value != "none" && part.value != "required") {
        return absl::InvalidArgumentError(base::StrCat(
            "client-auth: ", base::Message(Wrong(part.value, "is not one of: required, none"))));
      }
      client_auth = part.value == "required";
      return absl::OkStatus();
    }
    if (part.key == "proxy-protocol") {
      if (part.value != "v2") {
        return absl::InvalidArgumentError(base::StrCat(
            "proxy-protocol: ", base::Message(Wrong(part.value, "is not v2; there is no other"))));
      }
      proxy_protocol = true;
      return absl::OkStatus();
    }
    if (part.key == "pin-ca" || part.key == "pin-key") {
      return TakePin(part);
    }
    return Wrong(part.key.empty() ? part.value : part.key,
                 "is no part of a tunnel; known: listen=, target=, peer=, client-auth=, "
                 "proxy-protocol=, pin-ca=, pin-key=");
  }

  absl::Status Check(base::Direction direction) const {
    if (!listen) {
      return absl::InvalidArgumentError("listen is missing; write listen=IP:port");
    }
    if (!target) {
      return absl::InvalidArgumentError("target is missing; write target=IP:port");
    }
    if (!target->is_unix() && target->port == 0) {
      return absl::InvalidArgumentError("target: port 0 cannot be dialled; write its port");
    }
    if (!client_auth && direction == base::Direction::kOutbound) {
      return absl::InvalidArgumentError(
          "client-auth=none is for inbound tunnels only; leave it out");
    }
    if (proxy_protocol && direction == base::Direction::kOutbound) {
      return absl::InvalidArgumentError("proxy-protocol is for inbound tunnels only; leave it out");
    }
    if (!pins.empty() && direction == base::Direction::kInbound) {
      return absl::InvalidArgumentError(
          "pin-ca and pin-key are for outbound tunnels only; leave them out");
    }
    if (client_auth && peers.empty()) {
      return absl::InvalidArgumentError(
          "peer is missing; write peer=spiffe://TRUST-DOMAIN/PATH, or with '*' as the last segment"
          " to mean all below");
    }
    if (!client_auth && !peers.empty()) {
      return absl::InvalidArgumentError(
          "with client-auth=none no client shows an identity, so peer cannot be checked; leave one "
          "of them out");
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<AddressSpec> AddressSpec::Parse(std::string_view text) {
  if (text.starts_with(kUnixPrefix)) {
    return ParseUnix(text);
  }
  const auto parsed =
      base::HostPort::Parse(text, {.names = true, .port_0 = true, .also = "unix:/path"});
  if (!parsed.ok()) {
    return parsed.status();
  }
  AddressSpec address;
  address.host = parsed->ip.has_value() ? parsed->ip->ToString() : std::string(parsed->host);
  address.port = *parsed->port;
  return address;
}

std::string AddressSpec::ToString() const {
  return is_unix() ? base::StrCat(kUnixPrefix, unix_path) : base::JoinHostPort(host, port);
}

absl::StatusOr<TunnelSpec> TunnelSpec::Parse(std::string_view text) {
  const auto parts = base::Split(text, ',');
  TunnelSpec tunnel;
  if (parts.front() == "inbound") {
    tunnel.direction = base::Direction::kInbound;
  } else if (parts.front() == "outbound") {
    tunnel.direction = base::Direction::kOutbound;
  } else {
    return Wrong(parts.front(), "is no direction; begin with inbound, or outbound,");
  }
  TunnelParts taken;
  for (size_t i = 1; i < parts.size(); ++i) {
    if (const absl::Status status = taken.Take(SplitPart(parts[i])); !status.ok()) {
      return status;
    }
  }
  if (const absl::Status status = taken.Check(tunnel.direction); !status.ok()) {
    return status;
  }
  tunnel.listen = *std::move(taken.listen);
  tunnel.target = *std::move(taken.target);
  tunnel.peers = std::move(taken.peers);
  tunnel.client_auth = taken.client_auth;
  tunnel.proxy_protocol = taken.proxy_protocol;
  if (!taken.pins.empty()) {
    tunnel.pins = std::make_shared<const x509::PeerPins>(std::move(taken.pins));
  }
  tunnel.name = base::StrCat(Token(tunnel.direction), ":", tunnel.listen.ToString());
  return tunnel;
}

}  // namespace postern::config
