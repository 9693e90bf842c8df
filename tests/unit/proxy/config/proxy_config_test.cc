// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/proxy_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "proxy/config/knobs.h"
#include "tests/unit/proxy/config/parse_arguments.h"

namespace postern::config {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const Arguments kTunnel = {"--tunnel",
                           "inbound,listen=127.0.0.1:8443,target=127.0.0.1:80,peer=spiffe://td/a"};

const Arguments kGood = Plus(kFiles, kTunnel);

ProxyConfig MustParse(const Arguments& arguments) {
  ParseOutcome outcome = Parse(arguments);
  EXPECT_TRUE(outcome.config) << outcome.exit->text;
  return outcome.config.value_or(ProxyConfig());
}

// Variables of one test, removed at its end; and a directory for files.
class ProxyConfigTest : public testing::Test {
 protected:
  ProxyConfigTest() {
    std::string pattern = testing::TempDir() + "/proxy_config_XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~ProxyConfigTest() override {
    for (const std::string& name : variables_) {
      unsetenv(name.c_str());
    }
    std::filesystem::remove_all(directory_);
  }
  void SetVariable(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    variables_.push_back(name);
  }
  std::string WriteFile(const std::string& text) const {
    const std::string path = directory_ + "/proxy.toml";
    std::ofstream(path) << text;
    return path;
  }

