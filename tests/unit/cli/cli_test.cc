// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "common/x509/member_key.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/cli/fake_admin.h"
#include "tests/unit/cli/run_command.h"

namespace postern::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A variable of the environment for one test.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

class CliTest : public ::testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& content) {
    const std::string path = admin_.directory() + "/" + name;
    std::ofstream(path) << content;
    return path;
  }
  // The command with --socket of the fake.
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.push_back("--socket");
    arguments.push_back(admin_.socket());
    return RunWith(arguments);
  }

  FakeAdmin admin_;
};

TEST_F(CliTest, PrintsVersionAndHelp) {
  EXPECT_EQ(RunWith({"--version"}).status, 0);
  EXPECT_THAT(RunWith({"--version"}).out, HasSubstr("postern "));
  const Outcome help = RunWith({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("intercept"), HasSubstr("token"), HasSubstr("policy")));
}

TEST_F(CliTest, EndsWithStatusTwoForWhatItDoesNotKnow) {
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{{},
                                             {"frobnicate"},
                                             {"token"},
                                             {"token", "create"},
                                             {"intercept", "up", "--nonsense"},
                                             {"status", "--output", "xml"},
                                             {"policy", "put"}}) {
    const Outcome outcome = RunWith(line);
    EXPECT_EQ(outcome.status, 2) << ::testing::PrintToString(line);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, Not(IsEmpty()));
  }
}

TEST_F(CliTest, PutsTheTokenAloneOnStandardOutput) {
  const Outcome made = Ask({"token",
                            "create",
                            "--spiffe-id",
                            "spiffe://td/web",
                            "--address",
                            "198.18.0.0/24",
                            "--address",
                            "fd00:5b::7",
                            "--port",
                            "80",
                            "--port",
                            "443",
                            "--service",
                            "10.96.0.10:80",
                            "--service",
                            "[2001:db8::10]:8443=443",
                            "--publish-address",
                            "--svid-ttl",
                            "10m",
                            "--ttl",
                            "90"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.out, "secret-token\n");
  EXPECT_THAT(made.err, AllOf(HasSubstr("spiffe://td/web"), HasSubstr("2026-01-01T00:10:00Z"),
                              Not(HasSubstr("secret"))));
  EXPECT_EQ(admin_.last_token.ttl_seconds(), 90);
  const v1::Entry& entry = admin_.last_token.entry();
  EXPECT_EQ(entry.spiffe_id(), "spiffe://td/web");
  EXPECT_THAT(entry.allowed_addresses(),
              ElementsAre("198.18.0.0/24", ::testing::StartsWith("fd00:5b::7")));
  EXPECT_THAT(entry.ports(), ElementsAre(80U, 443U));
  EXPECT_THAT(entry.services(), ElementsAre("10.96.0.10:80", "[2001:db8::10]:8443=443"));
  EXPECT_TRUE(entry.publish_connection_address());
  EXPECT_EQ(entry.svid_ttl_seconds(), 600);
  EXPECT_EQ(entry.selectors_size(), 0);
}

TEST_F(CliTest, WritesATokenAsJson) {
  const json made = json::parse(
      Ask({"token", "create", "--spiffe-id", "spiffe://td/web", "--output", "json"}).out);
  EXPECT_EQ(made["token"], "secret-token");
  EXPECT_EQ(made["expires_at"], "2026-01-01T00:10:00Z");
  EXPECT_EQ(made["entry"]["spiffe_id"], "spiffe://td/web");
}

TEST_F(CliTest, NamesTheFlagOfABadEntry) {
  const auto error = [this](std::vector<std::string> flags) {
    std::vector<std::string> line = {"token", "create"};
    line.insert(line.end(), flags.begin(), flags.end());
    const Outcome outcome = Ask(line);
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.out, IsEmpty());
    return outcome.err;
  };
  EXPECT_THAT(error({"--spiffe-id", "http://td/web"}), HasSubstr("--spiffe-id"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td"}), HasSubstr("has a path"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td/a", "--address", "10.0.0.1/8"}),
              HasSubstr("--address"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td/a", "--ttl", "soon"}), HasSubstr("--ttl 'soon'"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td/a", "--port", "0"}), HasSubstr("--port"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td/a", "--port", "65536"}), HasSubstr("--port"));
  EXPECT_THAT(error({"--spiffe-id", "spiffe://td/a", "--service", "db:80"}),
              HasSubstr("--service: 'db:80' is no service"));
}

