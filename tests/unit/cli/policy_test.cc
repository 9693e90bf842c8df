// SPDX-License-Identifier: Apache-2.0
// `postern policy check` and `test`: the data plane's own judgement, asked beforehand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/file.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/cli/run_command.h"

namespace postern::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kPolicy[] = R"(apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: db-clients}
spec:
  workload: spiffe://td/db
  action: ALLOW
  rules:
    - from: [{spiffeIds: ["spiffe://td/web"]}]
      to: [{ports: [5432]}]
    - from: [{cidrs: [10.1.0.0/16]}]
      to: [{ports: [9000]}]
---
apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: no-web}
spec:
  action: DENY
  mode: audit
  rules:
    - from: [{spiffeIds: ["spiffe://td/web"]}]
---
apiVersion: postern.dev/v1
kind: PeerMode
metadata: {name: modes}
spec: {workload: spiffe://td/db, ports: {"9000": permissive, "9001": strict}}
---
apiVersion: postern.dev/v1
kind: ProbeExemption
metadata: {name: kubelet}
spec: {ports: [9001], cidrs: [192.0.2.1]}
)";

class PolicyTest : public ::testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& text) {
    const std::string path = directory_.Path(name);
    EXPECT_TRUE(base::WriteFileAtomically(path, text, 0600).ok());
    return path;
  }
  Outcome Check(const std::vector<std::string>& more) {
    std::vector<std::string> words = {"policy", "check", "-f", policy_};
    words.insert(words.end(), more.begin(), more.end());
    return RunWith(words);
  }
  std::string Expectations(const std::string& items) {
    return "apiVersion: postern.dev/v1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n"
           "  policies: [policy.yaml]\n  expectations:\n" +
           items;
  }
  Outcome Test(const std::string& items) {
    return RunWith({"policy", "test", File("expect.yaml", Expectations(items))});
  }

  testing::TempDir directory_;
  const std::string policy_ = File("policy.yaml", kPolicy);
};

TEST_F(PolicyTest, CheckNamesTheRuleAndWhereItStands) {
  const Outcome allowed = Check({"--from", "spiffe://td/web", "--to", "spiffe://td/db:5432"});
  EXPECT_EQ(allowed.status, 0) << allowed.err;
  EXPECT_THAT(allowed.out, HasSubstr("allowed: db-clients / rule 1, " + policy_ + ":8\n"));
  EXPECT_THAT(allowed.out,
              HasSubstr("audit: would be denied: no-web / rule 1, " + policy_ + ":20\n"));
}

TEST_F(PolicyTest, CheckJudgesByTheModeOfThePort) {
  const Outcome metrics =
      Check({"--from", "none", "--source-ip", "10.1.2.3", "--to", "spiffe://td/db:9000"});
  EXPECT_EQ(metrics.status, 0) << metrics.err;
  EXPECT_THAT(metrics.out, HasSubstr("mode of the port: permissive"));
  const Outcome strict =
      Check({"--from", "none", "--source-ip", "10.1.2.3", "--to", "spiffe://td/db:9001"});
  EXPECT_EQ(strict.status, 1);
  EXPECT_THAT(strict.out, HasSubstr("denied: the port's mode is strict"));
  const Outcome probe =
      Check({"--from", "none", "--source-ip", "192.0.2.1", "--to", "spiffe://td/db:9001"});
  EXPECT_EQ(probe.status, 0);
  EXPECT_THAT(probe.out, HasSubstr("allowed: kubelet / probe exemption, "));
  // Of a port that the documents say nothing of, the flag does.
  EXPECT_THAT(Check({"--from", "none", "--to", "spiffe://td/db:1", "--peer-mode", "skip"}).out,
              HasSubstr("allowed: the port is skipped"));
  EXPECT_EQ(Check({"--from", "none", "--to", "spiffe://td/db:1", "--peer-mode", "open"}).status, 2);
}

