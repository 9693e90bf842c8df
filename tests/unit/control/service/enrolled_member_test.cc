// SPDX-License-Identifier: Apache-2.0
// Members of an issuer over its real port: who is attested by a key, and every answer that is not
// one.
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "common/x509/digest.h"
#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "common/x509/public_key.h"
#include "postern/v1/admin.grpc.pb.h"
#include "postern/v1/identity.grpc.pb.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/control/service/issuer_fixture.h"

namespace postern::service {
namespace {

using postern::testing::KeyType;
using postern::testing::MakeKey;
using ::testing::HasSubstr;

constexpr char kOurId[] = "spiffe://example.org/postern/identity";

class EnrolledMemberTest : public IssuerProcessTest {
 protected:
  EnrolledMemberTest() : member_(*x509::GenerateMemberKey(x509::MemberKeyType::kEd25519)) {}

  // An entry for `key` under `id`.
  v1::Entry Enrol(EVP_PKEY* key, const std::string& id = "spiffe://example.org/web") {
    v1::CreateEntryRequest request;
    request.mutable_entry()->set_spiffe_id(id);
    request.mutable_entry()->add_selectors(
        x509::MemberKeySelector(base::AsBytes(*x509::MemberKeyToDer(key))));
    v1::Entry entry;
    grpc::ClientContext context;
    const grpc::Status made =
        v1::Admin::NewStub(unix_channel_->channel())->CreateEntry(&context, request, &entry);
    EXPECT_TRUE(made.ok()) << made.error_message();
    return entry;
  }
  void Remove(const v1::Entry& entry) {
    v1::DeleteEntryRequest request;
    request.set_id(entry.id());
    v1::DeleteEntryResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(v1::Admin::NewStub(unix_channel_->channel())
                    ->DeleteEntry(&context, request, &response)
                    .ok());
  }
  // As the issuer's clock has it.
  rpc::IssuerChannel Channel(std::shared_ptr<const x509::Svid> client = nullptr) {
    rpc::IssuerChannelOptions options;
    options.target = base::StrCat("127.0.0.1:", issuer_->grpc_port());
    options.trust = rpc::IssuerTrust{*x509::TrustDomain::Parse("example.org"), Bundles(), {}};
    options.client = std::move(client);
    options.clock = clock_;
    return *rpc::IssuerChannel::Create(options);
  }

  static grpc::Status Ask(const rpc::IssuerChannel& channel, v1::ChallengeResponse& response) {
    grpc::ClientContext context;
    return v1::Identity::NewStub(channel.channel())
        ->Challenge(&context, v1::ChallengeRequest(), &response);
  }
  static std::string Challenge(const rpc::IssuerChannel& channel) {
    v1::ChallengeResponse response;
    const grpc::Status asked = Ask(channel, response);
    EXPECT_TRUE(asked.ok()) << asked.error_message();
    EXPECT_EQ(response.issuer_spiffe_id(), kOurId);
    return response.challenge();
  }

  // What an honest member signs, and sends.
  struct Answer {
    EVP_PKEY* signer = nullptr;
    std::string challenge;
    EVP_PKEY* signed_csr_key = nullptr;
    std::string issuer = kOurId;
    std::string public_key_der;
  };
  Answer Honest(const rpc::IssuerChannel& channel) {
    return {member_.get(), Challenge(channel), csr_key_.get(), kOurId,
            *x509::MemberKeyToDer(member_.get())};
  }
  v1::CertifyRequest Request(const Answer& answer) {
    const std::string csr_key = *x509::PublicKeyToDer(answer.signed_csr_key);
    v1::CertifyRequest request;
    request.set_csr_der(*x509::CreateCsr(csr_key_.get(), std::nullopt));
    auto& evidence = *request.mutable_enrolled_key();
    evidence.set_public_key_der(answer.public_key_der);
    evidence.set_challenge(answer.challenge);
    evidence.set_signature(*x509::SignMemberStatement(
        answer.signer,
        {answer.challenge, base::AsBytes(csr_key), *x509::SpiffeId::Parse(answer.issuer)}));
    return request;
  }
  static grpc::Status Send(const rpc::IssuerChannel& channel, const v1::CertifyRequest& request,
                           v1::CertifyResponse* response = nullptr) {
    v1::CertifyResponse unused;
    grpc::ClientContext context;
    return v1::Identity::NewStub(channel.channel())
        ->Certify(&context, request, response == nullptr ? &unused : response);
  }
  std::shared_ptr<const x509::Svid> SvidOf(const v1::CertifyResponse& response) {
    std::vector<x509::X509Ptr> chain;
    for (const std::string& der : response.chain_der()) {
      chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
    }
    return std::make_shared<const x509::Svid>(
        *x509::Svid::Create(std::move(chain), x509::SharePkey(csr_key_.get())));
  }
  double Refused(const std::string& reason) { return Metric("refused_total{reason=", reason); }
  double Metric(const std::string& name, const std::string& label) {
    const std::string start = base::StrCat("postern_issuer_", name, "\"", label, "\"} ");
    const std::string text = issuer_->Metrics();
    const size_t at = text.find(start);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + start.size()));
  }

