// SPDX-License-Identifier: Apache-2.0
// Identity from files, through IdentityManager: what a replaced, damaged or expired file does.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "common/base/file.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "proxy/identity/identity_manager.h"
#include "proxy/identity/watched_file.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::identity {
namespace {

using testing::RunUntil;
using testing::TestCa;

constexpr char kWeb[] = "spiffe://example.org/web";
constexpr char kPolicy[] =
    "apiVersion: postern.dev/v1\n"
    "kind: AuthorizationPolicy\n"
    "metadata: {name: NAME}\n"
    "spec: {action: ALLOW, rules: [{from: [{spiffeIds: ['spiffe://example.org/NAME']}]}]}\n";

std::string PolicyFor(std::string name) {
  std::string yaml = kPolicy;
  for (size_t at; (at = yaml.find("NAME")) != std::string::npos;) {
    yaml.replace(at, 4, name);
  }
  return yaml;
}

class FileSourceTest : public ::testing::Test {
 protected:
  FileSourceTest() : loop_(net::Loop::Create().value()) {
    config_.svid_file = dir_.Path("svid.pem");
    config_.svid_key_file = dir_.Path("key.pem");
    config_.bundle_file = dir_.Path("bundle.pem");
  }

  void Write(const x509::Svid& svid, const TestCa& ca) {
    dir_.Write("svid.pem", x509::CertificatesToPem(svid.chain()));
    dir_.Write("key.pem", x509::PrivateKeyToPem(svid.key()).value());
    dir_.Write("bundle.pem", ca.RootPem());
  }
  // As a mounted secret of Kubernetes: each file leads through one symlink, which is swapped.
  void LinkToVersions() {
    for (const char* name : {"svid.pem", "key.pem", "bundle.pem"}) {
      std::filesystem::create_symlink(std::string("..data/") + name, dir_.Path(name));
    }
  }
  void PutVersion(const std::string& version, const x509::Svid& svid) {
    mkdir(dir_.Path(version).c_str(), 0700);
    dir_.Write(version + "/svid.pem", x509::CertificatesToPem(svid.chain()));
    dir_.Write(version + "/key.pem", x509::PrivateKeyToPem(svid.key()).value());
    dir_.Write(version + "/bundle.pem", ca_.RootPem());
    std::filesystem::create_symlink(version, dir_.Path("..tmp"));
    std::filesystem::rename(dir_.Path("..tmp"), dir_.Path("..data"));
  }
  absl::Status Start() {
    auto made = IdentityManager::Create(
        config_, *loop_, base::Clock::System(),
        {[this](auto snapshot) { snapshots_.push_back(std::move(snapshot)); },
         [this](auto policy) { policies_.push_back(std::move(policy)); }});
    if (made.ok()) {
      manager_ = *std::move(made);
      manager_->Start();
    }
    return made.status();
  }
  bool ComesIntoUse(const std::string& serial) {
    return RunUntil(
        *loop_, [&] { return !snapshots_.empty() && snapshots_.back()->svid->serial() == serial; });
  }
  bool Fails(uint64_t times) {
    return RunUntil(*loop_, [&] { return manager_->status().reload_failures == times; });
  }
  bool Lets(const std::string& name) const {
    policy::ConnectionFacts facts;
    facts.source = x509::SpiffeId::Parse("spiffe://example.org/" + name).value();
    return policies_.back()->Authorize(facts).allowed;
  }