TEST_F(PolicyTest, CheckNamesTheFlagOrThePlaceOfAFault) {
  EXPECT_THAT(Check({"--from", "web", "--to", "spiffe://td/db:1"}).err, HasSubstr("--from: "));
  for (const char* const to : {"spiffe://td/db", "spiffe://td/db:", "spiffe://td/db:0", "5432"}) {
    EXPECT_THAT(Check({"--from", "none", "--to", to}).err, HasSubstr("--to: ")) << to;
  }
  const std::string bad = File("bad.yaml",
                               "apiVersion: postern.dev/v1\nkind: PeerMode\n"
                               "metadata: {name: m}\nspec: {default: lax}\n");
  const Outcome fault =
      RunWith({"policy", "check", "-f", bad, "--from", "none", "--to", "spiffe://td/db:1"});
  EXPECT_EQ(fault.status, 2);
  EXPECT_THAT(fault.err, HasSubstr(bad + ":4: spec.default: "));
}

TEST_F(PolicyTest, TestPassesWhenEverythingHolds) {
  const Outcome done = Test(
      "    - {from: spiffe://td/web, to: \"spiffe://td/db:5432\", expect: audit,"
      " rule: no-web / rule 1}\n"
      "    - {from: none, sourceIp: 10.1.2.3, to: \"spiffe://td/db:9000\", expect: allow,"
      " rule: db-clients / rule 2}\n"
      "    - {from: spiffe://td/batch, to: \"spiffe://td/db:5432\", expect: deny}\n"
      "    - {from: none, to: \"spiffe://td/other:80\", mode: strict, expect: deny}\n"
      "    - {from: spiffe://td/batch, to: \"spiffe://td/other:80\", expect: allow}\n");
  EXPECT_EQ(done.status, 0) << done.out << done.err;
  EXPECT_THAT(done.out, IsEmpty());
  EXPECT_THAT(done.err, HasSubstr("5 expectations, 0 failed"));
}

TEST_F(PolicyTest, TestNamesTheLineOfEachFailureAndTheRuleThatDecided) {
  const Outcome done = Test(
      "    - {from: spiffe://td/web, to: \"spiffe://td/db:5432\", expect: deny}\n"
      "    - {from: spiffe://td/batch, to: \"spiffe://td/db:5432\", expect: allow}\n"
      "    - {from: none, sourceIp: 10.1.2.3, to: \"spiffe://td/db:9000\", expect: allow,"
      " rule: db-clients / rule 1}\n"
      "    - {from: spiffe://td/batch, to: \"spiffe://td/db:5432\", expect: deny}\n");
  EXPECT_EQ(done.status, 1);
  const std::string file = directory_.Path("expect.yaml");
  EXPECT_THAT(done.out,
              AllOf(HasSubstr(file +
                              ":7: spiffe://td/web to spiffe://td/db:5432: expected deny, "
                              "but it is let in, though it would be refused by "
                              "no-web / rule 1 (" +
                              policy_ + ":20)"),
                    HasSubstr(file + ":8: "), HasSubstr("denied by no ALLOW rule matched"),
                    HasSubstr(file + ":9: "),
                    HasSubstr("expected db-clients / rule 1 to decide, but it is allowed by "
                              "db-clients / rule 2 (" +
                              policy_ + ":10)"),
                    Not(HasSubstr(":10: spiffe"))));
  EXPECT_THAT(done.err, HasSubstr("4 expectations, 3 failed"));
}

TEST_F(PolicyTest, TestRefusesFilesThatAreNotAsTheyMustBe) {
  const std::string file = directory_.Path("expect.yaml");
  const Outcome word = Test("    - {from: none, to: \"spiffe://td/db:1\", expect: yes}\n");
  EXPECT_EQ(word.status, 2);
  EXPECT_THAT(word.err, HasSubstr(file + ":7: spec.expectations[0].expect: 'yes' is not one of"));
  const Outcome target = Test("    - {from: none, to: spiffe://td/db, expect: deny}\n");
  EXPECT_EQ(target.status, 2);
  EXPECT_THAT(target.err, HasSubstr(file + ":7: to: "));
  const Outcome kind = RunWith({"policy", "test", policy_});
  EXPECT_EQ(kind.status, 2);
  EXPECT_THAT(kind.err, HasSubstr("PolicyTest"));
  EXPECT_EQ(RunWith({"policy", "test", directory_.Path("none.yaml")}).status, 2);
  // Without any expectation nothing would be tested, and nobody would notice.
  EXPECT_EQ(Test("    []\n").status, 2);
}

}  // namespace
}  // namespace postern::cli