  x509::PkeyPtr member_;
  x509::PkeyPtr csr_key_ = *x509::GenerateP256Key();
};

TEST_F(EnrolledMemberTest, AKeyGivesTheIdentityOfItsEntryAsOftenAsItIsShown) {
  Enrol(member_.get());
  for (int i = 1; i <= 3; ++i) {
    const rpc::IssuerChannel channel = Channel();
    v1::CertifyResponse response;
    const grpc::Status sent = Send(channel, Request(Honest(channel)), &response);
    ASSERT_TRUE(sent.ok()) << sent.error_message();
    EXPECT_EQ(response.spiffe_id(), "spiffe://example.org/web");
    EXPECT_EQ(Metric("certificates_issued_total{evidence=", "enrolled_key"), i);
  }
  EXPECT_THAT(issuer_->Metrics(), HasSubstr("postern_issuer_challenges_total 3\n"));
}

TEST_F(EnrolledMemberTest, AP256KeyIsAMemberToo) {
  member_ = *x509::GenerateMemberKey(x509::MemberKeyType::kP256);
  Enrol(member_.get());
  const rpc::IssuerChannel channel = Channel();
  EXPECT_TRUE(Send(channel, Request(Honest(channel))).ok());
}

// Every field of the answer that can be wrong: its reason, its code, and that nothing was issued.
TEST_F(EnrolledMemberTest, RefusesEveryAnswerThatIsNotTheOne) {
  Enrol(member_.get());
  const x509::PkeyPtr thief = *x509::GenerateMemberKey(x509::MemberKeyType::kEd25519);
  const x509::PkeyPtr other_csr_key = *x509::GenerateP256Key();
  const x509::PkeyPtr rsa = MakeKey(KeyType::kRsa2048);
  const rpc::IssuerChannel elsewhere = Channel();
  struct Case {
    const char* what;
    std::function<void(Answer&)> spoil;
    const char* reason;
    grpc::StatusCode code;
  };
  const std::vector<Case> cases = {
      {"another key's signature", [&](Answer& it) { it.signer = thief.get(); }, "bad_proof",
       grpc::StatusCode::UNAUTHENTICATED},
      {"meant for another issuer",
       [](Answer& it) { it.issuer = "spiffe://example.com/postern/identity"; }, "bad_proof",
       grpc::StatusCode::UNAUTHENTICATED},
      {"meant for another workload's ID",
       [](Answer& it) { it.issuer = "spiffe://example.org/web"; }, "bad_proof",
       grpc::StatusCode::UNAUTHENTICATED},
      {"meant for another CSR", [&](Answer& it) { it.signed_csr_key = other_csr_key.get(); },
       "bad_proof", grpc::StatusCode::UNAUTHENTICATED},
      {"a challenge of nobody's", [](Answer& it) { it.challenge = std::string(32, 'x'); },
       "bad_challenge", grpc::StatusCode::ABORTED},
      {"a challenge of another connection",
       [&](Answer& it) { it.challenge = Challenge(elsewhere); }, "bad_challenge",
       grpc::StatusCode::ABORTED},
      {"an RSA key", [&](Answer& it) { it.public_key_der = *x509::PublicKeyToDer(rsa.get()); },
       "bad_member_key", grpc::StatusCode::INVALID_ARGUMENT},
      {"no key", [](Answer& it) { it.public_key_der.clear(); }, "bad_member_key",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"a key that nobody enrolled",
       [&](Answer& it) {
         it.signer = thief.get();
         it.public_key_der = *x509::MemberKeyToDer(thief.get());
       },
       "no_entry", grpc::StatusCode::PERMISSION_DENIED},
  };
  const rpc::IssuerChannel channel = Channel();
  for (const Case& one : cases) {
    const double before = Refused(one.reason);
    Answer answer = Honest(channel);
    one.spoil(answer);
    const grpc::Status sent = Send(channel, Request(answer));
    EXPECT_EQ(sent.error_code(), one.code) << one.what << ": " << sent.error_message();
    EXPECT_EQ(Refused(one.reason), before + 1) << one.what;
  }
  EXPECT_EQ(Metric("certificates_issued_total{evidence=", "enrolled_key"), 0);
  EXPECT_TRUE(Send(channel, Request(Honest(channel))).ok()) << "the member itself is still good";
}

TEST_F(EnrolledMemberTest, RefusesAReplayOnTheSameConnectionAndOnAnother) {
  Enrol(member_.get());
  const rpc::IssuerChannel channel = Channel();
  const v1::CertifyRequest request = Request(Honest(channel));
  EXPECT_EQ(Send(Channel(), request).error_code(), grpc::StatusCode::ABORTED);
  ASSERT_TRUE(Send(channel, request).ok()) << "somebody else's attempt does not use it up";
  EXPECT_EQ(Send(channel, request).error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Refused("bad_challenge"), 2);
}