  const testing::TempDir dir_;
  const TestCa ca_;
  std::unique_ptr<net::Loop> loop_;
  config::ProxyConfig config_;
  std::vector<std::shared_ptr<const IdentitySnapshot>> snapshots_;
  std::vector<std::shared_ptr<const policy::PolicySet>> policies_;
  std::unique_ptr<IdentityManager> manager_;
};

TEST_F(FileSourceTest, ServesWhatTheFilesHold) {
  const x509::Svid svid = ca_.Intermediate().Issue(kWeb);
  Write(svid, ca_);
  ASSERT_TRUE(Start().ok());
  ASSERT_EQ(snapshots_.size(), 1U);
  EXPECT_EQ(snapshots_.front()->svid->serial(), svid.serial());
  EXPECT_EQ(snapshots_.front()->generation, 1U);
  EXPECT_TRUE(manager_->HasUsableIdentity());
  const IdentityStatus status = manager_->status();
  EXPECT_EQ(status.source, "files");
  EXPECT_EQ(status.spiffe_id, kWeb);
  ASSERT_EQ(status.certificates.size(), 3U);
  EXPECT_EQ(status.certificates[0].kind, "leaf");
  EXPECT_EQ(status.certificates[1].kind, "intermediate");
  EXPECT_EQ(status.certificates[2].kind, "root");
  EXPECT_EQ(manager_->gauges().expiries.size(), 3U);
  EXPECT_EQ(manager_->gauges().bundle_age_seconds, 0);
}

TEST_F(FileSourceTest, LetsItsTrustDomainInWithoutAPolicy) {
  Write(ca_.Issue(kWeb), ca_);
  ASSERT_TRUE(Start().ok());
  ASSERT_EQ(policies_.size(), 2U);
  EXPECT_TRUE(policies_.front()->is_deny_all());
  EXPECT_TRUE(Lets("db"));
}

TEST_F(FileSourceTest, TakesAReplacedSetIntoUse) {
  Write(ca_.Issue(kWeb), ca_);
  ASSERT_TRUE(Start().ok());
  // Another root and another leaf under it, one file after the other.
  const TestCa next;
  const x509::Svid renewed = next.Issue(kWeb);
  Write(renewed, next);
  EXPECT_TRUE(ComesIntoUse(renewed.serial()));
  EXPECT_EQ(snapshots_.back()->generation, snapshots_.size());
}

TEST_F(FileSourceTest, FollowsASymlinkSwap) {
  LinkToVersions();
  PutVersion("v1", ca_.Issue(kWeb));
  ASSERT_TRUE(Start().ok());
  const x509::Svid renewed = ca_.Issue(kWeb);
  PutVersion("v2", renewed);
  EXPECT_TRUE(ComesIntoUse(renewed.serial()));
}

// The timers begin with Start and look once a second.
TEST_F(FileSourceTest, EventsTellOfASymlinkSwapBeforeTheTimerLooks) {
  LinkToVersions();
  config_.policy_file = dir_.Write("policy.yaml", PolicyFor("db"));
  PutVersion("v1", ca_.Issue(kWeb));
  ASSERT_TRUE(Start().ok());
  const x509::Svid renewed = ca_.Issue(kWeb);
  PutVersion("v2", renewed);
  dir_.Write("policy.yaml", PolicyFor("other"));
  constexpr auto kBeforeTheTimer = std::chrono::milliseconds(900);
  static_assert(WatchedFiles::kPollEvery > absl::Milliseconds(900));
  EXPECT_TRUE(RunUntil(
      *loop_,
      [&] { return snapshots_.back()->svid->serial() == renewed.serial() && Lets("other"); },
      kBeforeTheTimer));
}

TEST_F(FileSourceTest, KeepsTheOldSetWhileTheNewOneIsHalfWritten) {
  const x509::Svid old_one = ca_.Issue(kWeb);
  Write(old_one, ca_);
  ASSERT_TRUE(Start().ok());
  const x509::Svid renewed = ca_.Issue(kWeb);
  dir_.Write("svid.pem", x509::CertificatesToPem(renewed.chain()));
  EXPECT_TRUE(Fails(1));
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_NE(manager_->status().reload_error, "");
  EXPECT_TRUE(manager_->HasUsableIdentity());
  dir_.Write("key.pem", x509::PrivateKeyToPem(renewed.key()).value());
  EXPECT_TRUE(ComesIntoUse(renewed.serial()));
  EXPECT_EQ(manager_->status().reload_error, "");
}

TEST_F(FileSourceTest, CountsEachBadSetOnce) {
  Write(ca_.Issue(kWeb), ca_);
  ASSERT_TRUE(Start().ok());
  unlink(dir_.Path("bundle.pem").c_str());
  EXPECT_TRUE(Fails(1));
  manager_->Reload();
  manager_->Reload();
  EXPECT_EQ(manager_->status().reload_failures, 1U);
  dir_.Write("bundle.pem", "no certificate");
  EXPECT_TRUE(Fails(2));
}

TEST_F(FileSourceTest, RefusesABundleThatDoesNotVerifyTheLeaf) {
  const x509::Svid svid = ca_.Issue(kWeb);
  Write(svid, TestCa());
  const absl::Status status = Start();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("svid.pem"), absl::string_view::npos);
}

