// SPDX-License-Identifier: Apache-2.0
#include "control/service/issuer_config.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <sstream>

#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "control/attest/renewal_rules.h"
#include "control/ca/pkcs11_key.h"
#include "control/issue/issuer.h"

namespace postern::service {
namespace {

// The flags as they are written, before they are checked.
struct Raw {
  std::string trust_domain, state_dir, config;
  std::string listen = "127.0.0.1:15012";
  std::string admin = "127.0.0.1:15014";
  std::string socket = "/run/postern/identity.sock";
  std::string ca_dir, ca_roots, ca_key, ca_key_pin_file;
  std::string svid_ttl = "1h";
  bool allow_short_ttl = false;
  bool ca_auto_rotate = true;
  std::string renewal_grace = "lifetime";
  uint32_t certify_rate = 500;
  uint32_t max_connections = 24'000;
  uint32_t max_connections_per_source = 2'000;
  std::string log_level = "info";
  std::string log_format = "text";
  std::string bundle_endpoint, bundle_endpoint_cert, bundle_endpoint_key;
  std::string bundle_refresh_hint = "5m";
  std::vector<std::string> federate;
};

constexpr std::string_view kEnvironmentPrefix = "POSTERN_";

// "--svid-ttl" is read from POSTERN_SVID_TTL.
std::string EnvironmentName(const std::string& flag) {
  std::string name(kEnvironmentPrefix);
  for (const char c : flag) {
    name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  return name;
}

void AddOptions(CLI::App& app, Raw& raw) {
  app.set_version_flag("--version", std::string("postern-identity " POSTERN_VERSION));
  app.add_option("--trust-domain", raw.trust_domain,
                 "Trust domain to issue for, such as example.org (required)");
  app.add_option("--state-dir", raw.state_dir,
                 "Directory of the database and the CA keys, private to this user (required)");
  app.add_option("--listen", raw.listen, "gRPC over TLS for proxies, IP:PORT or [V6]:PORT")
      ->capture_default_str();
  app.add_option("--admin", raw.admin, "/live /ready /metrics, IP:PORT")->capture_default_str();
  app.add_option("--socket", raw.socket,
                 "Unix socket for local administration and unix attestation")
      ->capture_default_str();
  app.add_option(
      "--ca-dir", raw.ca_dir,
      "Directory with an intermediate CA to sign with, in the layout of Istio's cacerts, "
      "cert-manager or Linkerd; without it the issuer makes a CA of its own");
  app.add_option("--ca-roots", raw.ca_roots,
                 "PEM file with that CA's roots, if they are not in --ca-dir");
  app.add_option("--ca-key", raw.ca_key,
                 "PKCS#11 URI of that CA's key (RFC 7512), if it is in a token");
  app.add_option("--ca-key-pin-file", raw.ca_key_pin_file,
                 "File with the token's PIN, private to this user");
  app.add_option("--svid-ttl", raw.svid_ttl, "Lifetime of a certificate: 10m to 24h")
      ->capture_default_str();
  app.add_flag("--allow-short-ttl", raw.allow_short_ttl,
               "Allow lifetimes from 10s on: for tests, never for production");
  app.add_option("--ca-auto-rotate", raw.ca_auto_rotate,
                 "Rotate root and intermediate by itself at two thirds of their lives: true or "
                 "false")
      ->default_str("true");
  app.add_option("--renewal-grace", raw.renewal_grace,
                 "How long after its end a certificate may still be renewed: up to 144h, 0 for not "
                 "at all, or lifetime for as long as it lived")
      ->capture_default_str();
  app.add_option("--certify-rate", raw.certify_rate,
                 "Certificates per second and source address; 0: no limit, nor that of an entry "
                 "(2048 at once, and as many again spread over a lifetime)")
      ->capture_default_str();
  app.add_option("--max-connections", raw.max_connections,
                 "Connections to --listen at a time; those beyond are reset")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--max-connections-per-source", raw.max_connections_per_source,
                 "The same from one IPv4 address or one IPv6 /64")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--log-level", raw.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_option("--log-format", raw.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

void AddFederationOptions(CLI::App& app, Raw& raw) {
  app.add_option("--bundle-endpoint", raw.bundle_endpoint,
                 "Serves this trust domain's roots over HTTPS to others, IP:PORT or [V6]:PORT; "
                 "with the issuer's own certificate (https_spiffe) unless one is given");
  app.add_option("--bundle-endpoint-cert", raw.bundle_endpoint_cert,
                 "Certificate of the bundle endpoint with its intermediates (https_web), PEM; "
                 "re-read when it changes");
  app.add_option("--bundle-endpoint-key", raw.bundle_endpoint_key,
                 "Private key of that certificate, PEM; readable by this user only");
  app.add_option("--bundle-refresh-hint", raw.bundle_refresh_hint,
                 "How often others should fetch the bundle: 10s to 24h")
      ->capture_default_str();
  app.add_option("--federate", raw.federate,
                 "Fetches the bundle of another trust domain, repeatable: "
                 "trust-domain=TD,url=https://HOST[:PORT][/PATH],profile=https_web[,ca=FILE] or "
                 "...,profile=https_spiffe,endpoint-id=SPIFFE-ID[,bundle=FILE]; either with "
                 "[,max-age=24h][,on-stale=distrust]")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->allow_extra_args(false);
}

// CLI11 lets the file win over the environment; ours is flag, environment, file. So the environment
// is handed over as flags, in front of the real ones, for every flag that was not given.
std::vector<std::string> WithEnvironment(const CLI::App& app, int argc, const char* const* argv) {
  std::vector<std::string> given(argv + 1, argv + argc);
  std::vector<std::string> all;
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_single_name();
    const std::string flag = "--" + name;
    const char* value = std::getenv(EnvironmentName(name).c_str());
    if (value == nullptr || name == "help" || name == "version") {
      continue;
    }
    const bool on_command_line =
        std::any_of(given.begin(), given.end(), [&flag](const std::string& argument) {
          return argument == flag || argument.starts_with(flag + "=");
        });
    if (on_command_line) {
      continue;
    }
    if (option->get_items_expected_max() == 1) {
      all.push_back(flag + "=" + value);
      continue;
    }
    for (const std::string_view line : base::Split(value, '\n')) {
      if (!line.empty()) {
        all.push_back(base::StrCat(flag, "=", line));
      }
    }
  }
  all.insert(all.end(), given.begin(), given.end());
  return all;
}

absl::StatusOr<ListenAddress> ParseListen(std::string_view flag, const std::string& text) {
  const auto parsed = base::HostPort::Parse(text, {.port_0 = true});
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(base::StrCat(flag, ": ", base::Message(parsed.status())));
  }
  return ListenAddress{std::string(parsed->host), *parsed->port};
}

absl::StatusOr<absl::Duration> ParseTtl(const Raw& raw) {
  absl::Duration ttl;
  if (!absl::ParseDuration(raw.svid_ttl, &ttl)) {
    return absl::InvalidArgumentError(
        base::StrCat("--svid-ttl: '", raw.svid_ttl, "' is no duration: write 1h, 30m or 90s"));
  }
  const absl::Status bounds = issue::TtlPolicy{ttl, raw.allow_short_ttl}.Check(ttl);
  if (!bounds.ok()) {
    return absl::InvalidArgumentError(base::StrCat("--svid-ttl: ", base::Message(bounds)));
  }
  return ttl;
}

absl::StatusOr<std::optional<absl::Duration>> ParseGrace(const std::string& text) {
  if (text == "lifetime") {
    return std::optional<absl::Duration>();
  }
  absl::Duration grace;
  if (!absl::ParseDuration(text, &grace) || grace < absl::ZeroDuration() ||
      grace > attest::RenewalRules::kMostGrace) {
    return absl::InvalidArgumentError(base::StrCat(
        "--renewal-grace: '", text, "' is not in 0 to 144h: write 30m, 24h, or lifetime"));
  }
  return std::optional(grace);
}

absl::Status CheckFederation(const Raw& raw, IssuerConfig& config) {
  if (!raw.bundle_endpoint.empty()) {
    const absl::StatusOr<ListenAddress> address =
        ParseListen("--bundle-endpoint", raw.bundle_endpoint);
    if (!address.ok()) {
      return address.status();
    }
    config.bundle_endpoint = *address;
  }
  const bool has_certificate = !raw.bundle_endpoint_cert.empty();
  if (has_certificate != !raw.bundle_endpoint_key.empty() ||
      (has_certificate && raw.bundle_endpoint.empty())) {
    return absl::InvalidArgumentError(
        "--bundle-endpoint-cert, --bundle-endpoint-key: give both, and --bundle-endpoint");
  }
  config.bundle_endpoint_cert = raw.bundle_endpoint_cert;
  config.bundle_endpoint_key = raw.bundle_endpoint_key;
  if (!absl::ParseDuration(raw.bundle_refresh_hint, &config.bundle_refresh_hint) ||
      config.bundle_refresh_hint < absl::Seconds(10) ||
      config.bundle_refresh_hint > absl::Hours(24)) {
    return absl::InvalidArgumentError(base::StrCat(
        "--bundle-refresh-hint: '", raw.bundle_refresh_hint, "' is no duration from 10s to 24h"));
  }
  for (const std::string& text : raw.federate) {
    absl::StatusOr<federation::FederationSpec> spec = federation::FederationSpec::Parse(text);
    if (!spec.ok()) {
      return absl::InvalidArgumentError(base::StrCat("--federate: ", base::Message(spec.status())));
    }
    config.federate.push_back(*std::move(spec));
  }
  return absl::OkStatus();
}

absl::Status CheckCa(const Raw& raw) {
  if (raw.ca_dir.empty() && !(raw.ca_roots.empty() && raw.ca_key.empty())) {
    return absl::InvalidArgumentError(base::StrCat(raw.ca_key.empty() ? "--ca-roots" : "--ca-key",
                                                   ": goes with --ca-dir, which is not given"));
  }
  if (raw.ca_key.empty() && !raw.ca_key_pin_file.empty()) {
    return absl::InvalidArgumentError("--ca-key-pin-file: goes with --ca-key, which is not given");
  }
  if (raw.ca_key.empty()) {
    return absl::OkStatus();
  }
  const absl::Status uri = ca::CheckPkcs11Uri(raw.ca_key);
  return uri.ok() ? uri
                  : absl::InvalidArgumentError(base::StrCat("--ca-key: ", base::Message(uri)));
}

absl::StatusOr<IssuerConfig> Check(const Raw& raw) {
  if (raw.trust_domain.empty()) {
    return absl::InvalidArgumentError("--trust-domain: required; for example example.org");
  }
  const absl::StatusOr<x509::TrustDomain> trust_domain = x509::TrustDomain::Parse(raw.trust_domain);
  if (!trust_domain.ok()) {
    return absl::InvalidArgumentError(
        base::StrCat("--trust-domain: ", base::Message(trust_domain.status())));
  }
  if (raw.state_dir.empty()) {
    return absl::InvalidArgumentError("--state-dir: required; a directory that will hold CA keys");
  }
  if (raw.socket.empty() || raw.socket.size() > 107) {
    return absl::InvalidArgumentError("--socket: a path of 1 to 107 bytes");
  }
  const absl::StatusOr<ListenAddress> listen = ParseListen("--listen", raw.listen);
  const absl::StatusOr<ListenAddress> admin = ParseListen("--admin", raw.admin);
  const absl::StatusOr<absl::Duration> ttl = ParseTtl(raw);
  const absl::StatusOr<std::optional<absl::Duration>> grace = ParseGrace(raw.renewal_grace);
  for (const absl::Status& status :
       {listen.status(), admin.status(), ttl.status(), grace.status(), CheckCa(raw)}) {
    if (!status.ok()) {
      return status;
    }
  }
  IssuerConfig config{.trust_domain = *trust_domain, .state_dir = raw.state_dir};
  config.listen = *listen;
  config.admin = *admin;
  config.socket = raw.socket;
  config.ca_dir = raw.ca_dir;
  config.ca_roots = raw.ca_roots;
  config.ca_key = raw.ca_key;
  config.ca_key_pin_file = raw.ca_key_pin_file;
  config.svid_ttl = *ttl;
  config.allow_short_ttl = raw.allow_short_ttl;
  config.ca_auto_rotate = raw.ca_auto_rotate;
  config.renewal_grace = *grace;
  config.certify_rate = raw.certify_rate;
  config.max_connections = raw.max_connections;
  config.max_connections_per_source = raw.max_connections_per_source;
  config.log_level = raw.log_level;
  config.log_format = raw.log_format == "json" ? base::LogFormat::kJson : base::LogFormat::kText;
  if (absl::Status federation = CheckFederation(raw, config); !federation.ok()) {
    return federation;
  }
  return config;
}

ParseOutcome Exit(int code, std::string text) {
  return {std::nullopt, ParseExit{code, std::move(text)}};
}

}  // namespace

