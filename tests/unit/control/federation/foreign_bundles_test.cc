// SPDX-License-Identifier: Apache-2.0
#include "control/federation/foreign_bundles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/control/federation/neighbours.h"

namespace postern::federation {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestCa;

class ForeignBundlesTest : public ::testing::Test {
 protected:
  ForeignBundlesTest() {
    store_ = *store::OpenMemoryStore(Td("a.test"), clock_);
    Serve("b.test", b_, 5);
  }

  // What the endpoint of a trust domain answers from now on.
  void Serve(const std::string& host, const TestCa& ca, std::optional<uint64_t> sequence,
             absl::Duration hint = absl::Minutes(10)) {
    answers_.insert_or_assign(host, x509::SpiffeBundleToJson(ca.Bundle(), sequence, hint));
  }
  void Serve(const std::string& host, absl::StatusOr<std::string> answer) {
    answers_.insert_or_assign(host, std::move(answer));
  }

  absl::Status Open(const std::vector<std::string>& specs) {
    ForeignBundles::Options options{.own = Td("a.test"), .specs = {}};
    for (const std::string& text : specs) {
      options.specs.push_back(*FederationSpec::Parse(text));
    }
    options.own_bundles = [this] {
      return std::make_shared<const x509::TrustBundleSet>(a_.BundleSet());
    };
    options.fetch = [this](const HttpsUrl& url, const ServerTrust& trust) {
      trusts_.push_back(trust);
      return answers_.at(url.host);
    };
    bundles_.reset();
    auto opened = ForeignBundles::Create(std::move(options), store_->foreign_bundles(), clock_);
    if (!opened.ok()) {
      return opened.status();
    }
    bundles_ = *std::move(opened);
    bundles_->SetOnChange([this] { ++changes_; });
    return absl::OkStatus();
  }
  std::string OpenRefusal(const std::vector<std::string>& specs) {
    const absl::Status status = Open(specs);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(base::Message(status));
  }
  ForeignStatus Only() const {
    const std::vector<ForeignStatus> all = bundles_->Status();
    EXPECT_THAT(all, SizeIs(1));
    return all.front();
  }
  uint64_t Count(FetchResult result) const { return Only().fetches[static_cast<size_t>(result)]; }
  static std::string Der(const TestCa& ca) { return x509::CertificateToDer(ca.root()); }
  // The next fetch is refused for this reason, and what is held stays.
  void ExpectRefused(FetchResult result, std::string_view why) {
    const ForeignStatus before = Only();
    const int changes = changes_;
    const absl::Status refreshed = bundles_->Refresh("b.test", false);
    EXPECT_FALSE(refreshed.ok());
    EXPECT_THAT(std::string(base::Message(refreshed)),
                AllOf(HasSubstr(std::string(Token(result))), HasSubstr(std::string(why))));
    const ForeignStatus after = Only();
    EXPECT_EQ(after.fetches[static_cast<size_t>(result)],
              before.fetches[static_cast<size_t>(result)] + 1);
    EXPECT_EQ(after.root_der, before.root_der);
    EXPECT_EQ(after.sequence, before.sequence);
    EXPECT_EQ(after.fetched_at, before.fetched_at);
    EXPECT_THAT(after.last_error, HasSubstr(std::string(why)));
    EXPECT_EQ(changes_, changes);
  }

