// SPDX-License-Identifier: Apache-2.0
// `postern revoke`: what it asks the issuer for, and what it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/cli/fake_admin.h"
#include "tests/unit/cli/run_command.h"

namespace postern::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class RevokeTest : public ::testing::Test {
 protected:
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "revoke");
    arguments.insert(arguments.end(), {"--socket", admin_.socket()});
    return RunWith(arguments);
  }
  std::string File(const std::string& name, const std::string& content) {
    const std::string path = admin_.directory() + "/" + name;
    std::ofstream(path) << content;
    return path;
  }

  FakeAdmin admin_;
};

TEST_F(RevokeTest, RevokesAnIdentityAndPrintsItsNumber) {
  const Outcome made =
      Ask({"--spiffe-id", "spiffe://example.org/web", "--reason", "laptop stolen"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.out, "17\n");
  EXPECT_THAT(made.err, HasSubstr("2 of 2 connected proxies have applied it"));
  EXPECT_THAT(made.err, Not(HasSubstr("mistake")));
  EXPECT_EQ(admin_.last_revocation.spiffe_id(), "spiffe://example.org/web");
  EXPECT_EQ(admin_.last_revocation.reason(), "laptop stolen");
}

TEST_F(RevokeTest, SaysWhenAProxyHasNotFollowedAndWhenNothingIsNamed) {
  admin_.followed = 1;
  const Outcome made = Ask({"--serial", "0A:B1", "--reason", "r", "--output", "json"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(base::ToHex(base::AsBytes(admin_.last_revocation.serial())), "0ab1");
  EXPECT_THAT(made.err, HasSubstr("1 of 2"));
  EXPECT_THAT(made.err, HasSubstr("postern status --issuer"));
  EXPECT_THAT(made.err, HasSubstr("look for a mistake"));
  const json said = json::parse(made.out);
  EXPECT_EQ(said["number"], 17);
  EXPECT_EQ(said["acknowledged"], 1);
}

TEST_F(RevokeTest, TakesAKeysHashAndACaAsFileOrHash) {
  const postern::testing::TestCa ca;
  const auto digest = x509::Sha256OfCertificate(ca.root());
  const std::string hex = base::ToHex(digest);
  EXPECT_EQ(Ask({"--key-sha256", "sha256:" + hex, "--reason", "r"}).status, 0);
  EXPECT_EQ(admin_.last_revocation.key_sha256(), base::AsText(digest));
  for (const std::string& issuer :
       {hex, File("ca.pem", ca.RootPem()), File("ca.der", x509::CertificateToDer(ca.root()))}) {
    admin_.last_revocation.Clear();
    const Outcome made = Ask({"--issuer", issuer, "--reason", "r"});
    EXPECT_EQ(made.status, 0) << made.err;
    EXPECT_EQ(admin_.last_revocation.issuer_sha256(), base::AsText(digest)) << issuer;
  }
}

TEST_F(RevokeTest, RefusesWhatIsNoRevocation) {
  const postern::testing::TestCa ca;
  const std::string leaf = File("leaf.pem", ca.Mint("spiffe://example.org/web").ChainPem());
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--reason", "r"},
           {"--spiffe-id", "spiffe://example.org/web"},
           {"--spiffe-id", "spiffe://example.org", "--reason", "r"},
           {"--spiffe-id", "spiffe://example.org/web", "--serial", "01", "--reason", "r"},
           {"--serial", "xyz", "--reason", "r"},
           {"--key-sha256", "abcd", "--reason", "r"},
           {"--issuer", "/nonexistent", "--reason", "r"},
           {"--issuer", leaf, "--reason", "r"}}) {
    const Outcome refused = Ask(words);
    EXPECT_EQ(refused.status, 2) << ::testing::PrintToString(words);
    EXPECT_THAT(refused.err, HasSubstr("--")) << ::testing::PrintToString(words);
  }
  EXPECT_THAT(admin_.revocations.revocations(), IsEmpty());
}

TEST_F(RevokeTest, TakesNothingThatIsToBeRevokedFromTheEnvironment) {
  ASSERT_EQ(setenv("POSTERN_ISSUER", "issuer.example:15012", 1), 0);
  const Outcome made = Ask({"--spiffe-id", "spiffe://example.org/web", "--reason", "r"});
  unsetenv("POSTERN_ISSUER");
  EXPECT_EQ(made.status, 0) << made.err;
}

TEST_F(RevokeTest, ListsAndLifts) {
  EXPECT_THAT(Ask({"list"}).err, HasSubstr("nothing is revoked"));
  Ask({"--spiffe-id", "spiffe://example.org/web", "--reason", "two\nlines"});
  const Outcome listed = Ask({"list"});
  EXPECT_EQ(listed.status, 0) << listed.err;
  EXPECT_THAT(listed.out, AllOf(HasSubstr("17  spiffe_id spiffe://example.org/web"),
                                HasSubstr("until it is lifted"), HasSubstr("two\\x0alines")));
  const json document = json::parse(Ask({"list", "--output", "json"}).out);
  EXPECT_EQ(document["revocations"][0]["number"], 17);
  EXPECT_EQ(Ask({"lift", "16"}).status, 1);
  const Outcome lifted = Ask({"lift", "17"});
  EXPECT_EQ(lifted.status, 0) << lifted.err;
  EXPECT_THAT(lifted.err, HasSubstr("revocation 17 is lifted"));
  EXPECT_EQ(admin_.revocations.revocations_size(), 0);
}

}  // namespace
}  // namespace postern::cli
