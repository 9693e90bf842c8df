// SPDX-License-Identifier: Apache-2.0
#include "control/ca/pkcs11_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>

#include <atomic>
#include <optional>
#include <thread>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "control/ca/plugged_ca_keeper.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/soft_token.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using testing::CaSpec;
using ::testing::HasSubstr;
using testing::KeyType;
using ::testing::Not;
using testing::SoftToken;
using testing::TestCa;

using BignumPtr = x509::OpensslPtr<BIGNUM, BN_clear_free>;

// Null: the key does not tell it.
BignumPtr PrivateNumber(EVP_PKEY* key, KeyType type) {
  BIGNUM* number = nullptr;
  const char* name = type == KeyType::kRsa2048 ? OSSL_PKEY_PARAM_RSA_D : OSSL_PKEY_PARAM_PRIV_KEY;
  const bool told = EVP_PKEY_get_bn_param(key, name, &number) == 1;
  BignumPtr owned(number);
  return told ? std::move(owned) : nullptr;
}

TEST(Pkcs11UriTest, TellsWhatItCannotUse) {
  EXPECT_TRUE(CheckPkcs11Uri("pkcs11:token=ca;object=issuing").ok());
  EXPECT_TRUE(CheckPkcs11Uri("pkcs11:id=%01;type=private").ok());
  EXPECT_TRUE(CheckPkcs11Uri("pkcs11:object=a?module-path=/usr/lib/a%20b.so").ok());
  const std::pair<const char*, const char*> bad[] = {
      {"", "pkcs11:"},
      {"/etc/key.pem", "pkcs11:"},
      {"pkcs11:object=a;type=public", "private"},
      {"pkcs11:object=a?pin-value=1234", "file of its own"},
      {"pkcs11:object=a?pin-source=file:/pin", "file of its own"},
      {"pkcs11:object=a?module-path=lib.so", "absolute"},
      {"pkcs11:object=a?module-path=/a%00b", "absolute"},
      {"pkcs11:object=a?module-name=softhsm", "nothing else"},
  };
  for (const auto& [uri, why] : bad) {
    const absl::Status status = CheckPkcs11Uri(uri);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << uri;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(why)) << uri;
    EXPECT_THAT(std::string(base::Message(status)), Not(HasSubstr("1234")));
  }
}

// One token for all: the library reads its settings once in a process.
class Pkcs11KeyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = SoftToken::WhyNot(); !why.empty()) {
      GTEST_SKIP() << why;
    }
    if (shared_ == nullptr) {
      shared_ = new Shared;
    }
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }

  // A CA whose key is in the token.
  static TestCa CaInToken(const TestCa& root, KeyType type, std::string_view name,
                          std::string_view id) {
    testing::CertificateSpec spec = CaSpec(name);
    spec.key_type = type;
    TestCa ca = root.Intermediate(spec);
    shared_->token.Import(name, testing::KeyPem(ca.key()), id);
    return ca;
  }
  static Pkcs11Location At(std::string_view name) {
    return {shared_->token.Uri(name), shared_->pin_file};
  }
  static CaFiles FilesOf(const TestCa& ca) {
    CaFiles files;
    files.signing_pem = x509::CertificatesToPem(ca.Intermediates());
    files.roots_pem = ca.RootPem();
    return files;
  }

  struct Shared {
    testing::TempDir dir;
    SoftToken token{dir.Path("token")};
    std::string pin_file = dir.Write("pin", base::StrCat(SoftToken::kPin, "\n"));
  };
  static Shared* shared_;

  fakes::FakeClock clock_;
  const x509::TrustDomain domain_ = *x509::TrustDomain::Parse("example.org");
  const TestCa root_{"example.org"};
};

Pkcs11KeyTest::Shared* Pkcs11KeyTest::shared_ = nullptr;

TEST_F(Pkcs11KeyTest, SignsWithEachKindOfKey) {
  const std::pair<KeyType, const char*> kinds[] = {
      {KeyType::kP256, "p256"}, {KeyType::kP384, "p384"}, {KeyType::kRsa2048, "rsa"}};
  for (const auto& [type, name] : kinds) {
    const TestCa ca = CaInToken(root_, type, name,
                                type == KeyType::kP256   ? "01"
                                : type == KeyType::kP384 ? "02"
                                                         : "03");
    const auto key = LoadPkcs11Key(At(name));
    ASSERT_TRUE(key.ok()) << key.status();
    const CaVerdict verdict = JudgeCa(FilesOf(ca), key->get(), domain_, clock_.Now());
    EXPECT_NE(verdict.ca, nullptr) << name << ": " << verdict.detail;
    // It is a handle: the private number is not in it.
    const BignumPtr in_token = PrivateNumber(key->get(), type);
    const BignumPtr real = PrivateNumber(ca.key(), type);
    ASSERT_NE(real, nullptr);
    EXPECT_TRUE(in_token == nullptr || BN_cmp(in_token.get(), real.get()) != 0) << name;
  }
}