  fakes::FakeClock clock_;
  testing::TempDir dir_;
  TestCa a_{"a.test"};
  TestCa b_{"b.test"};
  TestCa b_next_{"b.test"};
  std::unique_ptr<store::Store> store_;
  std::map<std::string, absl::StatusOr<std::string>> answers_;
  std::vector<ServerTrust> trusts_;  // of each fetch
  std::unique_ptr<ForeignBundles> bundles_;
  int changes_ = 0;
};

TEST_F(ForeignBundlesTest, HoldsWhatItFetchedAndSaysHowOldItIs) {
  ASSERT_TRUE(Open({kWeb}).ok());
  EXPECT_THAT(Only().root_der, IsEmpty());
  EXPECT_EQ(Only().fetched_at, absl::InfinitePast());
  bundles_->RunDue();
  const ForeignStatus held = Only();
  EXPECT_THAT(held.root_der, ElementsAre(Der(b_)));
  EXPECT_EQ(held.sequence, 5U);
  EXPECT_EQ(held.refresh, absl::Minutes(10));
  EXPECT_EQ(held.fetched_at, clock_.Now());
  EXPECT_EQ(held.last_error, "");
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(Count(FetchResult::kOk), 1U);
  EXPECT_FALSE(trusts_.front().id.has_value()) << "https_web goes by the host name";
}

TEST_F(ForeignBundlesTest, FetchesAgainWhenTheHintSaysWithinItsBounds) {
  for (const auto& [hint, interval] : {std::pair(absl::Minutes(10), absl::Minutes(10)),
                                       std::pair(absl::Seconds(1), kShortestRefresh),
                                       std::pair(absl::Hours(100), kLongestRefresh)}) {
    Serve("b.test", b_, 5, hint);
    ASSERT_TRUE(Open({kWeb}).ok());
    bundles_->RunDue();
    clock_.Advance(interval * 0.89);
    bundles_->RunDue();
    EXPECT_EQ(Count(FetchResult::kOk), 1U) << hint;
    clock_.Advance(interval * 0.22);
    bundles_->RunDue();
    EXPECT_EQ(Count(FetchResult::kOk), 2U) << hint;
  }
}

TEST_F(ForeignBundlesTest, ABundleThatIsConfirmedIsYoungAgainAndNoChange) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  clock_.Advance(absl::Minutes(11));
  bundles_->RunDue();
  EXPECT_EQ(Only().fetched_at, clock_.Now());
  EXPECT_EQ(changes_, 1);
}

TEST_F(ForeignBundlesTest, AFailureKeepsTheLastGoodOneAndIsTriedAgainSooner) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  Serve("b.test", absl::UnavailableError("connection refused"));
  ExpectRefused(FetchResult::kUnreachable, "connection refused");
  clock_.Advance(kFirstRetry * 0.85);
  bundles_->RunDue();
  EXPECT_EQ(Count(FetchResult::kUnreachable), 1U);
  clock_.Advance(kFirstRetry * 0.3);
  bundles_->RunDue();
  EXPECT_EQ(Count(FetchResult::kUnreachable), 2U);
  clock_.Advance(kFirstRetry * 1.2);  // doubled by now
  bundles_->RunDue();
  EXPECT_EQ(Count(FetchResult::kUnreachable), 2U);
  Serve("b.test", b_next_, 6);
  clock_.Advance(kFirstRetry);
  bundles_->RunDue();
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_next_)));
  EXPECT_EQ(Only().last_error, "");
}

TEST_F(ForeignBundlesTest, EveryKindOfRefusalHasItsReasonAndChangesNothing) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  Serve("b.test", absl::DeadlineExceededError("no answer"));
  ExpectRefused(FetchResult::kUnreachable, "no answer");
  Serve("b.test", absl::DataLossError("it was cut"));
  ExpectRefused(FetchResult::kUnreachable, "it was cut");
  Serve("b.test", absl::UnauthenticatedError("hostname mismatch"));
  ExpectRefused(FetchResult::kUntrusted, "hostname mismatch");
  Serve("b.test", absl::FailedPreconditionError("status 404"));
  ExpectRefused(FetchResult::kBadAnswer, "status 404");
  Serve("b.test", absl::ResourceExhaustedError("too large"));
  ExpectRefused(FetchResult::kBadAnswer, "too large");
  Serve("b.test", std::string("<html>"));
  ExpectRefused(FetchResult::kBadDocument, "JSON");
  Serve("b.test", b_.BundleSet().ToSpiffeJson());
  ExpectRefused(FetchResult::kBadDocument, "map of trust domains");
  std::string json = x509::SpiffeBundleToJson(b_.Bundle(), 9, std::nullopt);
  json.replace(json.find("x5c"), 3, "y5c");
  Serve("b.test", json);
  ExpectRefused(FetchResult::kBadDocument, "x5c");
}