ParseOutcome ParseIssuerConfig(int argc, const char* const* argv) {
  Raw raw;
  CLI::App app("postern-identity: attests workloads and issues their X.509-SVIDs.\n",
               "postern-identity");
  app.footer(
      "Each flag may be given as POSTERN_NAME in the environment or in the --config file;\n"
      "the flag wins over the environment, the environment over the file.");
  try {
    AddOptions(app, raw);
    AddFederationOptions(app, raw);
    app.set_config("--config", "", "TOML file with these flags' names");
    std::vector<std::string> arguments = WithEnvironment(app, argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(arguments);
  } catch (const CLI::FileError& error) {
    return Exit(2, base::StrCat("postern-identity: --config: ", error.what(), "\n"));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    const int code = app.exit(error, out, out);
    return Exit(code == 0 ? 0 : 2, out.str());
  }
  absl::StatusOr<IssuerConfig> config = Check(raw);
  if (!config.ok()) {
    return Exit(2, base::StrCat("postern-identity: ", base::Message(config.status()), "\n"));
  }
  return {*std::move(config), std::nullopt};
}

std::string IssuerConfigReference() {
  std::string out =
      "| flag | environment | default | meaning |\n|---|---|---|---|\n"
      "| `--config` | `POSTERN_CONFIG` |  | TOML file with these flags' names |\n";
  Raw raw;
  CLI::App app;
  AddOptions(app, raw);
  AddFederationOptions(app, raw);
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_single_name();
    if (name == "help" || name == "version") {
      continue;
    }
    const std::string value = option->get_default_str();
    base::StrAppend(out, "| `--", name, "` | `", EnvironmentName(name), "` | ",
                    value.empty() ? std::string() : base::StrCat("`", value, "`"), " | ",
                    option->get_description(), " |\n");
  }
  return out;
}

}  // namespace postern::service