TEST_F(Pkcs11KeyTest, AllThreadsSignAtATime) {
  const TestCa ca = CaInToken(root_, KeyType::kP256, "threads", "10");
  const auto key = LoadPkcs11Key(At("threads"));
  ASSERT_TRUE(key.ok()) << key.status();
  const CaVerdict verdict = JudgeCa(FilesOf(ca), key->get(), domain_, clock_.Now());
  ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
  const testing::TempDir dir;
  PluggedRoots roots;
  roots.trusted.push_back(root_.Root());
  const auto signer = *CaSigner::OpenPlugged({.state_dir = dir.path(), .trust_domain = domain_},
                                             verdict.ca->slot, std::move(roots), {1, 1}, clock_);
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const x509::PkeyPtr leaf_key = testing::MakeKey();
      for (int n = 0; n < 50; ++n) {
        const auto made =
            signer->SignX509Svid({.id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                                  .public_key = leaf_key.get(),
                                  .ttl = absl::Hours(1)});
        if (!made.ok()) {
          continue;
        }
        const auto leaf = *x509::CertificateFromDer(base::AsBytes(made->leaf_der));
        good += x509::VerifyPeerChain(leaf.get(), x509::ShareX509Stack(made->signer->chain).get(),
                                      *signer->bundles(), x509::PeerRole::kServer, clock_.Now())
                    .peer.has_value();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 400);
}

TEST_F(Pkcs11KeyTest, RefusesWhatIsNotThere) {
  const auto missing = LoadPkcs11Key(At("nobody"));
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  EXPECT_THAT(std::string(base::Message(missing.status())), HasSubstr("object=nobody"));

  Pkcs11Location no_file = At("p256");
  no_file.pin_file = shared_->dir.Path("no such file");
  EXPECT_TRUE(absl::IsNotFound(LoadPkcs11Key(no_file).status()));
  no_file.pin_file = shared_->dir.Write("open-pin", "4711", 0644);
  EXPECT_TRUE(absl::IsPermissionDenied(LoadPkcs11Key(no_file).status()));
  no_file.pin_file = shared_->dir.Write("empty-pin", "\n");
  EXPECT_TRUE(absl::IsInvalidArgument(LoadPkcs11Key(no_file).status()));

  Pkcs11Location other_module = At("p256");
  other_module.uri = "pkcs11:object=p256?module-path=/usr/lib/another.so";
  EXPECT_TRUE(absl::IsFailedPrecondition(LoadPkcs11Key(other_module).status()));
}

TEST_F(Pkcs11KeyTest, RefusesTheKeyOfAnother) {
  CaInToken(root_, KeyType::kP256, "mine", "20");
  const auto key = LoadPkcs11Key(At("mine"));
  ASSERT_TRUE(key.ok()) << key.status();
  const CaVerdict verdict =
      JudgeCa(FilesOf(root_.Intermediate()), key->get(), domain_, clock_.Now());
  EXPECT_EQ(verdict.ca, nullptr);
  EXPECT_EQ(Token(verdict.problem), Token(CaProblem::kKeyMismatch)) << verdict.detail;
}

// A directory with certificates alone, and the key of both of them in the token.
TEST_F(Pkcs11KeyTest, GivesAKeyAgainAndNeverOneOfTwo) {
  CaInToken(root_, KeyType::kP256, "again", "40");
  for (int i = 0; i < 3; ++i) {
    const auto key = LoadPkcs11Key(At("again"));
    EXPECT_TRUE(key.ok()) << i << ": " << key.status();
  }
#if OPENSSL_VERSION_PREREQ(3, 5)  // older ones go by the engine, which takes the first
  CaInToken(root_, KeyType::kP256, "again", "41");
  const auto either = LoadPkcs11Key(At("again"));
  EXPECT_TRUE(absl::IsInvalidArgument(either.status())) << either.status();
#endif
}

TEST_F(Pkcs11KeyTest, ANewCertificateOfTheSameKeyIsTakenWithoutRestart) {
  const testing::TempDir dir;
  const testing::CaMount mount(dir.Path("ca"));
  const TestCa ca = CaInToken(root_, KeyType::kP256, "renewed", "30");
  const auto write = [&](const x509::X509Ptr& certificate) {
    mount.Put("ca-cert.pem", x509::CertificateToPem(certificate.get()));
    mount.Put("root-cert.pem", root_.RootPem());
  };
  const x509::X509Ptr first = x509::ShareX509(ca.certificate());
  const x509::X509Ptr second = root_.Sign(ca.key(), CaSpec("renewed again"));
  write(first);
  const auto store = *store::OpenMemoryStore(domain_, clock_);
  PluggedCaOptions options{.directory = {mount.path(), "", false}, .longest_ttl = absl::Hours(24)};
  options.token_key = At("renewed");
  auto opened = PluggedCaKeeper::Open(options, {.state_dir = dir.path(), .trust_domain = domain_},
                                      store->cas(), clock_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  write(second);
  opened->keeper->Tick();
  opened->keeper->Tick();
  EXPECT_EQ(X509_cmp(opened->signer->current()->chain.front().get(), second.get()), 0);
  // A certificate of another key: the token's does not fit.
  write(x509::ShareX509(root_.Intermediate().certificate()));
  opened->keeper->Tick();
  opened->keeper->Tick();
  EXPECT_TRUE(opened->keeper->status().refusing);
  EXPECT_EQ(X509_cmp(opened->signer->current()->chain.front().get(), second.get()), 0);
}

}  // namespace
}  // namespace postern::ca