TEST_F(ForeignBundlesTest, ASequenceThatGoesBackIsRefusedUnlessTheOperatorTakesIt) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  Serve("b.test", b_next_, 4);
  ExpectRefused(FetchResult::kOlderSequence, "from 5 to 4");
  Serve("b.test", b_next_, std::nullopt);
  ExpectRefused(FetchResult::kOlderSequence, "from 5 to none");
  ASSERT_TRUE(Open({kWeb}).ok()) << "a restart forgets no sequence";
  ExpectRefused(FetchResult::kOlderSequence, "from 5 to none");
  Serve("b.test", b_next_, 4);
  EXPECT_TRUE(bundles_->Refresh("b.test", true).ok());
  EXPECT_EQ(Only().sequence, 4U);
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_next_)));
}

TEST_F(ForeignBundlesTest, ABundleThatClaimsOurTrustDomainIsRefused) {
  EXPECT_THAT(OpenRefusal({"trust-domain=a.test,url=https://b.test/,profile=https_web"}),
              HasSubstr("our own trust domain"));
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  testing::CertificateSpec spec = testing::CaSpec("claims to be us");
  spec.uris = {"spiffe://a.test"};
  const TestCa claims("b.test", spec);
  Serve("b.test", claims, 6);
  ExpectRefused(FetchResult::kClaimsOurs, "names our own trust domain");
  spec.uris = {"spiffe://b.test"};
  Serve("b.test", TestCa("b.test", spec), 6);
  EXPECT_TRUE(bundles_->Refresh("b.test", false).ok()) << "its own name is its to claim";
}

TEST_F(ForeignBundlesTest, AnEmptyBundleTrustsNothingAnyMore) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  Serve("b.test", std::string(R"({"keys":[],"spiffe_sequence":6})"));
  ASSERT_TRUE(bundles_->Refresh("b.test", false).ok());
  EXPECT_THAT(Only().root_der, IsEmpty());
  EXPECT_EQ(changes_, 2);
}

TEST_F(ForeignBundlesTest, ARestartHasWhatWasHeldAndForgetsWhatIsNotConfigured) {
  ASSERT_TRUE(Open({kWeb}).ok());
  bundles_->RunDue();
  const absl::Time fetched = clock_.Now();
  clock_.Advance(absl::Hours(5));
  Serve("b.test", absl::UnavailableError("away"));
  ASSERT_TRUE(Open({kWeb}).ok());
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_)));
  EXPECT_EQ(Only().fetched_at, fetched);
  ASSERT_TRUE(Open({}).ok());
  EXPECT_TRUE(bundles_->empty());
  EXPECT_THAT(*store_->foreign_bundles().ListForeignBundles(), IsEmpty());
  ASSERT_TRUE(Open({kWeb}).ok());
  EXPECT_THAT(Only().root_der, IsEmpty());
}

TEST_F(ForeignBundlesTest, ASelfServingEndpointIsKnownByWhatItServedLast) {
  const std::string file = dir_.Write("b.pem", b_.RootPem());
  ASSERT_TRUE(Open({base::StrCat(kSelf, ",bundle=", file)}).ok());
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_))) << "in force until the first fetch";
  EXPECT_EQ(Only().fetched_at, absl::InfinitePast());
  bundles_->RunDue();
  ASSERT_TRUE(trusts_.back().id.has_value());
  EXPECT_EQ(trusts_.back().id->uri(), "spiffe://b.test/postern/identity");
  EXPECT_EQ(Der(b_),
            x509::CertificateToDer(trusts_.back().bundles->Find("b.test")->roots().front().get()));
  Serve("b.test", b_next_, 6);
  ASSERT_TRUE(bundles_->Refresh("", false).ok());
  ASSERT_TRUE(Open({base::StrCat(kSelf, ",bundle=", file)}).ok());
  ASSERT_TRUE(bundles_->Refresh("", false).ok());
  EXPECT_EQ(Der(b_next_),
            x509::CertificateToDer(trusts_.back().bundles->Find("b.test")->roots().front().get()))
      << "what it began with is worth nothing once it was replaced, also after a restart";
}

TEST_F(ForeignBundlesTest, ANewBootstrapFileReplacesATrustThatIsStuck) {
  dir_.Write("b.pem", b_.RootPem());
  const std::string spec = base::StrCat(kSelf, ",bundle=", dir_.Path("b.pem"));
  ASSERT_TRUE(Open({spec}).ok());
  bundles_->RunDue();
  dir_.Write("b.pem", b_next_.RootPem());
  ASSERT_TRUE(Open({spec}).ok());
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_next_)));
  EXPECT_FALSE(Only().sequence.has_value());
}

