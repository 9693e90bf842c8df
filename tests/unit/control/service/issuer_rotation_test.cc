// SPDX-License-Identifier: Apache-2.0
// A rotation as operator and proxies see it from outside: Admin's calls, the port's certificate,
// what still renews, and an issuer that starts after its intermediate has expired.
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/x509/certificate.h"
#include "control/ca/ca_signer.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using ::testing::HasSubstr;

class IssuerRotationTest : public IssuerProcessTest {
 protected:
  grpc::Status Rotate(v1::RotationStep step, v1::CaKind kind = v1::CA_KIND_ROOT,
                      bool force = false) {
    v1::RotateCaRequest request;
    request.set_step(step);
    request.set_kind(kind);
    request.set_force(force);
    grpc::ClientContext context;
    return v1::Admin::NewStub(unix_channel_->channel())->RotateCa(&context, request, &status_);
  }
  v1::CaStatus CaStatus() {
    grpc::ClientContext context;
    v1::CaStatus status;
    EXPECT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                    ->GetCaStatus(&context, v1::GetCaStatusRequest(), &status)
                    .ok());
    return status;
  }
  base::Sha256Digest CurrentRoot() {
    const v1::CaStatus status = CaStatus();
    for (const v1::CaStatus::Ca& ca : status.cas()) {
      if (ca.role() == "root" && ca.state() == "current") {
        const auto root = *x509::CertificateFromDer(base::AsBytes(ca.certificate_der()));
        return x509::Sha256OfCertificate(root.get());
      }
    }
    return {};
  }
  // A proxy that knows nothing but a pin.
  grpc::Status CertifyWithPin(const base::Sha256Digest& pin) {
    rpc::IssuerChannelOptions options;
    options.target = base::StrCat("127.0.0.1:", issuer_->grpc_port());
    options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("example.org"), nullptr, pin};
    return Certify(*rpc::IssuerChannel::Create(options), ByToken(NewToken(WebEntry()))).status;
  }

  v1::CaStatus status_;
};

TEST_F(IssuerRotationTest, ThePortsCertificateFollowsTheActiveCa) {
  const base::Sha256Digest old_root = CurrentRoot();
  const Certified before = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  ASSERT_TRUE(before.status.ok()) << before.status.error_message();
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_PREPARE).ok());
  EXPECT_EQ(status_.phase(), "prepared");
  EXPECT_EQ(status_.kind(), v1::CA_KIND_ROOT);
  EXPECT_EQ(status_.cas_size(), 4);
  EXPECT_TRUE(CertifyWithPin(old_root).ok());
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_ACTIVATE).ok());
  EXPECT_EQ(status_.phase(), "active");
  EXPECT_NE(CurrentRoot(), old_root);
  EXPECT_TRUE(CertifyWithPin(CurrentRoot()).ok());
  EXPECT_FALSE(CertifyWithPin(old_root).ok()) << "a newcomer needs the new pin";
  const Certified after = Certify(TcpChannel(before.svid), ByCertificate());
  ASSERT_TRUE(after.status.ok()) << after.status.error_message();
  EXPECT_NE(after.response.chain_der(1), before.response.chain_der(1));
  // The old one is out of use once the new one was shown.
  EXPECT_GT(CaStatus().old_certificates_until(), 0);
  ASSERT_TRUE(Certify(TcpChannel(after.svid), ByCertificate()).status.ok());
}

TEST_F(IssuerRotationTest, ARetirementWaitsAndForceDoesNot) {
  const Certified old = Certify(TcpChannel(), ByToken(NewToken(WebEntry())));
  ASSERT_TRUE(old.status.ok());
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_PREPARE).ok());
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_ACTIVATE).ok());
  const grpc::Status early = Rotate(v1::ROTATION_STEP_RETIRE);
  EXPECT_EQ(early.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(early.error_message(), HasSubstr("certificates of the old CA are in use"));
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_RETIRE, v1::CA_KIND_ROOT, /*force=*/true).ok());
  EXPECT_EQ(status_.phase(), "none");
  EXPECT_EQ(status_.kind(), v1::CA_KIND_UNSPECIFIED);
  EXPECT_FALSE(Certify(TcpChannel(old.svid), ByCertificate()).status.ok());
  EXPECT_TRUE(Certify(TcpChannel(), ByToken(NewToken(WebEntry()))).status.ok());
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_ca_rotation_phase{kind=\"root\"} 0"));
}