TEST_F(FileSourceTest, RefusesFilesThatAreNotThereAtTheStart) {
  const absl::Status status = Start();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
}

TEST_F(FileSourceTest, WaitsForABetterSetWhenItStartsWithAnExpiredOne) {
  Write(ca_.Issue(kWeb, absl::Now() - absl::Hours(2), absl::Hours(1)), ca_);
  ASSERT_TRUE(Start().ok());
  EXPECT_TRUE(snapshots_.empty());
  EXPECT_FALSE(manager_->HasUsableIdentity());
  EXPECT_FALSE(manager_->HasPolicy());
  const x509::Svid good = ca_.Issue(kWeb);
  Write(good, ca_);
  EXPECT_TRUE(ComesIntoUse(good.serial()));
  EXPECT_TRUE(manager_->HasPolicy());
}

TEST_F(FileSourceTest, DoesNotReplaceAGoodSetByAnExpiredOne) {
  Write(ca_.Issue(kWeb), ca_);
  ASSERT_TRUE(Start().ok());
  Write(ca_.Issue(kWeb, absl::Now() - absl::Hours(2), absl::Hours(1)), ca_);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return manager_->status().reload_failures >= 1; }));
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_TRUE(manager_->HasUsableIdentity());
}

TEST_F(FileSourceTest, ReadsItsPolicyAgainAndKeepsTheLastGoodOne) {
  Write(ca_.Issue(kWeb), ca_);
  config_.policy_file = dir_.Write("policy.yaml", PolicyFor("db"));
  ASSERT_TRUE(Start().ok());
  EXPECT_TRUE(Lets("db"));
  EXPECT_FALSE(Lets("other"));
  dir_.Write("policy.yaml", PolicyFor("other"));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return Lets("other"); }));
  EXPECT_FALSE(Lets("db"));
  const uint64_t revision = manager_->status().policy_revision;
  dir_.Write("policy.yaml", "kind: Nonsense\n");
  EXPECT_TRUE(RunUntil(*loop_, [&] { return !manager_->status().policy_error.empty(); }));
  EXPECT_TRUE(Lets("other"));
  EXPECT_EQ(manager_->status().policy_revision, revision);
  dir_.Write("policy.yaml", PolicyFor("db"));
  manager_->Reload();
  EXPECT_TRUE(Lets("db"));
  EXPECT_EQ(manager_->status().policy_error, "");
}

TEST_F(FileSourceTest, RefusesABadPolicyAtTheStart) {
  Write(ca_.Issue(kWeb), ca_);
  config_.policy_file = dir_.Write("policy.yaml", "kind: Nonsense\n");
  const absl::Status status = Start();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("policy.yaml"), absl::string_view::npos);
}