TEST_F(ForeignBundlesTest, AnEndpointOfAThirdTrustDomainIsKnownByThatOnesBundle) {
  const TestCa c("c.test");
  Serve("c.test", c, 1);
  const std::string by_c =
      "trust-domain=b.test,url=https://b.test/,profile=https_spiffe,endpoint-id=spiffe://c.test/"
      "hub";
  EXPECT_THAT(OpenRefusal({by_c}), HasSubstr("bundle is missing"));
  const std::string file = dir_.Write("c.pem", c.RootPem());
  ASSERT_TRUE(Open({base::StrCat(by_c, ",bundle=", file)}).ok());
  EXPECT_THAT(Only().root_der, IsEmpty()) << "the roots of c speak for c alone";
  ASSERT_TRUE(bundles_->Refresh("b.test", false).ok());
  EXPECT_NE(trusts_.back().bundles->Find("c.test"), nullptr);
  EXPECT_EQ(trusts_.back().bundles->Find("b.test"), nullptr);
  EXPECT_THAT(Only().root_der, ElementsAre(Der(b_)));
  // Known through another federation, no file is needed.
  ASSERT_TRUE(Open({by_c, "trust-domain=c.test,url=https://c.test/,profile=https_web"}).ok());
  EXPECT_FALSE(bundles_->Refresh("b.test", false).ok()) << "nothing is held of c yet";
  ASSERT_TRUE(bundles_->Refresh("c.test", false).ok());
  EXPECT_TRUE(bundles_->Refresh("b.test", false).ok());
  // And of our own trust domain it is ours.
  ASSERT_TRUE(Open({"trust-domain=b.test,url=https://b.test/,profile=https_spiffe,"
                    "endpoint-id=spiffe://a.test/hub"})
                  .ok());
  EXPECT_TRUE(bundles_->Refresh("b.test", false).ok());
  EXPECT_NE(trusts_.back().bundles->Find("a.test"), nullptr);
}

TEST_F(ForeignBundlesTest, SaysWhatIsWrongWithTheConfiguration) {
  EXPECT_THAT(OpenRefusal({kWeb, kWeb}), HasSubstr("stands twice"));
  EXPECT_THAT(OpenRefusal({kSelf}), HasSubstr("bundle is missing"));
  EXPECT_THAT(OpenRefusal({base::StrCat(kSelf, ",bundle=", dir_.Path("none"))}),
              HasSubstr(dir_.Path("none")));
  const std::string junk = dir_.Write("junk", "junk");
  EXPECT_THAT(OpenRefusal({base::StrCat(kSelf, ",bundle=", junk)}), HasSubstr("bundle="));
  EXPECT_THAT(OpenRefusal({base::StrCat(kWeb, ",ca=", junk)}), HasSubstr("ca="));
  const std::string map = dir_.Write("map.json", a_.BundleSet().ToSpiffeJson());
  EXPECT_THAT(OpenRefusal({base::StrCat(kSelf, ",bundle=", map)}),
              HasSubstr("holds no bundle of b.test"));
  std::vector<std::string> many;
  for (size_t i = 0; i <= kMaxFederations; ++i) {
    many.push_back(
        base::StrCat("trust-domain=b", i, ".test,url=https://b.test/,profile=https_web"));
  }
  EXPECT_THAT(OpenRefusal(many), HasSubstr("more than 64"));
}

TEST_F(ForeignBundlesTest, RefreshOfWhatIsNotFederatedIsNotFound) {
  ASSERT_TRUE(Open({kWeb}).ok());
  EXPECT_TRUE(absl::IsNotFound(bundles_->Refresh("c.test", false)));
  EXPECT_TRUE(absl::IsNotFound(bundles_->Refresh("a.test", false)));
  ASSERT_TRUE(Open({}).ok());
  EXPECT_TRUE(absl::IsNotFound(bundles_->Refresh("", false)));
}

}  // namespace
}  // namespace postern::federation