TEST_F(CliTest, MakesListsAndDeletesEntries) {
  EXPECT_EQ(Ask({"entry", "create", "--spiffe-id", "spiffe://td/a"}).status, 2);  // no selector
  ASSERT_EQ(Ask({"entry", "create", "--spiffe-id", "spiffe://td/a", "--selector", "unix:uid:1000",
                 "--selector", "unix:path:/usr/bin/a"})
                .status,
            0);
  ASSERT_EQ(
      Ask({"entry", "create", "--spiffe-id", "spiffe://td/b", "--selector", "unix:uid:1"}).status,
      0);
  EXPECT_THAT(admin_.entries[0].selectors(), ElementsAre("unix:uid:1000", "unix:path:/usr/bin/a"));
  EXPECT_THAT(Ask({"entry", "list"}).out,
              AllOf(HasSubstr("entry-1  spiffe://td/a"), HasSubstr("entry-2  spiffe://td/b")));
  const json one =
      json::parse(Ask({"entry", "list", "--spiffe-id", "spiffe://td/b", "--output", "json"}).out);
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0]["id"], "entry-2");
  EXPECT_EQ(Ask({"entry", "delete", "entry-1"}).status, 0);
  EXPECT_EQ(admin_.entries.size(), 1U);
  const Outcome again = Ask({"entry", "delete", "entry-1"});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("no entry entry-1"));
}

TEST_F(CliTest, EnrolsAMemberByItsPublicKeyOrACertificate) {
  const x509::PkeyPtr key = *x509::GenerateMemberKey(x509::MemberKeyType::kEd25519);
  const std::string selector =
      x509::MemberKeySelector(base::AsBytes(*x509::MemberKeyToDer(key.get())));
  const std::string pem = File("member.pub", *x509::MemberKeyToPem(key.get()));
  const Outcome made =
      Ask({"entry", "create", "--spiffe-id", "spiffe://td/a", "--member-key", pem});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(admin_.entries[0].selectors(), ElementsAre(selector));
  EXPECT_THAT(Ask({"entry", "list"}).out, HasSubstr("member key " + selector.substr(4)));
  const json listed = json::parse(Ask({"entry", "list", "--output", "json"}).out);
  EXPECT_EQ(listed[0]["member_key"], selector.substr(4));
  EXPECT_EQ(listed[0]["selectors"][0], selector);

  const auto minted = testing::TestCa("td").Mint("spiffe://td/b");
  EXPECT_EQ(Ask({"entry", "create", "--spiffe-id", "spiffe://td/b", "--member-key",
                 File("cert.pem", x509::CertificateToPem(minted.leaf()))})
                .status,
            0);
  EXPECT_THAT(
      admin_.entries[1].selectors(),
      ElementsAre(x509::MemberKeySelector(base::AsBytes(*x509::MemberKeyToDer(minted.key.get())))));
}

TEST_F(CliTest, RefusesWhatIsNoMembersKeyAndNamesTheFlag) {
  const auto error = [this](std::vector<std::string> flags, int status) {
    std::vector<std::string> line = {"entry", "create", "--spiffe-id", "spiffe://td/a"};
    line.insert(line.end(), flags.begin(), flags.end());
    const Outcome outcome = Ask(line);
    EXPECT_EQ(outcome.status, status);
    EXPECT_THAT(outcome.out, IsEmpty());
    return outcome.err;
  };
  const x509::PkeyPtr key = testing::MakeKey(testing::KeyType::kEd25519);
  const testing::Minted of_rsa = [] {
    testing::CertificateSpec spec = testing::LeafSpec("spiffe://td/a");
    spec.key_type = testing::KeyType::kRsa2048;
    return testing::TestCa("td").Mint(spec);
  }();
  EXPECT_THAT(error({"--member-key", File("key.pem", testing::KeyPem(key.get()))}, 2),
              AllOf(HasSubstr("--member-key"), HasSubstr("the member's alone")));
  EXPECT_THAT(error({"--member-key", File("rsa.pem", of_rsa.ChainPem())}, 2),
              HasSubstr("Ed25519 or P-256"));
  EXPECT_THAT(error({"--member-key", File("junk.pem", "junk")}, 2), HasSubstr("--member-key"));
  EXPECT_THAT(error({"--member-key", admin_.directory() + "/nowhere"}, 1), HasSubstr("nowhere"));
  EXPECT_THAT(error({"--member-key", "x", "--selector", "unix:uid:1"}, 2),
              HasSubstr("one of --selector and --member-key"));
  EXPECT_THAT(error({}, 2), HasSubstr("one of --selector and --member-key"));
  EXPECT_THAT(admin_.entries, IsEmpty());
}

