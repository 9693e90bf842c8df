// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/certificate.h"
#include "proxy/identity/identity_manager.h"
#include "tests/fakes/fake_issuer.h"
#include "tests/testing/run_loop.h"
#include "tests/testing/temp_dir.h"

namespace postern::identity {

// An IdentityManager whose identity comes from a fake issuer: configured with a bundle, a state
// directory and a token "first" for kWeb.
class IssuedProxyTest : public ::testing::Test {
 protected:
  static constexpr char kWeb[] = "spiffe://example.org/web";

  IssuedProxyTest() : loop_(net::Loop::Create().value()) {
    issuer_.ReservePort();
    issuer_.AddToken("first", kWeb);
    config_.issuer = issuer_.target();
    config_.trust_domain = "example.org";
    config_.issuer_bundle_file = dir_.Write("root.pem", issuer_.root().RootPem());
    config_.join_token_file = dir_.Write("token", "first\n");
    config_.state_dir = dir_.Path("state");
  }
  ~IssuedProxyTest() override { Stop(); }

  absl::StatusOr<std::unique_ptr<IdentityManager>> Make() {
    return IdentityManager::Create(
        config_, *loop_, *clock_,
        {[this](auto snapshot) { snapshots_.push_back(std::move(snapshot)); },
         [this](auto policy) { policies_.push_back(std::move(policy)); },
         [this](auto revocations) {
           revocations_.push_back(std::move(revocations));
           identities_before_revocations_.push_back(snapshots_.size());
         }});
  }
  void Start() {
    snapshots_.clear();
    policies_.clear();
    revocations_.clear();
    identities_before_revocations_.clear();
    manager_ = Make().value();
    manager_->Start();
  }
  void Stop() { manager_.reset(); }

  // Until `count` identities were published since the start.
  bool Gets(size_t count) {
    return testing::RunUntil(*loop_, [&] { return snapshots_.size() >= count; });
  }

  static std::string AllowFrom(const std::string& name) {
    return "apiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: " + name +
           "}\nspec: {action: ALLOW, rules: [{from: [{spiffeIds: ['spiffe://example.org/" + name +
           "']}]}]}\n";
  }
  bool Lets(const std::string& name) const {
    policy::ConnectionFacts facts;
    facts.source = x509::SpiffeId::Parse("spiffe://example.org/" + name).value();
    return !policies_.empty() && policies_.back()->Authorize(facts).allowed;
  }

  const testing::TempDir dir_;
  fakes::FakeIssuer issuer_;
  std::unique_ptr<net::Loop> loop_;
  config::ProxyConfig config_;
  const base::Clock* clock_ = &base::Clock::System();
  std::vector<std::shared_ptr<const IdentitySnapshot>> snapshots_;
  std::vector<std::shared_ptr<const policy::PolicySet>> policies_;
  std::vector<std::shared_ptr<const x509::RevocationSet>> revocations_;
  std::vector<size_t> identities_before_revocations_;  // snapshots published before each
  std::unique_ptr<IdentityManager> manager_;
};

}  // namespace postern::identity