TEST_F(FileSourceTest, ReadsItsDestinationsAgain) {
  const auto destinations = [&](const std::string& address) {
    return dir_.Write("d.yaml",
                      "apiVersion: postern.dev/v1\nkind: Destination\n"
                      "metadata: {name: db}\nspec: {addresses: [" +
                          address + "], spiffeIds: ['spiffe://example.org/db']}\n");
  };
  bool refused = false;
  const auto known = [&](const std::string& address) {
    bool found = false;
    manager_->directory().Lookup(*loop_, net::SocketAddress::Parse(address).value(),
                                 [&](const auto& answer) {
                                   found = answer.ok() && answer->has_value();
                                   refused = absl::IsFailedPrecondition(answer.status());
                                 });
    return found;
  };
  Write(ca_.Issue(kWeb), ca_);
  config_.destinations_file = destinations("192.0.2.7");
  ASSERT_TRUE(Start().ok());
  EXPECT_TRUE(known("192.0.2.7:80"));
  EXPECT_TRUE(manager_->directory().IsMeshMember(base::IpAddress::Parse("192.0.2.7").value()));
  destinations("192.0.2.8");
  EXPECT_TRUE(RunUntil(*loop_, [&] { return known("192.0.2.8:80"); }));
  EXPECT_FALSE(known("192.0.2.7:80"));
  EXPECT_TRUE(refused) << "once in the mesh, it does not fall back to plaintext";
  EXPECT_FALSE(known("192.0.2.7:81"));
  EXPECT_FALSE(refused) << "which was never asked for";
  EXPECT_EQ(manager_->SeenInMesh(), (std::vector<std::string>{"192.0.2.7:80", "192.0.2.8:80"}));
  EXPECT_TRUE(absl::IsInvalidArgument(manager_->ForgetSeen("192.0.2.7")));
  EXPECT_TRUE(absl::IsNotFound(manager_->ForgetSeen("192.0.2.7:81")));
  EXPECT_TRUE(manager_->ForgetSeen("192.0.2.7:80").ok()) << "an operator's word";
  EXPECT_FALSE(known("192.0.2.7:80"));
  EXPECT_FALSE(refused);
  destinations("not an address");
  manager_->Reload();
  EXPECT_TRUE(known("192.0.2.8:80"));
  EXPECT_EQ(manager_->status().reload_failures, 1U);
}

// In a directory that nobody has made, and before the first poll.
TEST_F(FileSourceTest, WhatWasSeenInTheMeshOutlivesTheProcess) {
  config_.state_dir = dir_.Path("state");
  Write(ca_.Issue(kWeb), ca_);
  ASSERT_TRUE(Start().ok());
  manager_->directory().NoteName("db.example.org", 5432);
  ASSERT_TRUE(RunUntil(
      *loop_, [&] { return !manager_->SeenInMesh().empty(); }, std::chrono::milliseconds(900)));
  manager_.reset();
  const auto kept = base::ReadFile(config_.state_dir + "/seen_mesh.txt");
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_TRUE(kept->ends_with("\ndb.example.org:5432\n")) << *kept;
  ASSERT_TRUE(Start().ok());
  EXPECT_TRUE(manager_->directory().WasInMesh("db.example.org", 5432));
  EXPECT_EQ(manager_->SeenInMesh(), (std::vector<std::string>{"db.example.org:5432"}));
  EXPECT_TRUE(absl::IsInvalidArgument(manager_->ForgetSeen("db.example.org")));
  EXPECT_TRUE(manager_->ForgetSeen("DB.example.org:5432").ok());
  EXPECT_FALSE(manager_->directory().WasInMesh("db.example.org", 5432));
}

TEST_F(FileSourceTest, AStateDirectoryThatOthersMayEnterIsRefused) {
  config_.state_dir = dir_.Path("state");
  ASSERT_EQ(mkdir(config_.state_dir.c_str(), 0700), 0);
  ASSERT_EQ(chmod(config_.state_dir.c_str(), 0755), 0);
  Write(ca_.Issue(kWeb), ca_);
  const absl::Status refused = Start();
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_NE(std::string(refused.message()).find("--state-dir"), std::string::npos) << refused;
}

}  // namespace
}  // namespace postern::identity
