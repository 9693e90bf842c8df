// SPDX-License-Identifier: Apache-2.0
// `postern ca`: the steps alone, and the whole rotation against an issuer that plays its part.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/cli/fake_admin.h"
#include "tests/unit/cli/run_command.h"

namespace postern::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CaCommandTest : public ::testing::Test {
 protected:
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "ca");
    arguments.push_back("--socket");
    arguments.push_back(admin_.socket());
    return RunWith(arguments);
  }
  // What the issuer tells, in this order.
  v1::CaStatus& Tell(const std::string& phase, v1::CaKind kind = v1::CA_KIND_ROOT) {
    v1::CaStatus status;
    status.set_phase(phase);
    if (phase != "none")
      status.set_kind(kind);
    status.mutable_bundle_version()->set_epoch(7);
    status.mutable_bundle_version()->set_sequence(2);
    admin_.ca_statuses.push_back(status);
    return admin_.ca_statuses.back();
  }
  std::vector<v1::RotationStep> Steps() const {
    std::vector<v1::RotationStep> steps;
    for (const v1::RotateCaRequest& request : admin_.ca_steps)
      steps.push_back(request.step());
    return steps;
  }

  FakeAdmin admin_;
};

TEST_F(CaCommandTest, ShowsTheCasAndWhoHasNotFollowed) {
  const testing::TestCa ca;
  v1::CaStatus& status = Tell("prepared");
  status.add_not_followed("spiffe://td/web 198.18.0.1");
  status.set_blocked("two proxies");
  status.add_warnings("the root is old");
  v1::CaStatus::Ca& root = *status.add_cas();
  root.set_id(std::string(64, 'a'));
  root.set_role("root");
  root.set_state("next");
  root.set_certificate_der(x509::CertificateToDer(ca.root()));
  EXPECT_THAT(Ask({"status"}).out,
              AllOf(HasSubstr("prepared, of the root"), HasSubstr("7.2"),
                    HasSubstr("  spiffe://td/web 198.18.0.1\n"), HasSubstr("held up: two proxies"),
                    HasSubstr("WARNING: the root is old\n"), HasSubstr("root aaaaaaaaaaaaaaaa\n"),
                    HasSubstr("elsewhere")));
  for (const auto& form : {std::vector<std::string>{"status", "--json"},
                           std::vector<std::string>{"status", "--output", "json"}}) {
    const json shown = json::parse(Ask(form).out);
    EXPECT_EQ(shown["phase"], "prepared");
    EXPECT_EQ(shown["kind"], "root");
    EXPECT_EQ(shown["not_followed"][0], "spiffe://td/web 198.18.0.1");
    EXPECT_EQ(shown["warnings"][0], "the root is old");
    EXPECT_EQ(shown["cas"][0]["state"], "next");
    EXPECT_EQ(shown["cas"][0]["key_present"], false);
    EXPECT_THAT(shown["cas"][0]["not_after"].get<std::string>(), HasSubstr("Z"));
  }
}

TEST_F(CaCommandTest, MakesEachStepAlone) {
  Tell("none");
  ASSERT_EQ(Ask({"prepare", "--kind", "root"}).status, 0);
  ASSERT_EQ(Ask({"activate", "--kind", "root", "--force"}).status, 0);
  ASSERT_EQ(Ask({"retire", "--kind", "intermediate"}).status, 0);
  ASSERT_EQ(Ask({"abort", "--kind", "intermediate"}).status, 0);
  EXPECT_THAT(Steps(), ElementsAre(v1::ROTATION_STEP_PREPARE, v1::ROTATION_STEP_ACTIVATE,
                                   v1::ROTATION_STEP_RETIRE, v1::ROTATION_STEP_ABORT));
  EXPECT_TRUE(admin_.ca_steps[1].force());
  EXPECT_FALSE(admin_.ca_steps[2].force());
  EXPECT_EQ(admin_.ca_steps[2].kind(), v1::CA_KIND_INTERMEDIATE);
  admin_.refuse = "not yet";
  const Outcome refused = Ask({"activate", "--kind", "root"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("not yet"));
  EXPECT_EQ(Ask({"prepare"}).status, 2) << "without --kind";
  EXPECT_EQ(Ask({"prepare", "--kind", "leaf"}).status, 2);
  EXPECT_EQ(Ask({"prepare", "--kind", "root", "--force"}).status, 2);
}

TEST_F(CaCommandTest, RotatesAsAWholeAndTellsWhomItWaitsFor) {
  Tell("none");
  Tell("prepared").add_not_followed("spiffe://td/slow 198.18.0.9");
  Tell("prepared");
  Tell("prepared");
  Tell("active").set_old_certificates_until(1767226200);
  Tell("active");
  Tell("active");
  const Outcome whole = Ask({"rotate", "--kind", "root"});
  EXPECT_EQ(whole.status, 0) << whole.err;
  EXPECT_THAT(Steps(), ElementsAre(v1::ROTATION_STEP_PREPARE, v1::ROTATION_STEP_ACTIVATE,
                                   v1::ROTATION_STEP_RETIRE));
  EXPECT_THAT(whole.out,
              AllOf(HasSubstr("prepared: "), HasSubstr("waiting for 1 connected proxies"),
                    HasSubstr("  spiffe://td/slow 198.18.0.9\n"), HasSubstr("activated: "),
                    HasSubstr("2026-01-01T00:10:00Z"), HasSubstr("retired: ")));
}

TEST_F(CaCommandTest, GoesOnWithARotationThatIsUnderWay) {
  Tell("active", v1::CA_KIND_INTERMEDIATE);
  const Outcome whole = Ask({"rotate", "--kind", "intermediate"});
  EXPECT_EQ(whole.status, 0) << whole.err;
  EXPECT_THAT(whole.out, HasSubstr("going on with the rotation that is active"));
  EXPECT_THAT(Steps(), ElementsAre(v1::ROTATION_STEP_RETIRE));
}

TEST_F(CaCommandTest, DoesNotTakeOneRotationForAnother) {
  Tell("prepared", v1::CA_KIND_INTERMEDIATE);
  const Outcome whole = Ask({"rotate", "--kind", "root"});
  EXPECT_EQ(whole.status, 1);
  EXPECT_THAT(whole.err, HasSubstr("a rotation of the intermediate is under way"));
  EXPECT_TRUE(Steps().empty());
}

TEST_F(CaCommandTest, GivesUpWhenItsTimeIsOverAndLeavesTheRotationWhereItIs) {
  Tell("prepared").add_not_followed("spiffe://td/dead 198.18.0.9");
  const Outcome whole = Ask({"rotate", "--kind", "root", "--timeout", "0"});
  EXPECT_EQ(whole.status, 1);
  EXPECT_THAT(whole.err, AllOf(HasSubstr("spiffe://td/dead"), HasSubstr("run again goes on")));
  EXPECT_THAT(Steps(), ElementsAre(v1::ROTATION_STEP_PREPARE)) << "which is safe to repeat";
}

TEST_F(CaCommandTest, SaysWhatIsWrongWithTheSocketAtOnce) {
  const Outcome refused =
      RunWith({"ca", "rotate", "--kind", "root", "--socket", "/nowhere/x.sock"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("no such socket"));
}

}  // namespace
}  // namespace postern::cli