 private:
  std::vector<std::string> variables_;
  std::string directory_;
};

TEST_F(ProxyConfigTest, DefaultsAreThoseOfTheContract) {
  const ProxyConfig config = MustParse(kGood);
  EXPECT_EQ(config.svid_file, "a.pem");
  EXPECT_EQ(config.admin, "127.0.0.1:15000");
  EXPECT_EQ(config.metrics, "0.0.0.0:15020");
  EXPECT_EQ(config.inbound_port, 15006);
  EXPECT_EQ(config.outbound_port, 15001);
  EXPECT_EQ(config.intercept, InterceptMode::kNone);
  EXPECT_EQ(config.intercept_probe, milliseconds(5000));
  EXPECT_EQ(config.peer_mode, PeerMode::kStrict);
  EXPECT_FALSE(config.peer_mode_explicit);
  EXPECT_EQ(config.outbound_default, OutboundDefault::kPassthrough);
  EXPECT_TRUE(config.resumption);
  EXPECT_EQ(config.on_peer_expiry, OnPeerExpiry::kAuto);
  EXPECT_EQ(config.handshake_timeout, milliseconds(5000));
  EXPECT_EQ(config.access_log, "-");
}

TEST_F(ProxyConfigTest, ReadsEveryKnobFromTheCommandLine) {
  const ProxyConfig config = MustParse(Plus(kTunnel, {"--issuer",
                                                      "issuer.example:15012",
                                                      "--issuer-pin",
                                                      "sha256:" + std::string(64, 'A'),
                                                      "--trust-domain",
                                                      "td",
                                                      "--join-token-file",
                                                      "/t",
                                                      "--member-key",
                                                      "/m",
                                                      "--state-dir",
                                                      "/s",
                                                      "--intercept",
                                                      "redirect",
                                                      "--inbound-port",
                                                      "25006",
                                                      "--outbound-port=25001",
                                                      "--intercept-probe",
                                                      "750ms",
                                                      "--mark",
                                                      "0x539",
                                                      "--peer-mode",
                                                      "permissive",
                                                      "--port-mode",
                                                      "3306=strict",
                                                      "--port-mode",
                                                      "80=disabled",
                                                      "--outbound-default",
                                                      "deny",
                                                      "--policy",
                                                      "p.yaml",
                                                      "--destinations",
                                                      "d.yaml",
                                                      "--outbound-proxy",
                                                      "127.0.0.1:1080",
                                                      "--outbound-proxy=unix:/p.sock",
                                                      "--name-server",
                                                      "192.0.2.53",
                                                      "--name-server",
                                                      "[fd00::53]:5353",
                                                      "--resumption",
                                                      "false",
                                                      "--on-peer-expiry",
                                                      "close",
                                                      "--max-connections",
                                                      "1000",
                                                      "--sniff-timeout",
                                                      "500ms",
                                                      "--handshake-timeout",
                                                      "2s",
                                                      "--connect-timeout",
                                                      "1m",
                                                      "--lookup-timeout",
                                                      "1s",
                                                      "--idle-timeout",
                                                      "1h",
                                                      "--drain-delay",
                                                      "0",
                                                      "--drain-timeout",
                                                      "1m30s",
                                                      "--high-watermark",
                                                      "100000",
                                                      "--low-watermark",
                                                      "1000",
                                                      "--admin",
                                                      "unix:/a.sock",
                                                      "--admin-socket",
                                                      "/b.sock",
                                                      "--metrics",
                                                      "[::1]:9",
                                                      "--workers",
                                                      "4",
                                                      "--access-log=",
                                                      "--log-level",
                                                      "debug",
                                                      "--log-format",
                                                      "json"}));
  EXPECT_EQ(config.issuer, "issuer.example:15012");
  EXPECT_EQ(config.issuer_pin, std::string(32, '\xAA'));
  EXPECT_EQ(config.trust_domain, "td");
  EXPECT_EQ(config.join_token_file, "/t");
  EXPECT_EQ(config.member_key_file, "/m");
  EXPECT_EQ(config.state_dir, "/s");
  EXPECT_EQ(config.intercept, InterceptMode::kRedirect);
  EXPECT_EQ(config.inbound_port, 25006);
  EXPECT_EQ(config.outbound_port, 25001);
  EXPECT_EQ(config.intercept_probe, milliseconds(750));
  EXPECT_EQ(config.mark, 0x539u);
  EXPECT_EQ(config.peer_mode, PeerMode::kPermissive);
  EXPECT_TRUE(config.peer_mode_explicit);
  EXPECT_EQ(config.port_modes.at(3306), PeerMode::kStrict);
  EXPECT_EQ(config.port_modes.at(80), PeerMode::kDisabled);
  EXPECT_EQ(config.outbound_default, OutboundDefault::kDeny);
  ASSERT_EQ(config.outbound_proxies.size(), 2u);
  EXPECT_EQ(config.outbound_proxies[0].ToString(), "127.0.0.1:1080");
  EXPECT_EQ(config.outbound_proxies[1].ToString(), "unix:/p.sock");
  ASSERT_EQ(config.name_servers.size(), 2u);
  EXPECT_EQ(config.name_servers[0].ToString(), "192.0.2.53:53");
  EXPECT_EQ(config.name_servers[1].ToString(), "[fd00::53]:5353");
  EXPECT_FALSE(config.resumption);
  EXPECT_EQ(config.on_peer_expiry, OnPeerExpiry::kClose);
  EXPECT_EQ(config.policy_file, "p.yaml");
  EXPECT_EQ(config.destinations_file, "d.yaml");
  EXPECT_EQ(config.max_connections, 1000u);
  EXPECT_EQ(config.sniff_timeout, milliseconds(500));
  EXPECT_EQ(config.handshake_timeout, milliseconds(2000));
  EXPECT_EQ(config.connect_timeout, milliseconds(60'000));
  EXPECT_EQ(config.lookup_timeout, milliseconds(1000));
  EXPECT_EQ(config.idle_timeout, milliseconds(3'600'000));
  EXPECT_EQ(config.drain_delay, milliseconds(0));
  EXPECT_EQ(config.drain_timeout, milliseconds(90'000));
  EXPECT_EQ(config.high_watermark, 100'000u);
  EXPECT_EQ(config.low_watermark, 1000u);
  EXPECT_EQ(config.admin, "unix:/a.sock");
  EXPECT_EQ(config.admin_socket, "/b.sock");
  EXPECT_EQ(config.metrics, "[::1]:9");
  EXPECT_EQ(config.workers, 4u);
  EXPECT_EQ(config.access_log, "");
  EXPECT_EQ(config.log_level, "debug");
  EXPECT_EQ(config.log_format, base::LogFormat::kJson);
}

TEST_F(ProxyConfigTest, ReadsWhatIsSaidOfPortsAndDestinations) {
  const ProxyConfig config =
      MustParse(Plus(kGood, {"--port-mode", "25=opaque", "--port-mode", "22=skip", "--require-mtls",
                             "10.0.0.0/8", "--require-mtls", "all", "--application-tls",
                             "5432=pass", "--application-tls", "5433=wrap"}));
  EXPECT_EQ(config.port_modes.at(25), PeerMode::kOpaque);
  EXPECT_EQ(config.port_modes.at(22), PeerMode::kSkip);
  EXPECT_TRUE(config.require_mtls.Covers(base::IpAddress::Parse("192.0.2.1").value()));
  EXPECT_EQ(config.application_tls.at(5432), ApplicationTls::kPass);
  EXPECT_EQ(config.application_tls.at(5433), ApplicationTls::kWrap);
  EXPECT_EQ(MustParse(kGood).sniff_timeout, milliseconds(50));
}

TEST_F(ProxyConfigTest, ReadsADashAsStandardOutput) {
  EXPECT_EQ(MustParse(Plus(kGood, {"--access-log", "off"})).access_log, "");
  EXPECT_EQ(MustParse(Plus(kGood, {"--access-log", ""})).access_log, "");
  EXPECT_EQ(MustParse(Plus({"--access-log", "-"}, kGood)).access_log, "-");
  EXPECT_EQ(MustParse(Plus({"--access-log=-"}, kGood)).access_log, "-");
}

TEST_F(ProxyConfigTest, FlagWinsOverEnvironmentOverFile) {
  const std::string file = WriteFile(
      "workers = 2\nlog-level = \"warn\"\nmetrics = \"127.0.0.1:9\"\n"
      "tunnel = [\"inbound,listen=127.0.0.1:1,target=127.0.0.1:80,peer=spiffe://td/a\"]\n");
  SetVariable("POSTERN_WORKERS", "3");
  SetVariable("POSTERN_LOG_LEVEL", "error");
  SetVariable("POSTERN_CONFIG", file);
  const ProxyConfig config = MustParse(Plus(kFiles, {"--workers", "4"}));
  EXPECT_EQ(config.workers, 4u);
  EXPECT_EQ(config.log_level, "error");
  EXPECT_EQ(config.metrics, "127.0.0.1:9");
  ASSERT_EQ(config.tunnels.size(), 1u);
  EXPECT_EQ(config.origins.at("workers"), "flag");
  EXPECT_EQ(config.origins.at("log-level"), "environment POSTERN_LOG_LEVEL");
  EXPECT_EQ(config.origins.at("metrics"), "file " + file + ":3");
  EXPECT_FALSE(config.origins.contains("admin"));
}

TEST_F(ProxyConfigTest, RepeatableKnobsComeFromOneSource) {
  SetVariable("POSTERN_TUNNEL",
              "inbound,listen=127.0.0.1:1,target=127.0.0.1:80,peer=spiffe://td/a\n\n"
              "inbound,listen=127.0.0.1:2,target=127.0.0.1:80,peer=spiffe://td/a\n");
  EXPECT_EQ(MustParse(kFiles).tunnels.size(), 2u);
  const ProxyConfig config = MustParse(kGood);
  ASSERT_EQ(config.tunnels.size(), 1u);
  EXPECT_EQ(config.tunnels[0].name, "inbound:127.0.0.1:8443");
}

TEST_F(ProxyConfigTest, AnEmptyVariableCountsAsNone) {
  SetVariable("POSTERN_ADMIN", "");
  EXPECT_EQ(MustParse(kGood).admin, "127.0.0.1:15000");
}

TEST_F(ProxyConfigTest, NamesTheSourceOfAFault) {
  SetVariable("POSTERN_WORKERS", "many");
  EXPECT_THAT(Refusal(kGood), HasSubstr("POSTERN_WORKERS: 'many' is no number from 1 to 256"));
  const std::string file = WriteFile("\nmark = 1\nworkers = 0\nadmin = [\"a\", \"b\"]\n");
  EXPECT_THAT(Refusal(Plus(kGood, {"--workers", "1", "--config", file})),
              HasSubstr(file + ":4: admin: takes one value, 2 are given"));
}

TEST_F(ProxyConfigTest, NamesFileAndLineOfAFaultInTheFile) {
  const std::string file = WriteFile("\nworkers = 0\n");
  EXPECT_THAT(Refusal(Plus(kGood, {"--config", file})),
              HasSubstr(file + ":2: workers: '0' is no number"));
  EXPECT_THAT(Refusal(Plus(kGood, {"--config", WriteFile("wokers = 1\n")})),
              HasSubstr(file + ":1: wokers: unknown key; did you mean --workers?"));
  EXPECT_THAT(Refusal(Plus(kGood, {"--config", WriteFile("[a]\n")})), HasSubstr(file + ":1: "));
  EXPECT_THAT(Refusal(Plus(kGood, {"--config", "/missing.toml"})),
              AllOf(HasSubstr("--config: "), HasSubstr("/missing.toml")));
}

TEST_F(ProxyConfigTest, HelpAndVersionEndWellAndNeedNothingElse) {
  const ParseOutcome help = Parse({"--help"});
  ASSERT_TRUE(help.exit);
  EXPECT_EQ(help.exit->exit_code, 0);
  for (const Knob& knob : Knobs()) {
    EXPECT_THAT(help.exit->text, HasSubstr("--" + std::string(knob.name)));
    EXPECT_THAT(help.exit->text, HasSubstr(EnvironmentName(knob.name)));
  }
  const ParseOutcome version = Parse({"--version"});
  ASSERT_TRUE(version.exit);
  EXPECT_EQ(version.exit->exit_code, 0);
  EXPECT_EQ(version.exit->text, std::string("postern-proxy ") + POSTERN_VERSION + "\n");
}

struct Row {
  Arguments arguments;
  const char* expected;
};

TEST_F(ProxyConfigTest, RefusesValuesWithFlagAndMend) {
  const std::vector<Row> rows = {
      {{"--admin", "0.0.0.0:15000"}, "--admin: 0.0.0.0:15000 can be reached from elsewhere"},
      {{"--admin", "example.org:1"}, "--admin: "},
      {{"--admin", "15000"}, "--admin: '15000' is no address: its port is missing; write IP:port"},
      {{"--outbound-proxy", "0.0.0.0:1080"},
       "--outbound-proxy: '0.0.0.0:1080' can be reached from elsewhere"},
      {{"--outbound-proxy", "localhost:1080"}, "can be reached from elsewhere"},
      {{"--outbound-proxy", "1080"}, "--outbound-proxy: '1080' is no address"},
      {{"--outbound-proxy", "127.0.0.1:15000"}, "both listen at 127.0.0.1:15000"},
      {{"--outbound-proxy", "127.0.0.1:1080", "--outbound-proxy", "127.0.0.1:1080"}, "both listen"},
      {{"--name-server", "dns.example"}, "--name-server: 'dns.example' is no name server"},
      {{"--name-server", "192.0.2.53:0"}, "is no name server"},
      {{"--name-server", "fd00::53:53"},
       "--name-server: 'fd00::53:53' is no name server: without brackets it is ambiguous"},
      {{"--metrics", "::1:1"},
       "--metrics: '::1:1' is no address: without brackets it is ambiguous"},
      {{"--workers", "0"}, "--workers: '0' is no number from 1 to 256"},
      {{"--workers", "1e3"}, "--workers: "},
      {{"--inbound-port", "65536"}, "--inbound-port: '65536' is no number from 1 to 65535"},
      {{"--mark", "0x100000000"}, "--mark: "},
      {{"--handshake-timeout", "5"}, "--handshake-timeout: '5' is no duration"},
      {{"--handshake-timeout", "-5s"}, "--handshake-timeout: '-5s' is not in 10ms to 10m"},
      {{"--handshake-timeout", "inf"}, "--handshake-timeout: "},
      {{"--idle-timeout", "10ms"}, "--idle-timeout: '10ms' is not in 1s to 720h, nor 0"},
      {{"--intercept", "iptables"},
       "--intercept: 'iptables' is not one of: redirect, tproxy, none"},
      {{"--peer-mode", "Strict"}, "--peer-mode: 'Strict' is not one of"},
      {{"--port-mode", "3306"}, "--port-mode: '3306' is no PORT=MODE"},
      {{"--port-mode", "0=strict"}, "--port-mode: "},
      {{"--port-mode", "1=strict", "--port-mode", "1=disabled"}, "has a mode already"},
      {{"--peer-mode", "opaque"}, "--peer-mode: 'opaque' is said of single ports"},
      {{"--require-mtls", "10.0.0.1/8"}, "--require-mtls: '10.0.0.1/8' is no range of addresses"},
      {{"--require-mtls", "db.*.org"}, "--require-mtls: 'db.*.org' is neither 'all', nor"},
      {{"--require-mtls", "db.example:80"}, "'db.example:80' is no range of addresses"},
      {{"--application-tls", "5432"}, "--application-tls: '5432' is no PORT=wrap or PORT=pass"},
      {{"--application-tls", "5432=keep"}, "'keep' is not one of: wrap, pass"},
      {{"--outbound-default", "allow"}, "--outbound-default: "},
      {{"--log-level", "verbose"}, "--log-level: "},
      {{"--log-format", "xml"}, "--log-format: "},
      {{"--resumption", "yes"}, "--resumption: 'yes' is not one of: true, false"},
      {{"--on-peer-expiry", "never"},
       "--on-peer-expiry: 'never' is not one of: auto, allow, close"},
      {{"--policy", ""}, "--policy: '' is no path"},
      {{"--low-watermark", "262144"}, "--low-watermark: 262144 is not below --high-watermark"},
      {{"--high-watermark", "1"}, "--high-watermark: "},
      {{"--workers", "1", "--workers", "2"}, "--workers: takes one value, 2 are given"},
      {{"--tunnel", "x"}, "--tunnel: 'x' is no direction"},
      {{"--wrokers", "1"}, "--wrokers: unknown flag; did you mean --workers?"},
      {{"--zzzzzzzzzzzzz"}, "--zzzzzzzzzzzzz: unknown flag\n"},
      {{"-x"}, "-x: unknown flag"},
      {{"stray"}, "'stray' is no flag"},
      {{"--workers"}, "--workers"},
      {{"--issuer", "x:1"}, "--issuer and --svid: identity comes from the issuer or from files"},
      {{"--issuer-pin", "sha256:" + std::string(64, '0')}, "--issuer-pin: needs --issuer"},
      {{"--issuer-pin", "sha256:12"}, "--issuer-pin: 'sha256:12' is no pin"},
      {{"--issuer-pin", "sha256:" + std::string(64, 'g')}, "--issuer-pin: "},
      {{"--trust-domain", "TD"}, "--trust-domain: "},
      {{"--max-stale", "5m"}, "--max-stale: needs --issuer HOST:PORT as well"},
      {{"--max-stale", "5s"}, "--max-stale: '5s' is not in 30s to 720h, nor 0"},
      {{"--tunnel", "inbound,listen=0.0.0.0:8443,target=127.0.0.1:81,peer=spiffe://td/a"},
       "--tunnel inbound:127.0.0.1:8443 and --tunnel inbound:0.0.0.0:8443 both listen at"},
      {{"--tunnel", "inbound,listen=127.0.0.1:8443,target=127.0.0.1:81,peer=spiffe://td/a"},
       "--tunnel"},
      {{"--metrics", "127.0.0.1:15000"}, "--admin and --metrics both listen at 127.0.0.1:15000"},
      {{"--intercept", "redirect", "--outbound-port", "15006"}, "both listen at"},
      {{"--peer-mode", "strict", "--tunnel",
        "inbound,listen=127.0.0.1:1,target=127.0.0.1:81,client-auth=none"},
       "client-auth=none, which --peer-mode strict forbids"},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Refusal(Plus(kGood, row.arguments)),
                AllOf(StartsWith("postern-proxy: "), HasSubstr(row.expected)))
        << testing::PrintToString(row.arguments);
  }
}

TEST_F(ProxyConfigTest, RefusesWhatDoesNotAddUp) {
  const std::string pin = "sha256:" + std::string(64, '0');
  const std::vector<Row> rows = {
      {{}, "there is nothing to do"},
      {kFiles, "there is nothing to do"},
      {kTunnel, "no identity; give --issuer"},
      {{"--intercept", "redirect"}, "no identity"},
      {{"--intercept", "redirect", "--peer-mode", "disabled", "--port-mode", "1=strict"},
       "no identity"},
      {Plus(kTunnel, {"--svid", "a"}), "--svid-key: missing"},
      {Plus(kTunnel, {"--svid", "a", "--svid-key", "b"}), "--bundle: missing"},
      {Plus(kTunnel, {"--bundle", "a"}), "--svid: missing"},
      {Plus(kTunnel, {"--issuer", "a:1"}), "--issuer: nothing says how to trust it"},
      {Plus(kTunnel, {"--issuer", "a:1", "--issuer-pin", pin, "--issuer-bundle", "b"}), "give one"},
      {Plus(kTunnel, {"--issuer", "a:1", "--issuer-pin", pin}), "give --trust-domain"},
      {Plus(kTunnel, {"--issuer", "a:1", "--issuer-bundle", "b"}), "--join-token-file"},
      {Plus(kTunnel, {"--issuer", "a:0", "--state-dir", "s"}), "port 0"},
      {Plus(kTunnel, {"--issuer", "unix:/a", "--issuer-bundle", "b", "--member-key", "k"}),
       "unix socket"},
      {Plus(kGood, {"--member-key", "k"}), "--member-key"},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Refusal(row.arguments), HasSubstr(row.expected))
        << testing::PrintToString(row.arguments);
  }
}

TEST_F(ProxyConfigTest, AcceptsWhatAddsUp) {
  const std::string pin = "sha256:" + std::string(64, '0');
  const std::vector<Arguments> all = {
      Plus(kTunnel, {"--issuer", "a:1", "--state-dir", "s"}),
      Plus(kTunnel, {"--issuer", "a:1", "--state-dir", "s", "--max-stale", "10m"}),
      Plus(kFiles, {"--intercept", "redirect", "--max-stale", "0"}),
      Plus(kTunnel, {"--issuer", "a:1", "--issuer-bundle", "b", "--join-token-file", "t"}),
      Plus(kTunnel, {"--issuer", "a:1", "--issuer-bundle", "b", "--member-key", "k"}),
      Plus(kTunnel, {"--issuer", "unix:/i.sock", "--issuer-pin", pin, "--trust-domain", "td"}),
      {"--intercept", "redirect", "--peer-mode", "disabled"},
      Plus(kFiles, {"--tunnel", "inbound,listen=127.0.0.1:1,target=127.0.0.1:2,client-auth=none"}),
      Plus(kFiles, {"--intercept", "tproxy"}),
      Plus(kGood, {"--admin", "[::1]:0", "--metrics", "127.0.0.1:0"}),
      Plus(kGood, {"--tunnel", "inbound,listen=[::1]:8443,target=127.0.0.1:2,peer=spiffe://td/a"}),
  };
  for (const Arguments& arguments : all) {
    EXPECT_EQ(Refusal(arguments), "accepted") << testing::PrintToString(arguments);
  }
}

TEST_F(ProxyConfigTest, AProxyOfPosternRunIsOneOfManyAndQuiet) {
  const Arguments of_run = Plus(kFiles, {"--handover-fd", "5"});
  const ProxyConfig config = MustParse(of_run);
  EXPECT_EQ(config.handover_fd, 5);
  EXPECT_EQ(config.admin, "127.0.0.1:0");
  EXPECT_EQ(config.metrics, "127.0.0.1:0");
  EXPECT_EQ(config.access_log, "");
  EXPECT_EQ(config.drain_delay, milliseconds(0));
  const ProxyConfig given = MustParse(
      Plus(of_run, {"--admin", "127.0.0.1:7", "--access-log", "-", "--drain-delay", "3s"}));
  EXPECT_EQ(given.admin, "127.0.0.1:7");
  EXPECT_EQ(given.access_log, "-");
  EXPECT_EQ(given.drain_delay, std::chrono::seconds(3));
  EXPECT_THAT(Refusal(Plus(kFiles, {"--handover-fd", "2"})), HasSubstr("--handover-fd"));
}

TEST_F(ProxyConfigTest, GivesTunnelsOnPortZeroANameEach) {
  const std::string tunnel = "inbound,listen=127.0.0.1:0,target=127.0.0.1:80,peer=spiffe://td/a";
  const ProxyConfig config = MustParse(Plus(kFiles, {"--tunnel", tunnel, "--tunnel", tunnel}));
  ASSERT_EQ(config.tunnels.size(), 2u);
  EXPECT_EQ(config.tunnels[0].name, "inbound:127.0.0.1:0");
  EXPECT_EQ(config.tunnels[1].name, "inbound:127.0.0.1:0#2");
}

TEST_F(ProxyConfigTest, ShowsTheEffectiveConfiguration) {
  const ProxyConfig config =
      MustParse(Plus(kGood, {"--idle-timeout", "90s", "--port-mode", "80=disabled"}));
  const json shown = json::parse(ConfigAsJson(config));
  EXPECT_EQ(shown.size(), Knobs().size());
  EXPECT_EQ(shown["idle-timeout"]["value"], "1m30s");
  EXPECT_EQ(shown["idle-timeout"]["from"], "flag");
  EXPECT_EQ(shown["workers"]["value"], "1");
  EXPECT_EQ(shown["workers"]["from"], "default");
  EXPECT_EQ(shown["tunnel"]["value"][0], kTunnel[1]);
  EXPECT_EQ(shown["port-mode"]["value"][0], "80=disabled");
  EXPECT_EQ(shown["issuer"]["value"], nullptr);
}

TEST_F(ProxyConfigTest, WhatItShowsCanBeGivenAgain) {
  const ProxyConfig config = MustParse(Plus(
      kGood, {"--mark", "0x10", "--sniff-timeout", "1500ms", "--access-log", "off", "--tunnel",
              "inbound,listen=[::1]:1,target=unix:/a,client-auth=none", "--log-format", "json"}));
  Arguments again;
  for (const Knob& knob : Knobs()) {
    for (const std::string& value : knob.show(config)) {
      again.push_back("--" + std::string(knob.name));
      again.push_back(value);
    }
  }
  ProxyConfig second = config;
  // Showing the default mode makes it an explicit one, which forbids client-auth=none.
  std::erase(again, "--peer-mode");
  std::erase(again, "strict");
  second = MustParse(again);
  for (const Knob& knob : Knobs()) {
    EXPECT_EQ(knob.show(second), knob.show(config)) << knob.name;
  }
}

TEST_F(ProxyConfigTest, KnobsAreUniqueAndDocumented) {
  std::set<std::string_view> names;
  const std::string reference = ConfigReference();
  for (const Knob& knob : Knobs()) {
    EXPECT_TRUE(names.insert(knob.name).second) << knob.name;
    EXPECT_EQ(knob.doc.back(), '.') << knob.name;
    EXPECT_THAT(reference, HasSubstr("| `--" + std::string(knob.name) + " "));
    EXPECT_THAT(reference, HasSubstr("`" + EnvironmentName(knob.name) + "`"));
  }
}

}  // namespace
}  // namespace postern::config