TEST_F(CliTest, MakesAMembersKeyThatOnlyItsOwnerReads) {
  for (const char* type : {"ed25519", "p256"}) {
    const std::string path = admin_.directory() + "/" + type;
    const Outcome made = RunWith({"member", "keygen", "--out", path, "--type", type});
    ASSERT_EQ(made.status, 0) << made.err;
    struct stat facts {};
    ASSERT_EQ(stat(path.c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600U);
    std::ifstream file(path);
    const std::string pem((std::istreambuf_iterator<char>(file)), {});
    const auto key = x509::PrivateKeyFromPem(pem);
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(made.out, *x509::MemberKeyToPem(key->get()));
    EXPECT_THAT(
        made.err,
        HasSubstr(x509::MemberKeySelector(base::AsBytes(*x509::MemberKeyToDer(key->get())))));
    EXPECT_THAT(made.out + made.err, Not(HasSubstr("PRIVATE")));

    const Outcome again = RunWith({"member", "keygen", "--out", path, "--type", type});
    EXPECT_EQ(again.status, 1);
    EXPECT_THAT(again.err, HasSubstr("--out"));
    std::ifstream still(path);
    EXPECT_EQ(std::string((std::istreambuf_iterator<char>(still)), {}), pem);
  }
  EXPECT_EQ(RunWith({"member", "keygen"}).status, 2);
  EXPECT_EQ(RunWith({"member", "keygen", "--out", "x", "--type", "rsa"}).status, 2);
}

TEST_F(CliTest, SaysWhatIsWrongWithTheSocket) {
  const Outcome missing =
      RunWith({"entry", "list", "--socket", admin_.directory() + "/other.sock"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.err, AllOf(HasSubstr("--socket"), HasSubstr("postern-identity")));
  const Outcome file = RunWith({"entry", "list", "--socket", File("plain", "")});
  EXPECT_EQ(file.status, 1);
  EXPECT_THAT(file.err, HasSubstr("nobody listens"));
  EXPECT_EQ(RunWith({"entry", "list", "--socket", std::string(200, 'x')}).status, 2);
}

TEST_F(CliTest, PassesOnWhyTheIssuerRefused) {
  admin_.refuse = "uid 1000 is not root";
  const Outcome outcome = Ask({"token", "create", "--spiffe-id", "spiffe://td/web"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("the issuer refused: uid 1000 is not root"));
}

TEST_F(CliTest, ShowsRootsInTheFormsThatTheProxyTakes) {
  const testing::TestCa ca("td");
  v1::TrustBundle* bundle = admin_.bundles.add_bundles();
  bundle->set_trust_domain("td");
  bundle->add_root_der(x509::CertificateToDer(ca.root()));
  const std::string pin = "sha256:" + base::ToHex(x509::Sha256OfCertificate(ca.root()));
  EXPECT_EQ(Ask({"bundle", "show", "--output", "pin"}).out, pin + "\n");
  EXPECT_EQ(Ask({"bundle", "show", "--output", "pem"}).out, x509::CertificateToPem(ca.root()));
  EXPECT_THAT(Ask({"bundle", "show"}).out, AllOf(HasSubstr("td\n"), HasSubstr(pin)));
  EXPECT_EQ(json::parse(Ask({"bundle", "show", "--output", "json"}).out)["roots"][0]["pin"], pin);
}

TEST_F(CliTest, ShowsTheRootsOfOneTrustDomainAtATime) {
  const testing::TestCa own("td");
  const testing::TestCa foreign("other");
  for (const testing::TestCa* ca : {&own, &foreign}) {
    v1::TrustBundle* bundle = admin_.bundles.add_bundles();
    bundle->set_trust_domain(ca->trust_domain().name());
    bundle->add_root_der(x509::CertificateToDer(ca->root()));
  }
  EXPECT_EQ(Ask({"bundle", "show", "--output", "pem"}).out, x509::CertificateToPem(own.root()))
      << "what goes into --issuer-bundle holds no foreign root";
  EXPECT_EQ(Ask({"bundle", "show", "--output", "pem", "--domain", "other"}).out,
            x509::CertificateToPem(foreign.root()));
  const json document =
      json::parse(Ask({"bundle", "show", "--output", "spiffe", "--domain", "other"}).out);
  EXPECT_EQ(document["keys"].size(), 1U);
  EXPECT_EQ(document["keys"][0]["use"], "x509-svid");
  const Outcome none = Ask({"bundle", "show", "--domain", "third"});
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("no roots of 'third'"));
}

TEST_F(CliTest, ListsWhatIsHeldOfEachTrustDomainAndHowOldItIs) {
  v1::BundleList::Bundle* own = admin_.bundle_list.add_bundles();
  own->set_trust_domain("td");
  own->set_own(true);
  own->add_root_der("x");
  v1::BundleList::Bundle* foreign = admin_.bundle_list.add_bundles();
  foreign->set_trust_domain("other");
  foreign->add_root_der("x");
  foreign->add_root_der("y");
  foreign->set_url("https://other:8443/");
  foreign->set_profile("https_spiffe");
  foreign->set_endpoint_id("spiffe://other/postern/identity");
  foreign->set_sequence(7);
  foreign->set_fetched_at(1767225600);
  foreign->set_age_seconds(90);
  foreign->set_refresh_seconds(300);
  foreign->set_last_error("connection refused");
  v1::BundleList::Bundle* never = admin_.bundle_list.add_bundles();
  never->set_trust_domain("third");
  never->set_age_seconds(-1);
  const Outcome text = Ask({"bundle", "list"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("our own"), HasSubstr("confirmed 1m30s ago"),
                              HasSubstr("never fetched"), HasSubstr("connection refused"),
                              HasSubstr("spiffe://other/postern/identity"),
                              HasSubstr("sequence   7"), HasSubstr("every 5m")));
  const json list = json::parse(Ask({"bundle", "list", "--output", "json"}).out)["bundles"];
  EXPECT_EQ(list[0]["own"], true);
  EXPECT_EQ(list[1]["age_seconds"], 90);
  EXPECT_EQ(list[1]["fetched_at"], "2026-01-01T00:00:00Z");
  EXPECT_TRUE(list[2]["age_seconds"].is_null());
  EXPECT_TRUE(list[2]["sequence"].is_null());
}

TEST_F(CliTest, RefreshesAllBundlesOrOne) {
  EXPECT_EQ(Ask({"bundle", "refresh"}).status, 0);
  EXPECT_EQ(admin_.last_refresh.trust_domain(), "");
  EXPECT_FALSE(admin_.last_refresh.accept_older());
  EXPECT_EQ(Ask({"bundle", "refresh", "--domain", "other", "--accept-older"}).status, 0);
  EXPECT_EQ(admin_.last_refresh.trust_domain(), "other");
  EXPECT_TRUE(admin_.last_refresh.accept_older());
  const Outcome all = Ask({"bundle", "refresh", "--accept-older"});
  EXPECT_EQ(all.status, 2);
  EXPECT_THAT(all.err, HasSubstr("--domain"));
  admin_.refuse = "bundle of other not refreshed";
  const Outcome failed = Ask({"bundle", "refresh"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("bundle of other not refreshed"));
}

constexpr char kPolicy[] = R"(apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: db-clients}
spec:
  workload: spiffe://td/db
  action: ALLOW
  rules:
    - from:
        - spiffeIds: ["spiffe://td/web"]
      to:
        - ports: [5432]
)";

TEST_F(CliTest, PutsAPolicyAndShowsIt) {
  const std::string file = File("policy.yaml", kPolicy);
  const Outcome put = Ask({"policy", "put", file});
  EXPECT_EQ(put.status, 0) << put.err;
  EXPECT_THAT(put.err, HasSubstr("1 document in force as policy version 0.1"));
  ASSERT_EQ(admin_.policy.documents_size(), 1);
  EXPECT_EQ(admin_.policy.documents(0).name(), file);
  EXPECT_EQ(admin_.policy.documents(0).yaml(), kPolicy);
  EXPECT_THAT(Ask({"policy", "show"}).out, HasSubstr("db-clients"));
  EXPECT_EQ(Ask({"policy", "put", "--none", file}).status, 2);
  EXPECT_EQ(Ask({"policy", "put", "--none"}).status, 0);
  EXPECT_EQ(admin_.policy.documents_size(), 0);
}

TEST_F(CliTest, SendsNoPolicyThatDoesNotParse) {
  const std::string good = File("good.yaml", kPolicy);
  const std::string bad = File("bad.yaml", "kind: AuthorizationPolicy\nspec: {acton: ALLOW}\n");
  const Outcome put = Ask({"policy", "put", good, bad});
  EXPECT_EQ(put.status, 2);
  EXPECT_THAT(put.err, HasSubstr("bad.yaml"));
  EXPECT_EQ(admin_.policy.documents_size(), 0);
  EXPECT_EQ(Ask({"policy", "put", admin_.directory() + "/none.yaml"}).status, 2);
}

TEST_F(CliTest, JudgesAConnectionWithoutAnIssuer) {
  const std::string file = File("policy.yaml", kPolicy);
  const auto check = [&file](const std::string& from, const std::string& to) {
    return RunWith({"policy", "check", "--from", from, "--to", to, "-f", file});
  };
  const Outcome allowed = check("spiffe://td/web", "spiffe://td/db:5432");
  EXPECT_EQ(allowed.status, 0) << allowed.err;
  EXPECT_THAT(allowed.out, AllOf(HasSubstr("allowed: "), HasSubstr("db-clients")));
  for (const Outcome& denied :
       {check("spiffe://td/web", "spiffe://td/db:22"),
        check("spiffe://td/batch", "spiffe://td/db:5432"), check("none", "spiffe://td/db:5432")}) {
    EXPECT_EQ(denied.status, 1);
    EXPECT_THAT(denied.out, HasSubstr("denied: "));
    EXPECT_THAT(denied.err, IsEmpty());
  }
  EXPECT_EQ(check("spiffe://td/web", "spiffe://td/db").status, 2);
  EXPECT_EQ(check("web", "spiffe://td/db:1").status, 2);
  EXPECT_EQ(
      RunWith({"policy", "check", "--from", "spiffe://td/x", "--to", "spiffe://td/db:1"}).status,
      0);
  EXPECT_EQ(
      RunWith({"policy", "check", "--from", "spiffe://other/x", "--to", "spiffe://td/db:1"}).status,
      1);
}

TEST_F(CliTest, ShowsCertificatesAndNoticesAnExpiredOne) {
  const testing::TestCa ca("td");
  const std::string file = File("svid.pem", ca.Mint("spiffe://td/web").ChainPem());
  const Outcome shown = RunWith({"cert", "show", file});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, AllOf(HasSubstr("spiffe://td/web\n"), HasSubstr(" left)")));
  EXPECT_EQ(json::parse(RunWith({"cert", "show", file, "--output", "json"}).out)[0]["spiffe_id"],
            "spiffe://td/web");
  testing::CertificateSpec old = testing::LeafSpec("spiffe://td/old");
  old.LivesFrom(absl::Now() - absl::Hours(48), absl::Hours(1));
  const Outcome expired = RunWith({"cert", "show", File("old.pem", ca.Mint(old).ChainPem())});
  EXPECT_EQ(expired.status, 1);
  EXPECT_THAT(expired.out, HasSubstr("PROBLEM expired"));
  EXPECT_EQ(RunWith({"cert", "show", File("x.pem", "nothing")}).status, 1);
  EXPECT_EQ(RunWith({"cert", "show", admin_.directory() + "/none.pem"}).status, 1);
}

TEST_F(CliTest, ShowsTheIssuersStatus) {
  admin_.status.set_trust_domain("td");
  v1::IssuerStatus::Proxy* proxy = admin_.status.add_proxies();
  proxy->set_spiffe_id("spiffe://td/web");
  proxy->set_address("198.18.0.1");
  EXPECT_THAT(Ask({"status", "--issuer"}).out,
              AllOf(HasSubstr("trust_domain: td\n"), HasSubstr("spiffe_id: spiffe://td/web")));
  EXPECT_EQ(
      json::parse(Ask({"status", "--issuer", "--output", "json"}).out)["proxies"][0]["address"],
      "198.18.0.1");
}

TEST_F(CliTest, SaysWhenNoProxyAnswers) {
  const Outcome status = RunWith({"status", "--admin", "127.0.0.1:1"});
  EXPECT_EQ(status.status, 1);
  EXPECT_THAT(status.err, HasSubstr("--admin 127.0.0.1:1: nobody answers"));
  EXPECT_EQ(RunWith({"status", "--admin", "nonsense"}).status, 2);
  const Outcome wait = RunWith({"wait", "--address", "127.0.0.1:1", "--timeout", "0"});
  EXPECT_EQ(wait.status, 1);
  EXPECT_THAT(wait.err, HasSubstr("not ready within 0 s"));
  EXPECT_EQ(RunWith({"wait", "--timeout", "long"}).status, 2);
}

TEST_F(CliTest, ReadsFlagsBeforeEnvironmentBeforeFile) {
  const std::string file =
      File("postern.toml", "[token.create]\nspiffe-id = \"spiffe://td/file\"\n");
  const std::vector<std::string> line = {"--config", file, "token", "create"};
  EXPECT_EQ(Ask(line).status, 0);
  EXPECT_EQ(admin_.last_token.entry().spiffe_id(), "spiffe://td/file");
  const Environment environment("POSTERN_SPIFFE_ID", "spiffe://td/environment");
  EXPECT_EQ(Ask(line).status, 0);
  EXPECT_EQ(admin_.last_token.entry().spiffe_id(), "spiffe://td/environment");
  EXPECT_EQ(Ask({"--config", file, "token", "create", "--spiffe-id", "spiffe://td/flag"}).status,
            0);
  EXPECT_EQ(admin_.last_token.entry().spiffe_id(), "spiffe://td/flag");
}

TEST_F(CliTest, SeparatesRepeatedValuesInTheEnvironmentByNewlines) {
  const Environment ports("POSTERN_PORT", "80\n443");
  EXPECT_EQ(Ask({"token", "create", "--spiffe-id", "spiffe://td/a"}).status, 0);
  EXPECT_THAT(admin_.last_token.entry().ports(), ElementsAre(80U, 443U));
}

TEST_F(CliTest, RefusesAConfigFileWithAnUnknownKey) {
  const std::string file = File("postern.toml", "nonsense = 1\n");
  EXPECT_EQ(Ask({"--config", file, "entry", "list"}).status, 2);
  const Outcome missing = Ask({"--config", admin_.directory() + "/none.toml", "entry", "list"});
  EXPECT_EQ(missing.status, 2);
  EXPECT_THAT(missing.err, HasSubstr("--config: "));
}

TEST_F(CliTest, RendersInterceptionRulesWithoutTouchingAnything) {
  const Outcome rules =
      RunWith({"intercept", "up", "--dry-run", "--proxy-uid", "901", "--exclude-outbound-port",
               "53", "--exclude-outbound-port", "123"});
  EXPECT_EQ(rules.status, 0) << rules.err;
  EXPECT_TRUE(json::parse(rules.out).contains("nftables"));
  EXPECT_THAT(rules.out, HasSubstr("[53,123]"));
  for (const std::vector<std::string>& flags : std::vector<std::vector<std::string>>{
           {},
           {"--proxy-uid", "no-such-user"},
           {"--proxy-uid", "1", "--exclude-cidr", "10.0.0.1/8"},
           {"--proxy-uid", "1", "--include-inbound-port", "http"},
           {"--proxy-uid", "1", "--mode", "tproxy", "--no-inbound"},
           {"--proxy-uid", "1", "--app-cgroup", "no-such.slice"},
           {"--proxy-uid", "1", "--pass-mark", "3"},
           {"--proxy-uid", "1", "--kill-existing", "--exclude-gid", "7"},
           {"--proxy-uid", "4294967295"}}) {
    std::vector<std::string> line = {"intercept", "up", "--dry-run"};
    line.insert(line.end(), flags.begin(), flags.end());
    const Outcome refused = RunWith(line);
    EXPECT_EQ(refused.status, 2) << ::testing::PrintToString(line);
    EXPECT_THAT(refused.err, HasSubstr("--")) << ::testing::PrintToString(line);
  }
}

}  // namespace
}  // namespace postern::cli
