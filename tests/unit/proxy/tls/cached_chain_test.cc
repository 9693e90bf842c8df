// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <memory>

#include "proxy/tls/tls_context_impl.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/proxy/tls/engine_pair.h"

namespace postern::tls {
namespace {

using base::CloseReason;

class CachedChainTest : public EngineTest {
 protected:
  CachedChainTest() {
    options_.clock = &clock_;
    client_ = ClientContext(client_svid_, options_);
    server_ = ServerContext(server_svid_, options_);
  }
  EnginePair Shake(const Expected& expected = {}) {
    EnginePair pair = MakePair(client_, server_, expected);
    pair.Shake();
    return pair;
  }

  fakes::FakeClock clock_{absl::Now()};
  TlsOptions options_;
  std::shared_ptr<const TlsContext> client_;
  std::shared_ptr<const TlsContext> server_;
};

TEST_F(CachedChainTest, IsVerifiedOnceAndGivesTheSameFacts) {
  const EnginePair first = Shake();
  const EnginePair second = Shake();
  ASSERT_TRUE(first.server.engine->peer().has_value());
  ASSERT_TRUE(second.server.engine->peer().has_value());
  EXPECT_EQ(server_->impl().verified_chains.size(), 1U);
  EXPECT_EQ(client_->impl().verified_chains.size(), 1U);
  EXPECT_EQ(first.server.engine->peer()->chain_sha256, second.server.engine->peer()->chain_sha256);
  EXPECT_EQ(first.server.engine->peer()->serial, second.server.engine->peer()->serial);
  EXPECT_EQ(second.client.engine->peer()->id.uri(), "spiffe://example.org/server");
}

TEST_F(CachedChainTest, IsStillJudgedByWhoWasExpected) {
  Shake();
  const EnginePair pair = Shake(Only("spiffe://example.org/other"));
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kIdentityMismatch);
}

TEST_F(CachedChainTest, ExpiresWithTheCertificate) {
  Shake();
  clock_.Advance(absl::Hours(3));
  const EnginePair pair = Shake();
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kPeerExpired);
}

TEST_F(CachedChainTest, DoesNotOutliveItsTrust) {
  Shake();
  const testing::TestCa other("example.org");
  server_ = TlsContext::CreateServer(server_svid_, Bundles(other), options_).value();
  const EnginePair pair = Shake();
  EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerUntrusted);
}

TEST_F(CachedChainTest, KeepsNoBadVerdict) {
  const testing::TestCa other("example.org");
  const auto stranger = Share(other.Issue("spiffe://example.org/client"));
  client_ = ClientContext(stranger, options_);
  for (int i = 0; i < 2; ++i) {
    const EnginePair pair = Shake();
    EXPECT_EQ(pair.server.engine->failure().reason, CloseReason::kPeerUntrusted);
  }
  EXPECT_EQ(server_->impl().verified_chains.size(), 0U);
}

}  // namespace
}  // namespace postern::tls
