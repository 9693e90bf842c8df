// SPDX-License-Identifier: Apache-2.0
#include "control/attest/enrolled_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "control/attest/refusal.h"
#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/test_ca.h"

namespace postern::attest {
namespace {

using postern::testing::KeyType;
using postern::testing::MakeKey;
using ::testing::ElementsAre;

x509::SpiffeId Issuer(std::string_view trust_domain = "example.org") {
  return *x509::SpiffeId::Parse("spiffe://" + std::string(trust_domain) + "/postern/identity");
}

class EnrolledKeyTest : public ::testing::Test {
 protected:
  EnrolledKeyTest()
      : key_(*x509::GenerateMemberKey(x509::MemberKeyType::kEd25519)),
        csr_key_(*x509::MemberKeyToDer(MakeKey(KeyType::kP256).get())),
        attestor_(MakeEnrolledKeyAttestor(challenges_, Issuer())) {}

  // Evidence as an honest member sends it over connection "a".
  EnrolledKeyEvidence Good() {
    const std::string challenge = *challenges_.Make("a");
    return Signed(key_.get(), challenge, csr_key_, Issuer());
  }
  EnrolledKeyEvidence Signed(EVP_PKEY* key, const std::string& challenge,
                             const std::string& csr_key, const x509::SpiffeId& issuer) {
    return {*x509::MemberKeyToDer(key_.get()), challenge,
            *x509::SignMemberStatement(key, {challenge, base::AsBytes(csr_key), issuer}), "a",
            csr_key_};
  }
  RefusalReason Refusal(const EnrolledKeyEvidence& evidence) {
    const auto attested = attestor_->Attest(evidence);
    EXPECT_FALSE(attested.ok());
    return attested.ok() ? RefusalReason::kInternal : ReasonOf(attested.status());
  }

  fakes::FakeClock clock_;
  ChallengeTable challenges_{clock_};
  x509::PkeyPtr key_;
  std::string csr_key_;
  std::unique_ptr<Attestor> attestor_;
};

TEST_F(EnrolledKeyTest, AnAnsweredChallengeGivesTheSelectorOfTheKey) {
  const EnrolledKeyEvidence evidence = Good();
  const auto attested = attestor_->Attest(evidence);
  ASSERT_TRUE(attested.ok()) << attested.status();
  EXPECT_THAT(attested->selectors,
              ElementsAre(x509::MemberKeySelector(base::AsBytes(evidence.public_key_der))));
  EXPECT_EQ(attested->entry_id, "");
}

TEST_F(EnrolledKeyTest, AP256KeyDoesAsWell) {
  key_ = *x509::GenerateMemberKey(x509::MemberKeyType::kP256);
  EXPECT_TRUE(attestor_->Attest(Good()).ok());
}

TEST_F(EnrolledKeyTest, RefusesTheSignatureOfAnotherKey) {
  const auto thief = *x509::GenerateMemberKey(x509::MemberKeyType::kEd25519);
  EXPECT_EQ(Refusal(Signed(thief.get(), *challenges_.Make("a"), csr_key_, Issuer())),
            RefusalReason::kBadProof);
}

TEST_F(EnrolledKeyTest, RefusesAnAnswerThatWasMeantForAnotherIssuer) {
  EXPECT_EQ(Refusal(Signed(key_.get(), *challenges_.Make("a"), csr_key_, Issuer("example.com"))),
            RefusalReason::kBadProof);
}

TEST_F(EnrolledKeyTest, RefusesAnAnswerThatWasMeantForAnotherCsr) {
  const std::string other = *x509::MemberKeyToDer(MakeKey(KeyType::kP256).get());
  EXPECT_EQ(Refusal(Signed(key_.get(), *challenges_.Make("a"), other, Issuer())),
            RefusalReason::kBadProof);
}

TEST_F(EnrolledKeyTest, RefusesAnAnswerToAnotherChallenge) {
  EnrolledKeyEvidence evidence = Good();
  evidence.challenge = *challenges_.Make("a");
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadProof);
}

TEST_F(EnrolledKeyTest, RefusesAReplay) {
  const EnrolledKeyEvidence evidence = Good();
  ASSERT_TRUE(attestor_->Attest(evidence).ok());
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadChallenge);
}

TEST_F(EnrolledKeyTest, AWrongAnswerUsesTheChallengeUp) {
  EnrolledKeyEvidence evidence = Good();
  const EnrolledKeyEvidence right = evidence;
  evidence.signature[5] = static_cast<char>(evidence.signature[5] ^ 1);
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadProof);
  EXPECT_EQ(Refusal(right), RefusalReason::kBadChallenge);
}

TEST_F(EnrolledKeyTest, RefusesAnExpiredChallenge) {
  const EnrolledKeyEvidence evidence = Good();
  clock_.Advance(ChallengeTable::kLifetime);
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadChallenge);
}

TEST_F(EnrolledKeyTest, RefusesAChallengeOfAnotherConnection) {
  EnrolledKeyEvidence evidence = Good();
  evidence.connection = "b";
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadChallenge);
  evidence.connection = "a";
  EXPECT_TRUE(attestor_->Attest(evidence).ok()) << "the owner's still is good";
}

TEST_F(EnrolledKeyTest, RefusesAKeyThatNoMemberHasAndKeepsTheChallenge) {
  EnrolledKeyEvidence evidence = Good();
  const std::string good = evidence.public_key_der;
  const auto rsa = MakeKey(KeyType::kRsa2048);
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(rsa.get(), &data);
  evidence.public_key_der.assign(reinterpret_cast<char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadMemberKey);
  evidence.public_key_der.clear();
  EXPECT_EQ(Refusal(evidence), RefusalReason::kBadMemberKey);
  evidence.public_key_der = good;
  EXPECT_TRUE(attestor_->Attest(evidence).ok());
}

TEST_F(EnrolledKeyTest, DoesNotAttestWithoutATlsConnection) {
  EnrolledKeyEvidence evidence = Good();
  evidence.connection.clear();
  EXPECT_EQ(Refusal(evidence), RefusalReason::kUnattested);
}

TEST_F(EnrolledKeyTest, NeverAttestsForACsrThatNobodyVerified) {
  EnrolledKeyEvidence evidence = Good();
  evidence.csr_public_key_der.clear();
  EXPECT_EQ(Refusal(evidence), RefusalReason::kInternal);
}

TEST_F(EnrolledKeyTest, AnIssuerWithoutItRefusesTheEvidence) {
  const auto store = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
  AttestorSet without(*store, clock_);
  EXPECT_EQ(ReasonOf(without.Attest(Good()).status()), RefusalReason::kUnattested);
  AttestorSet with(*store, clock_, {}, MakeEnrolledKeyAttestor(challenges_, Issuer()));
  EXPECT_TRUE(with.Attest(Good()).ok());
  EXPECT_EQ(KindOf(Good()), "enrolled_key");
}

}  // namespace
}  // namespace postern::attest
