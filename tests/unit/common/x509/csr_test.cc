// SPDX-License-Identifier: Apache-2.0
#include "common/x509/csr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "common/base/strings.h"
#include "common/x509/key.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using ::testing::HasSubstr;
using testing::KeyType;
using testing::MakeKey;

// A request with the extensions that openssl.cnf syntax names.
std::string Request(EVP_PKEY* key, const std::vector<std::pair<int, std::string>>& extensions,
                    const EVP_MD* digest = EVP_sha256(), EVP_PKEY* signer = nullptr) {
  const X509ReqPtr request(X509_REQ_new());
  X509_REQ_set_pubkey(request.get(), key);
  STACK_OF(X509_EXTENSION)* stack = sk_X509_EXTENSION_new_null();
  for (const auto& [nid, value] : extensions) {
    X509_EXTENSION* made = X509V3_EXT_nconf_nid(nullptr, nullptr, nid, value.c_str());
    EXPECT_NE(made, nullptr) << value;
    sk_X509_EXTENSION_push(stack, made);
  }
  if (!extensions.empty()) {
    X509_REQ_add_extensions(request.get(), stack);
  }
  sk_X509_EXTENSION_pop_free(stack, X509_EXTENSION_free);
  EXPECT_GT(X509_REQ_sign(request.get(), signer == nullptr ? key : signer, digest), 0);
  unsigned char* data = nullptr;
  const int size = i2d_X509_REQ(request.get(), &data);
  std::string der(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  ERR_clear_error();
  return der;
}

class CsrTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }

  void ExpectRefused(const std::string& der, const char* problem) {
    const absl::Status status = VerifyCsr(base::AsBytes(der)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << problem;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(problem));
  }

  PkeyPtr key_ = MakeKey();
};

TEST_F(CsrTest, MakesARequestThatNamesTheIdentity) {
  const SpiffeId id = SpiffeId::Parse("spiffe://example.org/web").value();
  const absl::StatusOr<VerifiedCsr> csr =
      VerifyCsr(base::AsBytes(CreateCsr(key_.get(), id).value()));
  ASSERT_TRUE(csr.ok()) << csr.status();
  EXPECT_EQ(csr->uri, "spiffe://example.org/web");
  EXPECT_EQ(EVP_PKEY_eq(csr->public_key.get(), key_.get()), 1);
}

TEST_F(CsrTest, MakesARequestWithoutIdentity) {
  const absl::StatusOr<VerifiedCsr> csr =
      VerifyCsr(base::AsBytes(CreateCsr(key_.get(), std::nullopt).value()));
  ASSERT_TRUE(csr.ok()) << csr.status();
  EXPECT_EQ(csr->uri, std::nullopt);
}

TEST_F(CsrTest, TakesEachStrongKindOfKey) {
  for (const KeyType type : {KeyType::kP384, KeyType::kEd25519, KeyType::kRsa2048}) {
    const absl::StatusOr<std::string> der = CreateCsr(MakeKey(type).get(), std::nullopt);
    ASSERT_TRUE(der.ok()) << der.status();
    EXPECT_TRUE(VerifyCsr(base::AsBytes(*der)).ok());
  }
}

TEST_F(CsrTest, IgnoresWhatTheIssuerDecides) {
  const absl::StatusOr<VerifiedCsr> csr = VerifyCsr(base::AsBytes(
      Request(key_.get(), {{NID_subject_alt_name, "URI:spiffe://td/a,DNS:evil,IP:10.0.0.1"},
                           {NID_key_usage, "keyCertSign"},
                           {NID_ext_key_usage, "codeSigning"},
                           {NID_basic_constraints, "CA:FALSE"}})));
  ASSERT_TRUE(csr.ok()) << csr.status();
  EXPECT_EQ(csr->uri, "spiffe://td/a");
}

