// SPDX-License-Identifier: Apache-2.0
#include "common/x509/member_proof.h"

#include <gtest/gtest.h>

#include <numeric>

#include "common/x509/member_key.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using postern::testing::KeyType;
using postern::testing::MakeKey;

SpiffeId Issuer(std::string_view trust_domain = "example.org") {
  return *SpiffeId::Parse("spiffe://" + std::string(trust_domain) + "/postern/identity");
}

// A test vector for other implementations: the key of RFC 8032 section 7.1 test 1 answers the
// challenge 00 01 .. 1f for a CSR with the key of test 2.
constexpr char kMemberSeed[] = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
constexpr char kCsrKey[] =
    "302a300506032b65700321003d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
constexpr char kSignedBytes[] =
    "706f737465726e2d6d656d6265722d7631"  // postern-member-v1
    "00"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"  // the challenge
    "deb2ded39dc26fce0e6085b6fc34bf6b5941913bbfe2ea614113cff9e004c170"  // SHA-256 of the CSR's key
    "7370696666653a2f2f6578616d706c652e6f72672f706f737465726e2f6964656e74697479";
constexpr char kSignature[] =
    "ba888660828e5d9f25b0e3f53892e044e549539aeda89528e80339fd8eef1d22"
    "efbefca2d0f3733a0556c25c702a5b555e2624f97b8f10f0668dc01b632b6801";

std::string VectorChallenge() {
  std::string challenge(kChallengeBytes, '\0');
  std::iota(challenge.begin(), challenge.end(), '\0');
  return challenge;
}

PkeyPtr VectorKey() {
  const std::string seed = *base::FromHex(kMemberSeed);
  return PkeyPtr(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, base::AsBytes(seed).data(),
                                              seed.size()));
}

TEST(MemberProofTest, SignsTheBytesOfTheTestVector) {
  const std::string challenge = VectorChallenge();
  const std::string csr_key = *base::FromHex(kCsrKey);
  const MemberStatement statement{challenge, base::AsBytes(csr_key), Issuer()};
  EXPECT_EQ(base::ToHex(base::AsBytes(*BytesOf(statement))), kSignedBytes);
  const PkeyPtr key = VectorKey();
  const auto signature = SignMemberStatement(key.get(), statement);
  ASSERT_TRUE(signature.ok()) << signature.status();
  EXPECT_EQ(base::ToHex(base::AsBytes(*signature)), kSignature);
  EXPECT_TRUE(VerifyMemberStatement(key.get(), statement, base::AsBytes(*signature)).ok());
}

class ProofOfEachKindTest : public ::testing::TestWithParam<MemberKeyType> {
 protected:
  // Verified as the issuer does: by the public half alone.
  static absl::Status Verify(EVP_PKEY* key, const MemberStatement& statement,
                             const std::string& signature) {
    const std::string der = *MemberKeyToDer(key);
    const PkeyPtr received = *MemberKeyFromDer(base::AsBytes(der));
    return VerifyMemberStatement(received.get(), statement, base::AsBytes(signature));
  }
};

TEST_P(ProofOfEachKindTest, HoldsForItsOwnStatementAndNoOther) {
  const PkeyPtr key = *GenerateMemberKey(GetParam());
  const PkeyPtr other = *GenerateMemberKey(GetParam());
  const std::string challenge = VectorChallenge();
  const std::string csr_key = *MemberKeyToDer(MakeKey(KeyType::kP256).get());
  const MemberStatement good{challenge, base::AsBytes(csr_key), Issuer()};
  const std::string signature = *SignMemberStatement(key.get(), good);
  ASSERT_TRUE(Verify(key.get(), good, signature).ok());
  EXPECT_TRUE(absl::IsUnauthenticated(Verify(other.get(), good, signature)));

  const std::string other_challenge(kChallengeBytes, '\xff');
  const std::string other_csr_key = *MemberKeyToDer(MakeKey(KeyType::kP256).get());
  for (const MemberStatement& wrong :
       {MemberStatement{other_challenge, base::AsBytes(csr_key), Issuer()},
        MemberStatement{challenge, base::AsBytes(other_csr_key), Issuer()},
        MemberStatement{challenge, base::AsBytes(csr_key), Issuer("example.com")}}) {
    EXPECT_TRUE(absl::IsUnauthenticated(Verify(key.get(), wrong, signature)));
  }
}

TEST_P(ProofOfEachKindTest, RefusesEverySignatureThatIsNotTheOne) {
  const PkeyPtr key = *GenerateMemberKey(GetParam());
  const std::string challenge = VectorChallenge();
  const std::string csr_key = *base::FromHex(kCsrKey);
  const MemberStatement statement{challenge, base::AsBytes(csr_key), Issuer()};
  const std::string good = *SignMemberStatement(key.get(), statement);
  EXPECT_LE(good.size(), kMaxMemberSignatureBytes);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string flipped = good;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    EXPECT_FALSE(Verify(key.get(), statement, flipped).ok()) << i;
  }
  for (const std::string& bad : {std::string(), good.substr(1), good + "x", std::string(64, '\0'),
                                 std::string(72, '\0'), std::string(100000, 'x')}) {
    EXPECT_FALSE(Verify(key.get(), statement, bad).ok()) << bad.size();
  }
}

INSTANTIATE_TEST_SUITE_P(MemberProofTest, ProofOfEachKindTest,
                         ::testing::Values(MemberKeyType::kEd25519, MemberKeyType::kP256));

TEST(MemberProofTest, KnowsNoChallengeOfAnotherLength) {
  const PkeyPtr key = VectorKey();
  for (const size_t size : {size_t{0}, kChallengeBytes - 1, kChallengeBytes + 1, size_t{4096}}) {
    const std::string challenge(size, 'x');
    const MemberStatement statement{challenge, {}, Issuer()};
    EXPECT_TRUE(absl::IsInvalidArgument(SignMemberStatement(key.get(), statement).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(
        VerifyMemberStatement(key.get(), statement, base::AsBytes(std::string_view("x")))));
  }
}

}  // namespace
}  // namespace postern::x509
