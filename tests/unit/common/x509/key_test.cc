// SPDX-License-Identifier: Apache-2.0
#include "common/x509/key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "common/base/strings.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using ::testing::HasSubstr;
using testing::KeyType;
using testing::MakeKey;

std::string ContentOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string TraditionalPem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  EXPECT_EQ(
      PEM_write_bio_PrivateKey_traditional(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr),
      1);
  return ContentOf(bio.get());
}

std::string EncryptedPem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  const unsigned char password[] = "pw";
  EXPECT_EQ(
      PEM_write_bio_PrivateKey(bio.get(), key, EVP_aes_128_cbc(), password, 2, nullptr, nullptr),
      1);
  return ContentOf(bio.get());
}

class KeyTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }
};

TEST_F(KeyTest, MakesDistinctP256Keys) {
  const PkeyPtr one = GenerateP256Key().value();
  const PkeyPtr two = GenerateP256Key().value();
  EXPECT_TRUE(CheckKeyStrength(one.get()).ok());
  EXPECT_EQ(EVP_PKEY_get_bits(one.get()), 256);
  EXPECT_NE(EVP_PKEY_eq(one.get(), two.get()), 1);
}

TEST_F(KeyTest, ReadsWhatItWrites) {
  for (const KeyType type : {KeyType::kP256, KeyType::kEd25519, KeyType::kRsa2048}) {
    const PkeyPtr key = MakeKey(type);
    const std::string pem = PrivateKeyToPem(key.get()).value();
    EXPECT_TRUE(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    const PkeyPtr again = PrivateKeyFromPem(pem).value();
    EXPECT_EQ(EVP_PKEY_eq(key.get(), again.get()), 1);
  }
}

TEST_F(KeyTest, ReadsTheOlderForms) {
  for (const KeyType type : {KeyType::kP256, KeyType::kP384, KeyType::kRsa2048}) {
    const PkeyPtr key = MakeKey(type);
    const std::string pem = TraditionalPem(key.get());
    EXPECT_THAT(pem, HasSubstr(type == KeyType::kRsa2048 ? "RSA PRIVATE KEY" : "EC PRIVATE KEY"));
    EXPECT_EQ(EVP_PKEY_eq(PrivateKeyFromPem(pem).value().get(), key.get()), 1);
  }
}

TEST_F(KeyTest, FindsTheKeyAmongOtherBlocksCommentsAndCrLf) {
  const testing::TestCa ca;
  const PkeyPtr key = MakeKey();
  std::string pem = "a comment\r\n\r\n" + ca.RootPem() + testing::KeyPem(key.get()) + ca.RootPem();
  std::string crlf;
  for (const char c : pem) {
    crlf += c == '\n' ? "\r\n" : std::string(1, c);
  }
  EXPECT_TRUE(PrivateKeyFromPem(crlf).ok()) << PrivateKeyFromPem(crlf).status();
  // `openssl ecparam -genkey` puts the parameters first.
  pem = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
        TraditionalPem(key.get());
  EXPECT_TRUE(PrivateKeyFromPem(pem).ok());
}

TEST_F(KeyTest, RefusesAnEncryptedKeyWithoutAskingForAPassphrase) {
  const absl::Status status = PrivateKeyFromPem(EncryptedPem(MakeKey().get())).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("encrypted"));
}

TEST_F(KeyTest, RefusesTextWithoutOrWithTwoKeys) {
  const std::string pem = testing::KeyPem(MakeKey().get());
  EXPECT_FALSE(PrivateKeyFromPem("").ok());
  EXPECT_FALSE(PrivateKeyFromPem("hello\n").ok());
  EXPECT_FALSE(PrivateKeyFromPem(testing::TestCa().RootPem()).ok());
  EXPECT_FALSE(PrivateKeyFromPem(pem + pem).ok());
}

TEST_F(KeyTest, RefusesAPublicKeyInAKeyBlock) {
  EXPECT_FALSE(
      PrivateKeyFromPem("-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n").ok());
}

// A5: a file that is being written. Either an error or the whole key, never something between.
TEST_F(KeyTest, TakesAKeyCutAtAnyByteWholeOrNotAtAll) {
  const PkeyPtr key = MakeKey();
  const std::string pem = testing::KeyPem(key.get());
  for (size_t size = 0; size < pem.size(); ++size) {
    const absl::StatusOr<PkeyPtr> cut = PrivateKeyFromPem(std::string_view(pem).substr(0, size));
    if (cut.ok()) {
      EXPECT_GE(size, pem.size() - 2) << "only the last newline may be missing";
      EXPECT_EQ(EVP_PKEY_eq(cut->get(), key.get()), 1);
    }
    EXPECT_EQ(ERR_peek_error(), 0U) << size;
  }
}

TEST_F(KeyTest, NeverShowsKeyBytesInAnError) {
  const std::string pem = testing::KeyPem(MakeKey().get());
  const size_t body = pem.find('\n') + 1;
  std::string damaged = pem;
  damaged[body + 20] = '!';
  const absl::Status status = PrivateKeyFromPem(damaged).status();
  ASSERT_FALSE(status.ok());
  for (size_t at = body; at + 8 < pem.size(); at += 8) {
    EXPECT_THAT(std::string(base::Message(status)), ::testing::Not(HasSubstr(pem.substr(at, 8))));
  }
}

TEST_F(KeyTest, AcceptsStrongKeysAndNamesWeakOnes) {
  for (const KeyType type :
       {KeyType::kP256, KeyType::kP384, KeyType::kEd25519, KeyType::kRsa2048}) {
    EXPECT_TRUE(CheckKeyStrength(MakeKey(type).get()).ok());
  }
  const std::pair<KeyType, const char*> weak[] = {{KeyType::kRsa512, "RSA key of 512 bits"},
                                                  {KeyType::kRsa1024, "RSA key of 1024 bits"},
                                                  {KeyType::kP192, "prime192v1"},
                                                  {KeyType::kP224, "secp224r1"},
                                                  {KeyType::kP521, "secp521r1"}};
  for (const auto& [type, name] : weak) {
    const absl::Status status = CheckKeyStrength(MakeKey(type).get());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(name));
  }
  EXPECT_FALSE(CheckKeyStrength(nullptr).ok());
  EXPECT_FALSE(CheckKeyStrength(PkeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519")).get()).ok());
}

}  // namespace
}  // namespace postern::x509
