// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/log.h"
#include "common/x509/spiffe_id.h"
#include "control/federation/federation_spec.h"

namespace postern::service {

// A TCP address to listen on: an IP literal without brackets and a port.
struct ListenAddress {
  std::string host;
  uint16_t port = 0;
};

// Everything that postern-identity can be told, checked before anything opens. Immutable.
struct IssuerConfig {
  x509::TrustDomain trust_domain;
  std::string state_dir;
  ListenAddress listen{"127.0.0.1", 15012};
  ListenAddress admin{"127.0.0.1", 15014};
  std::string socket = "/run/postern/identity.sock";
  std::string ca_dir = {};           // a plugged-in CA; empty: our own
  std::string ca_roots = {};         // its roots, if they are not in ca_dir
  std::string ca_key = {};           // a PKCS#11 URI, if the key is not in ca_dir
  std::string ca_key_pin_file = {};  // of ca_key's token; empty: it needs none
  absl::Duration svid_ttl = absl::Hours(1);
  bool allow_short_ttl = false;
  bool ca_auto_rotate = true;  // at two thirds of a CA's life
  // How long after its end a certificate may still be renewed; nullopt: for as long as it lived.
  std::optional<absl::Duration> renewal_grace = std::nullopt;
  uint32_t certify_rate = 500;      // requests per second and source address; 0: no limit
  size_t max_connections = 24'000;  // to `listen`, at a time
  size_t max_connections_per_source = 2'000;
  std::string log_level = "info";
  base::LogFormat log_format = base::LogFormat::kText;
  // Federation.
  std::optional<ListenAddress> bundle_endpoint = std::nullopt;
  std::string bundle_endpoint_cert = {};  // both or none: the issuer's own certificate
  std::string bundle_endpoint_key = {};
  absl::Duration bundle_refresh_hint = absl::Minutes(5);
  std::vector<federation::FederationSpec> federate = {};
};

// What Parse says when nothing is to be run: print `text` and exit with `exit_code`.
struct ParseExit {
  int exit_code = 0;
  std::string text;
};

struct ParseOutcome {
  std::optional<IssuerConfig> config;
  std::optional<ParseExit> exit;
};

// Flags, then environment (POSTERN_NAME), then the TOML file of --config. Exactly one of the two is
// set; a usage error has exit code 2 and names flag and mend.
ParseOutcome ParseIssuerConfig(int argc, const char* const* argv);

// The issuer's part of docs/CONFIG.md: a Markdown table, made from the flags.
std::string IssuerConfigReference();

}  // namespace postern::service
