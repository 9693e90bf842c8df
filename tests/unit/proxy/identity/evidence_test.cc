// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/evidence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <vector>

#include "common/x509/csr.h"
#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "common/x509/public_key.h"
#include "postern/v1/identity.pb.h"
#include "proxy/identity/member_key.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::identity {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::KeyType;
using testing::MakeKey;
using ::testing::Not;

// What is tried one after the other while each is refused.
std::vector<Evidence> Order(const EvidenceAtHand& at_hand, int count) {
  std::vector<Evidence> order;
  std::optional<Evidence> refused;
  for (int i = 0; i < count; ++i) {
    refused = ChooseEvidence(at_hand, refused);
    order.push_back(*refused);
  }
  return order;
}

TEST(EvidenceTest, AUnixSocketIsAllTheEvidenceThatIsNeeded) {
  EXPECT_THAT(Order({.unix_socket = true, .certificate = true, .member_key = true}, 2),
              ElementsAre(Evidence::kUnix, Evidence::kUnix));
}

TEST(EvidenceTest, ACertificateGoesFirstAndWhatIsUsedUpLast) {
  const EvidenceAtHand all{.certificate = true, .member_key = true, .join_token = true};
  EXPECT_THAT(Order(all, 4), ElementsAre(Evidence::kExisting, Evidence::kMemberKey,
                                         Evidence::kToken, Evidence::kExisting));
}

TEST(EvidenceTest, TheOnlyKindIsTriedAgainAndAgain) {
  EXPECT_THAT(Order({.member_key = true}, 2),
              ElementsAre(Evidence::kMemberKey, Evidence::kMemberKey));
  EXPECT_THAT(Order({.join_token = true}, 2), ElementsAre(Evidence::kToken, Evidence::kToken));
  EXPECT_THAT(Order({.certificate = true}, 2),
              ElementsAre(Evidence::kExisting, Evidence::kExisting));
  EXPECT_THAT(Order({}, 2), ElementsAre(Evidence::kToken, Evidence::kToken));
}

// A kind that is not there any more does not hold up the others.
TEST(EvidenceTest, AKindThatIsGoneIsForgotten) {
  EXPECT_EQ(ChooseEvidence({.join_token = true}, Evidence::kMemberKey), Evidence::kToken);
}

class MemberKeyFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& content, mode_t mode = 0600) {
    const std::string path = dir_.Write("member.pem", content);
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  std::string WhyNot(const std::string& path) {
    const auto loaded = MemberKey::Load(path);
    EXPECT_FALSE(loaded.ok());
    return std::string(loaded.status().message());
  }

  const testing::TempDir dir_;
  const x509::TrustDomain trust_domain_ = *x509::TrustDomain::Parse("example.org");
};

TEST_F(MemberKeyFileTest, AnswersAChallengeForTheKeyOfItsRequest) {
  for (const KeyType type : {KeyType::kEd25519, KeyType::kP256}) {
    const x509::PkeyPtr key = MakeKey(type);
    auto request = PrepareRequest(Evidence::kMemberKey, {{}, Write(testing::KeyPem(key.get()))},
                                  trust_domain_);
    ASSERT_TRUE(request.ok()) << request.status();
    ASSERT_TRUE(request->prove);
    v1::ChallengeResponse challenge;
    challenge.set_challenge(std::string(x509::kChallengeBytes, 'c'));
    challenge.set_issuer_spiffe_id("spiffe://example.org/postern/identity");
    const absl::Status proven = request->prove(challenge, *request->message);
    ASSERT_TRUE(proven.ok()) << proven;

    const auto csr = *x509::VerifyCsr(base::AsBytes(request->message->csr_der()));
    EXPECT_EQ(EVP_PKEY_eq(csr.public_key.get(), request->key.get()), 1);
    const auto& evidence = request->message->enrolled_key();
    EXPECT_EQ(evidence.public_key_der(), *x509::MemberKeyToDer(key.get()));
    const std::string csr_key = *x509::PublicKeyToDer(csr.public_key.get());
    EXPECT_TRUE(x509::VerifyMemberStatement(
                    key.get(),
                    {evidence.challenge(), base::AsBytes(csr_key), rpc::IssuerId(trust_domain_)},
                    base::AsBytes(evidence.signature()))
                    .ok());
  }
}

TEST_F(MemberKeyFileTest, AnswersNobodyButTheIssuerThatItKnows) {
  const x509::PkeyPtr key = MakeKey(KeyType::kEd25519);
  auto request =
      *PrepareRequest(Evidence::kMemberKey, {{}, Write(testing::KeyPem(key.get()))}, trust_domain_);
  v1::ChallengeResponse challenge;
  challenge.set_challenge(std::string(x509::kChallengeBytes, 'c'));
  for (const char* name :
       {"", "spiffe://example.com/postern/identity", "spiffe://example.org/web"}) {
    challenge.set_issuer_spiffe_id(name);
    EXPECT_TRUE(absl::IsFailedPrecondition(request.prove(challenge, *request.message))) << name;
  }
  challenge.set_issuer_spiffe_id("spiffe://example.org/postern/identity");
  challenge.set_challenge("short");
  EXPECT_TRUE(absl::IsFailedPrecondition(request.prove(challenge, *request.message)));
  EXPECT_FALSE(request.message->has_enrolled_key());
}

TEST_F(MemberKeyFileTest, RefusesAFileThatOthersMayRead) {
  const std::string pem = testing::KeyPem(MakeKey(KeyType::kEd25519).get());
  for (const mode_t mode : {0640, 0604, 0620, 0660, 0644}) {
    const std::string path = Write(pem, mode);
    EXPECT_THAT(WhyNot(path), HasSubstr("chmod 600"));
    EXPECT_TRUE(absl::IsPermissionDenied(MemberKey::Load(path).status()));
  }
  EXPECT_TRUE(MemberKey::Load(Write(pem, 0400)).ok());
}

TEST_F(MemberKeyFileTest, SaysWhatIsWrongWithAFileAndNothingOfWhatIsInIt) {
  EXPECT_THAT(WhyNot(dir_.Path("nowhere")), HasSubstr("nowhere"));
  for (const KeyType type : {KeyType::kRsa2048, KeyType::kP384}) {
    const std::string pem = testing::KeyPem(MakeKey(type).get());
    const std::string why = WhyNot(Write(pem));
    EXPECT_THAT(why, HasSubstr("Ed25519 or P-256"));
    EXPECT_THAT(why, HasSubstr("member.pem"));
    EXPECT_THAT(why, Not(HasSubstr(pem.substr(30, 20))));
  }
  EXPECT_THAT(WhyNot(Write("")), HasSubstr("member.pem"));
  EXPECT_THAT(WhyNot(Write("no key at all")), HasSubstr("member.pem"));
  EXPECT_THAT(WhyNot(Write(std::string(100000, 'x'))), HasSubstr("larger than"));
}

}  // namespace
}  // namespace postern::identity