TEST_F(IssuerRotationTest, ARestartInTheMiddleGoesOn) {
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_PREPARE, v1::CA_KIND_INTERMEDIATE).ok());
  unix_channel_.reset();
  issuer_.reset();
  StartIssuer();
  EXPECT_EQ(CaStatus().phase(), "prepared");
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_ACTIVATE, v1::CA_KIND_INTERMEDIATE).ok());
  unix_channel_.reset();
  issuer_.reset();
  StartIssuer();
  EXPECT_EQ(CaStatus().phase(), "active");
  ASSERT_TRUE(Rotate(v1::ROTATION_STEP_RETIRE, v1::CA_KIND_INTERMEDIATE).ok());
  EXPECT_TRUE(Certify(TcpChannel(), ByToken(NewToken(WebEntry()))).status.ok());
}

TEST_F(IssuerRotationTest, RefusesWhatIsNoStepAndNoKind) {
  EXPECT_EQ(Rotate(v1::ROTATION_STEP_UNSPECIFIED).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Rotate(v1::ROTATION_STEP_PREPARE, v1::CA_KIND_UNSPECIFIED).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

class ExpiredIssuerTest : public IssuerProcessTest {
 protected:
  absl::StatusOr<std::unique_ptr<IssuerProcess>> StartAt(const base::Clock& clock) {
    unix_channel_.reset();
    issuer_.reset();
    IssuerConfig config{*x509::TrustDomain::Parse("example.org"), directory_.path() + "/state"};
    config.listen = {"127.0.0.1", 0};
    config.admin = {"127.0.0.1", 0};
    config.socket = directory_.path() + "/identity.sock";
    return IssuerProcess::Start(config, clock);
  }
  void TakeTheRootsKeyAway() {
    for (const auto& file :
         std::filesystem::directory_iterator(directory_.path() + "/state/keys")) {
      if (file.path().filename().string().starts_with("root-")) {
        std::filesystem::remove(file.path());
      }
    }
  }
  const fakes::FakeClock later_{absl::Now() + ca::kIntermediateLifetime + absl::Hours(1)};
};

// Nothing else can be done with it, so it says what is wrong, where, and what mends it.
TEST_F(ExpiredIssuerTest, DoesNotStartOnceItsCaHasExpired) {
  TakeTheRootsKeyAway();
  const auto started = StartAt(later_);
  ASSERT_TRUE(absl::IsFailedPrecondition(started.status())) << started.status();
  const std::string message(started.status().message());
  EXPECT_THAT(message, HasSubstr("the CA expired at"));
  EXPECT_THAT(message, HasSubstr("the root's key is not in the state directory"));
  EXPECT_THAT(message, HasSubstr(directory_.path() + "/state/identity.db"));
  EXPECT_THAT(message, HasSubstr(directory_.path() + "/state/keys"));
}

TEST_F(ExpiredIssuerTest, MakesAnotherIntermediateWhenTheRootsKeyIsThere) {
  const auto started = StartAt(later_);
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_TRUE((*started)->CheckReady().ok());
}

TEST_F(ExpiredIssuerTest, DoesNotStartWithARootThatHasExpired) {
  const fakes::FakeClock much_later(absl::Now() + ca::kRootLifetime + absl::Hours(1));
  const auto started = StartAt(much_later);
  ASSERT_TRUE(absl::IsFailedPrecondition(started.status())) << started.status();
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("begin with a new root"));
}

}  // namespace
}  // namespace postern::service
