// SPDX-License-Identifier: Apache-2.0
// Certificates that have expired, at the issuer's port: who may still renew, who may not, and what
// the issuer does when everything has expired, its own certificate too.
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "postern/v1/mesh.grpc.pb.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using ::testing::HasSubstr;

class RenewalGraceTest : public IssuerProcessTest {
 protected:
  RenewalGraceTest() { clock_ = &fake_clock_; }

  void Restart() {
    unix_channel_.reset();
    issuer_.reset();
    StartIssuer();
  }
  // Time goes by for issuer and proxies.
  void Pass(absl::Duration time) {
    fake_clock_.Advance(time);
    issuer_->Tick();
  }
  std::shared_ptr<const x509::Svid> NewSvid() {
    Certified first = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
    EXPECT_TRUE(first.status.ok()) << first.status.error_message();
    return first.svid;
  }
  void ExpectRefused(std::shared_ptr<const x509::Svid> svid, const std::string& reason) {
    const Certified refused = Certify(TcpChannel(std::move(svid)), ByCertificate());
    EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAUTHENTICATED)
        << refused.status.error_message();
    EXPECT_THAT(issuer_->Metrics(), HasSubstr("{reason=\"" + reason + "\"} 1\n"));
  }
};

TEST_F(RenewalGraceTest, AJustExpiredCertificateIsRenewed) {
  const auto svid = NewSvid();
  Pass(absl::Minutes(90));
  const Certified renewed = Certify(TcpChannel(svid), ByCertificate());
  ASSERT_TRUE(renewed.status.ok()) << renewed.status.error_message();
  EXPECT_EQ(renewed.svid->id(), svid->id());
  EXPECT_TRUE(renewed.svid->CheckUsable(fake_clock_.Now()).ok());
}

TEST_F(RenewalGraceTest, ALongExpiredOneIsRefusedForThat) {
  const auto svid = NewSvid();
  Pass(absl::Minutes(121));
  ExpectRefused(svid, "long_expired");
}

TEST_F(RenewalGraceTest, WithoutAGraceAnExpiredOneIsRefusedAtOnce) {
  renewal_grace_ = absl::ZeroDuration();
  Restart();
  const auto svid = NewSvid();
  Pass(absl::Minutes(60));
  ExpectRefused(svid, "long_expired");
}

TEST_F(RenewalGraceTest, AnExpiredCertificateOfSomebodyElseIsForeign) {
  const testing::TestCa foreign("example.org");
  const auto svid = std::make_shared<const x509::Svid>(
      foreign.Issue("spiffe://example.org/web", fake_clock_.Now(), absl::Hours(1)));
  ExpectRefused(svid, "unattested");
  Pass(absl::Minutes(61));
  const Certified refused = Certify(TcpChannel(svid), ByCertificate());
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("{reason=\"unattested\"} 2\n"));
}

TEST_F(RenewalGraceTest, TheGraceIsForRenewingAndForNothingElse) {
  const auto svid = NewSvid();
  Pass(absl::Minutes(61));
  const rpc::IssuerChannel channel = TcpChannel(svid);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const auto stream = v1::Mesh::NewStub(channel.channel())->Stream(&context);
  v1::MeshRequest hello;
  hello.mutable_hello()->set_proxy_version("test");
  stream->Write(hello);
  v1::MeshResponse response;
  EXPECT_FALSE(stream->Read(&response)) << response.ShortDebugString();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// After a month on the shelf: nothing that was issued is good any more.
TEST_F(RenewalGraceTest, AnIssuerThatStartsWithEverythingExpiredCertifiesItselfAndServes) {
  const auto svid = NewSvid();
  fake_clock_.Advance(absl::Hours(24 * 30));
  Restart();
  EXPECT_TRUE(issuer_->CheckReady().ok()) << issuer_->CheckReady();
  // The channel verifies the issuer's certificate at the time of now.
  ExpectRefused(svid, "long_expired");
  const auto fresh = NewSvid();
  EXPECT_TRUE(fresh->CheckUsable(fake_clock_.Now()).ok());
  EXPECT_TRUE(Certify(TcpChannel(fresh), ByCertificate()).status.ok());
}

}  // namespace
}  // namespace postern::service