TEST_F(EnrolledMemberTest, ARemovedMemberNeitherAttestsNorRenews) {
  const v1::Entry entry = Enrol(member_.get());
  rpc::IssuerChannel channel = Channel();
  v1::CertifyResponse response;
  ASSERT_TRUE(Send(channel, Request(Honest(channel)), &response).ok());
  const auto svid = SvidOf(response);
  EXPECT_TRUE(Certify(Channel(svid), ByCertificate()).status.ok());
  Remove(entry);
  EXPECT_EQ(Send(channel, Request(Honest(channel))).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_FALSE(Certify(Channel(svid), ByCertificate()).status.ok());
  Enrol(member_.get(), "spiffe://example.org/db");
  ASSERT_TRUE(Send(channel, Request(Honest(channel)), &response).ok());
  EXPECT_EQ(response.spiffe_id(), "spiffe://example.org/db") << "as whom, the new entry says";
}

TEST_F(EnrolledMemberTest, ARevokedKeyNeitherAttestsNorRenewsUntilItIsLifted) {
  Enrol(member_.get());
  rpc::IssuerChannel channel = Channel();
  v1::CertifyResponse response;
  ASSERT_TRUE(Send(channel, Request(Honest(channel)), &response).ok());
  const auto svid = SvidOf(response);
  const std::string der = *x509::MemberKeyToDer(member_.get());
  v1::RevokeRequest revoke;
  revoke.mutable_revocation()->set_reason("stolen");
  revoke.mutable_revocation()->set_key_sha256(
      std::string(base::AsText(x509::Sha256(base::AsBytes(der)))));
  v1::RevokeResponse revoked;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(
        v1::Admin::NewStub(unix_channel_->channel())->Revoke(&context, revoke, &revoked).ok());
  }
  EXPECT_EQ(revoked.certificates(), 1U) << "what it attested to, though that has another key";
  EXPECT_EQ(Send(channel, Request(Honest(channel))).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Refused("revoked"), 1);
  EXPECT_EQ(Certify(Channel(svid), ByCertificate()).status.error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Refused("revoked"), 2);
  // Nor is it enrolled anew.
  v1::CreateEntryRequest request;
  request.mutable_entry()->set_spiffe_id("spiffe://example.org/db");
  request.mutable_entry()->add_selectors(x509::MemberKeySelector(base::AsBytes(der)));
  v1::Entry entry;
  {
    grpc::ClientContext context;
    EXPECT_EQ(v1::Admin::NewStub(unix_channel_->channel())
                  ->CreateEntry(&context, request, &entry)
                  .error_code(),
              grpc::StatusCode::FAILED_PRECONDITION);
  }
  v1::LiftRevocationRequest lift;
  lift.set_sequence(revoked.version().sequence());
  grpc::ClientContext context;
  ASSERT_TRUE(
      v1::Admin::NewStub(unix_channel_->channel())->LiftRevocation(&context, lift, &revoked).ok());
  EXPECT_TRUE(Send(channel, Request(Honest(channel))).ok());
  EXPECT_TRUE(Certify(Channel(svid), ByCertificate()).status.ok());
}

TEST_F(EnrolledMemberTest, TheUnixSocketGivesNoChallenge) {
  v1::ChallengeResponse response;
  EXPECT_EQ(Ask(*unix_channel_, response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  Enrol(member_.get());
  const rpc::IssuerChannel channel = Channel();
  EXPECT_EQ(Send(*unix_channel_, Request(Honest(channel))).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

class SlowIssuerTest : public EnrolledMemberTest {
 protected:
  SlowIssuerTest() { certify_rate_ = 2; }
};

TEST_F(SlowIssuerTest, ChallengesCountInTheRateOfTheirSource) {
  const rpc::IssuerChannel channel = Channel();
  grpc::Status last;
  for (int i = 0; i < 20 && last.ok(); ++i) {
    v1::ChallengeResponse response;
    last = Ask(channel, response);
  }
  EXPECT_EQ(last.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GE(Refused("rate_limited"), 1);
}

class MemberClockTest : public EnrolledMemberTest {
 protected:
  void SetUp() override {
    clock_ = &fake_clock_;
    StartIssuer();
  }
};

TEST_F(MemberClockTest, AChallengeIsTooOldAfterAMinute) {
  Enrol(member_.get());
  const rpc::IssuerChannel channel = Channel();
  const v1::CertifyRequest request = Request(Honest(channel));
  fake_clock_.Advance(absl::Minutes(1));
  const grpc::Status late = Send(channel, request);
  EXPECT_EQ(late.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(late.error_message(), HasSubstr("expired"));
  const v1::CertifyRequest again = Request(Honest(channel));
  fake_clock_.Advance(absl::Seconds(59));
  EXPECT_TRUE(Send(channel, again).ok());
}

}  // namespace
}  // namespace postern::service