TEST_F(CsrTest, HandsOnAnUncheckedUri) {
  const absl::StatusOr<VerifiedCsr> csr =
      VerifyCsr(base::AsBytes(Request(key_.get(), {{NID_subject_alt_name, "URI:http://x"}})));
  ASSERT_TRUE(csr.ok());
  EXPECT_EQ(csr->uri, "http://x");
}

TEST_F(CsrTest, RefusesSeveralUris) {
  ExpectRefused(
      Request(key_.get(), {{NID_subject_alt_name, "URI:spiffe://td/a,URI:spiffe://td/b"}}),
      "names 2 URIs");
  ExpectRefused(Request(key_.get(), {{NID_subject_alt_name, "URI:spiffe://td/a"},
                                     {NID_subject_alt_name, "URI:spiffe://td/b"}}),
                "twice");
}

TEST_F(CsrTest, RefusesToAskForACa) {
  ExpectRefused(Request(key_.get(), {{NID_basic_constraints, "critical,CA:TRUE"}}), "CA");
  ExpectRefused(Request(key_.get(),
                        {{NID_basic_constraints, "CA:FALSE"}, {NID_basic_constraints, "CA:TRUE"}}),
                "twice");
}

TEST_F(CsrTest, RefusesASignatureByAnotherKey) {
  ExpectRefused(Request(key_.get(), {}, EVP_sha256(), MakeKey().get()), "signature");
}

TEST_F(CsrTest, RefusesWeakKeysAndDigests) {
  for (const KeyType type : {KeyType::kRsa512, KeyType::kRsa1024, KeyType::kP192}) {
    ExpectRefused(Request(MakeKey(type).get(), {}), "refused");
  }
  ExpectRefused(Request(key_.get(), {}, EVP_sha1()), "weak digest");
}

TEST_F(CsrTest, RefusesAnyChangedByte) {
  const std::string der =
      Request(key_.get(), {{NID_subject_alt_name, "URI:spiffe://example.org/web"}});
  int accepted = 0;
  for (size_t i = 0; i < der.size(); ++i) {
    std::string changed = der;
    changed[i] = static_cast<char>(changed[i] ^ 0x01);
    accepted += VerifyCsr(base::AsBytes(changed)).ok() ? 1 : 0;
    ASSERT_EQ(ERR_peek_error(), 0U) << i;
  }
  EXPECT_EQ(accepted, 0);
}

TEST_F(CsrTest, RefusesWhatIsCutTooLongOrTooLarge) {
  const std::string der = Request(key_.get(), {});
  for (size_t size = 0; size < der.size(); ++size) {
    ASSERT_FALSE(VerifyCsr(base::AsBytes(der.substr(0, size))).ok()) << size;
  }
  ExpectRefused(der + std::string(1, '\0'), "behind its end");
  ExpectRefused(std::string(kMaxCsrBytes + 1, '0'), "more than");
  const std::string huge = "URI:spiffe://td/" + std::string(20'000, 'a');
  ExpectRefused(Request(key_.get(), {{NID_subject_alt_name, huge}}), "more than");
}

// The usual request has a short cut; one changed bit anywhere must not get through it.
TEST_F(CsrTest, RefusesTheUsualRequestWithAnyBitChanged) {
  const std::string good = CreateCsr(key_.get(), std::nullopt).value();
  const absl::StatusOr<VerifiedCsr> csr = VerifyCsr(base::AsBytes(good));
  ASSERT_TRUE(csr.ok()) << csr.status();
  EXPECT_EQ(EVP_PKEY_eq(csr->public_key.get(), key_.get()), 1);
  EXPECT_FALSE(csr->uri.has_value());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      EXPECT_FALSE(VerifyCsr(base::AsBytes(changed)).ok()) << "byte " << i << " bit " << bit;
    }
  }
  EXPECT_FALSE(VerifyCsr(base::AsBytes(good + "x")).ok());
  EXPECT_FALSE(VerifyCsr(base::AsBytes(good.substr(0, good.size() - 1))).ok());
  EXPECT_EQ(ERR_peek_error(), 0U);
}

}  // namespace
}  // namespace postern::x509
