// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_signer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <filesystem>
#include <random>
#include <set>
#include <thread>

#include "common/base/file.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "control/ca/certificate_builder.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

// What goes out, parsed: leaf, then the signer's chain.
std::vector<x509::X509Ptr> ChainOf(const SignedSvid& made) {
  std::vector<x509::X509Ptr> chain;
  chain.push_back(*x509::CertificateFromDer(base::AsBytes(made.leaf_der)));
  for (const std::string& der : made.signer->chain_der) {
    chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
  }
  return chain;
}

// OpenSSL's own judgement of a chain at a time: 0 or X509_V_ERR_*.
int Verify(const std::vector<x509::X509Ptr>& chain, X509* root, absl::Time at) {
  const x509::X509StorePtr store(X509_STORE_new());
  X509_STORE_add_cert(store.get(), root);
  STACK_OF(X509)* untrusted = sk_X509_new_null();
  for (size_t i = 1; i < chain.size(); ++i) {
    sk_X509_push(untrusted, chain[i].get());
  }
  const x509::X509StoreCtxPtr context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), untrusted);
  X509_STORE_CTX_set_time(context.get(), 0, absl::ToTimeT(at));
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_X509_STRICT);
  const int ok = X509_verify_cert(context.get());
  const int error = X509_STORE_CTX_get_error(context.get());
  sk_X509_free(untrusted);
  return ok == 1 ? 0 : error;
}

class CaSignerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
    key_ = *x509::GenerateP256Key();
  }
  CaOptions Options() { return CaOptions{.state_dir = dir_.path(), .trust_domain = ExampleOrg()}; }
  absl::StatusOr<std::unique_ptr<CaSigner>> Open(CaOptions options) {
    return CaSigner::Open(std::move(options), store_->cas(), clock_);
  }
  absl::StatusOr<std::unique_ptr<CaSigner>> Open() { return Open(Options()); }
  SvidTemplate Template(absl::Duration ttl = absl::Hours(1)) {
    return SvidTemplate{.id = Id("/web"), .public_key = key_.get(), .ttl = ttl};
  }
  std::vector<std::string> KeyNames() {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(dir_.Path("keys"))) {
      names.push_back(file.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string KeyPath(std::string_view beginning) {
    for (const std::string& name : KeyNames()) {
      if (std::string_view(name).starts_with(beginning)) {
        return dir_.Path("keys/" + name);
      }
    }
    return "";
  }

  postern::testing::TempDir dir_;
  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  x509::PkeyPtr key_;
};

TEST_F(CaSignerTest, MakesRootAndIntermediateOnFirstStart) {
  const auto ca = Open();
  ASSERT_TRUE(ca.ok()) << ca.status();
  const auto slot = (*ca)->current();
  ASSERT_THAT(slot->chain, SizeIs(1));
  X509* root = slot->root.get();
  X509* intermediate = slot->chain[0].get();
  EXPECT_TRUE(x509::IsCa(root));
  EXPECT_TRUE(x509::IsCa(intermediate));
  EXPECT_THAT(x509::UriSans(root), ElementsAre("spiffe://example.org"));
  EXPECT_EQ(X509_get_pathlen(root), 1);
  EXPECT_EQ(X509_get_pathlen(intermediate), 0);
  EXPECT_EQ(X509_get_key_usage(root), static_cast<uint32_t>(KU_KEY_CERT_SIGN | KU_CRL_SIGN));
  EXPECT_EQ(x509::NotBefore(root), clock_.Now() - absl::Hours(24));
  EXPECT_EQ(x509::NotBefore(intermediate), clock_.Now() - absl::Hours(24));
  EXPECT_EQ(x509::NotAfter(root), clock_.Now() + kRootLifetime);
  EXPECT_EQ(x509::NotAfter(intermediate), clock_.Now() + kIntermediateLifetime);
  EXPECT_EQ(slot->not_after, x509::NotAfter(intermediate));
  EXPECT_NE(X509_NAME_cmp(X509_get_subject_name(root), X509_get_subject_name(intermediate)), 0);
  EXPECT_EQ(Verify(slot->chain, root, clock_.Now()), 0);
  const x509::TrustBundle* bundle = (*ca)->bundles()->Find("example.org");
  ASSERT_NE(bundle, nullptr);
  EXPECT_THAT(bundle->roots(), SizeIs(1));
  EXPECT_GT((*ca)->bundle_version().sequence, 0U);
}

TEST_F(CaSignerTest, KeepsItsKeysToItself) {
  ASSERT_TRUE(Open().ok());
  EXPECT_THAT(KeyNames(), ElementsAre(HasSubstr("intermediate-"), HasSubstr("root-")));
  struct stat facts {};
  ASSERT_EQ(stat(dir_.Path("keys").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700U);
  for (const std::string& name : KeyNames()) {
    ASSERT_EQ(stat(dir_.Path("keys/" + name).c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600U) << name;
  }
}

TEST_F(CaSignerTest, ComesBackAsTheSameCa) {
  const auto first = Open();
  ASSERT_TRUE(first.ok());
  clock_.Advance(absl::Hours(48));
  const auto second = Open();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*first)->current()->ca_id, (*second)->current()->ca_id);
  EXPECT_EQ((*first)->bundle_version(), (*second)->bundle_version());
  EXPECT_THAT(KeyNames(), SizeIs(2));
}

TEST_F(CaSignerTest, RunsWithItsRootKeyOffline) {
  ASSERT_TRUE((*Open())->root_key_present());
  ASSERT_TRUE(std::filesystem::remove(KeyPath("root-")));
  const auto ca = Open();
  ASSERT_TRUE(ca.ok()) << ca.status();
  EXPECT_FALSE((*ca)->root_key_present());
  EXPECT_TRUE((*ca)->SignX509Svid(Template()).ok());
}

TEST_F(CaSignerTest, ParallelFirstStartsMakeOneCa) {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::set<std::string> ids;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([this, &mutex, &ids] {
      const auto ca = Open();
      ASSERT_TRUE(ca.ok()) << ca.status();
      const std::lock_guard lock(mutex);
      ids.insert((*ca)->current()->ca_id);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(ids, SizeIs(1));
  EXPECT_THAT(*store_->cas().ListCas(), SizeIs(2));
  EXPECT_THAT(KeyNames(), SizeIs(2));
}

TEST_F(CaSignerTest, RefusesToBeginAnewOverTheKeysOfALostStore) {
  ASSERT_TRUE(Open().ok());
  store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
  const auto ca = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(ca.status()));
  EXPECT_THAT(std::string(ca.status().message()), HasSubstr("restore identity.db"));
}

TEST_F(CaSignerTest, BeginsAnewAfterACrashBeforeTheStoreHadTheCa) {
  ASSERT_TRUE(std::filesystem::create_directory(dir_.Path("keys")));
  ASSERT_EQ(chmod(dir_.Path("keys").c_str(), 0700), 0);
  dir_.Write("keys/root-0123456789abcdef.pem.new", "half a key");
  ASSERT_TRUE(Open().ok());
  EXPECT_THAT(KeyNames(), ElementsAre(HasSubstr("intermediate-"), HasSubstr("root-")));
}

TEST_F(CaSignerTest, FinishesAfterACrashBetweenStoreAndKeys) {
  const auto first = Open();
  for (const std::string& name : KeyNames()) {
    std::filesystem::rename(dir_.Path("keys/" + name), dir_.Path("keys/" + name + ".new"));
  }
  const auto second = Open();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*first)->current()->ca_id, (*second)->current()->ca_id);
  EXPECT_TRUE((*second)->SignX509Svid(Template()).ok());
}

TEST_F(CaSignerTest, RefusesAKeyThatIsMissingForeignOrReadableByOthers) {
  ASSERT_TRUE(Open().ok());
  const std::string path = KeyPath("intermediate-");
  const std::string pem = *base::ReadFile(path);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(Open().status()));
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  ASSERT_TRUE(base::WriteFileAtomically(path, *x509::PrivateKeyToPem(key_.get()), 0600).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Open().status()));
  ASSERT_TRUE(base::WriteFileAtomically(path, "no key", 0600).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Open().status()));
  ASSERT_TRUE(std::filesystem::remove(path));
  EXPECT_TRUE(absl::IsFailedPrecondition(Open().status()));
  ASSERT_TRUE(base::WriteFileAtomically(path, pem, 0600).ok());
  EXPECT_TRUE(Open().ok());
}

TEST_F(CaSignerTest, SignsTheProfileOfAnX509Svid) {
  const auto ca = *Open();
  const auto made = ca->SignX509Svid(Template());
  ASSERT_TRUE(made.ok()) << made.status();
  const std::vector<x509::X509Ptr> chain = ChainOf(*made);
  ASSERT_THAT(chain, SizeIs(2));
  X509* leaf = chain[0].get();
  EXPECT_EQ(X509_get_version(leaf), X509_VERSION_3);
  EXPECT_THAT(x509::UriSans(leaf), ElementsAre("spiffe://example.org/web"));
  EXPECT_FALSE(x509::IsCa(leaf));
  EXPECT_EQ(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
  EXPECT_EQ(X509_get_key_usage(leaf), static_cast<uint32_t>(KU_DIGITAL_SIGNATURE));
  EXPECT_EQ(X509_get_extended_key_usage(leaf),
            static_cast<uint32_t>(XKU_SSL_SERVER | XKU_SSL_CLIENT));
  for (int nid : {NID_subject_alt_name, NID_key_usage, NID_basic_constraints}) {
    const int at = X509_get_ext_by_NID(leaf, nid, -1);
    ASSERT_GE(at, 0) << nid;
    EXPECT_EQ(X509_EXTENSION_get_critical(X509_get_ext(leaf, at)), 1) << nid;
  }
  EXPECT_NE(X509_get0_subject_key_id(leaf), nullptr);
  EXPECT_EQ(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(leaf),
                                  X509_get0_subject_key_id(chain[1].get())),
            0);
  EXPECT_EQ(X509_get_signature_nid(leaf), NID_ecdsa_with_SHA256);
  EXPECT_EQ(EVP_PKEY_eq(X509_get0_pubkey(leaf), key_.get()), 1);
  EXPECT_EQ(made->serial, x509::SerialHex(leaf));
  EXPECT_EQ(x509::NotBefore(leaf), clock_.Now() - absl::Minutes(2));
  EXPECT_EQ(x509::NotAfter(leaf), clock_.Now() + absl::Hours(1));
  EXPECT_EQ(made->not_after, x509::NotAfter(leaf));
  EXPECT_EQ(made->signer->ca_id, ca->current()->ca_id);
  EXPECT_EQ(Verify(chain, ca->current()->root.get(), clock_.Now()), 0);
}

TEST_F(CaSignerTest, RefusesForeignIdsWeakKeysAndNoLifetime) {
  const auto ca = *Open();
  SvidTemplate foreign = Template();
  foreign.id = *x509::SpiffeId::Parse("spiffe://other.org/web");
  SvidTemplate domain = Template();
  domain.id = *x509::SpiffeId::Parse("spiffe://example.org");
  const x509::PkeyPtr rsa(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{512}));
  ASSERT_NE(rsa, nullptr);
  SvidTemplate weak = Template();
  weak.public_key = rsa.get();
  for (const SvidTemplate& bad :
       {foreign, domain, weak, Template(absl::ZeroDuration()), Template(-absl::Seconds(1))}) {
    EXPECT_EQ(ca->SignX509Svid(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(CaSignerTest, RefusesToSignOnceItsChainHasExpired) {
  CaOptions options = Options();
  options.root_lifetime = absl::Seconds(60);
  const auto ca = *Open(options);
  EXPECT_TRUE(ca->CheckUsable().ok());
  clock_.Advance(absl::Seconds(59));
  EXPECT_TRUE(ca->SignX509Svid(Template(absl::Seconds(20))).ok());
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(absl::IsFailedPrecondition(ca->CheckUsable()));
  EXPECT_TRUE(absl::IsFailedPrecondition(ca->SignX509Svid(Template()).status()));
  EXPECT_TRUE(Open(options).ok()) << "an expired CA must still open, to serve its bundle";
}

TEST_F(CaSignerTest, RefusesToSignWithAClockBeforeItsOwnBirth) {
  const auto ca = *Open();
  clock_.SetNow(clock_.Now() - absl::Hours(25));
  EXPECT_TRUE(absl::IsFailedPrecondition(ca->CheckUsable()));
}

// A3: over many lifetimes of leaf, intermediate and root, no leaf outlives its chain.
TEST_F(CaSignerTest, NoLeafOutlivesItsChain) {
  std::mt19937 random(1);  // fixed: the same pairs in each run
  std::uniform_int_distribution<int64_t> seconds(1, 7200);
  for (int i = 0; i < 40; ++i) {
    const postern::testing::TempDir dir;
    store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
    CaOptions options{.state_dir = dir.path(), .trust_domain = ExampleOrg()};
    options.root_lifetime = absl::Seconds(seconds(random));
    options.intermediate_lifetime = absl::Seconds(seconds(random));
    const auto ca = Open(options);
    ASSERT_TRUE(ca.ok()) << ca.status();
    const absl::Duration chain_left =
        std::min(options.root_lifetime, options.intermediate_lifetime);
    for (int j = 0; j < 5; ++j) {
      const absl::Duration ttl = absl::Seconds(seconds(random));
      const auto made = (*ca)->SignX509Svid(Template(ttl));
      ASSERT_TRUE(made.ok()) << made.status();
      EXPECT_EQ(made->not_after, clock_.Now() + std::min(ttl, chain_left));
      X509* root = (*ca)->current()->root.get();
      EXPECT_EQ(Verify(ChainOf(*made), root, made->not_after - absl::Seconds(1)), 0);
      EXPECT_NE(Verify(ChainOf(*made), root, made->not_after + absl::Seconds(1)), 0);
    }
  }
}

TEST_F(CaSignerTest, BackdatesOnAskingButNeverBeforeItsChain) {
  const auto ca = *Open();
  SvidTemplate wanted = Template();
  wanted.backdate = absl::Hours(1000);
  const auto made = ca->SignX509Svid(wanted);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->not_before, clock_.Now() - kCaBackdate);
}

TEST_F(CaSignerTest, EachSerialOfAHundredThousandIsPositiveAndNew) {
  // The serials of certificates, without 100,000 signatures: the same source and the same encoding.
  const auto ca = *Open();
  std::set<std::string> signed_serials;
  for (int i = 0; i < 500; ++i) {
    const auto made = ca->SignX509Svid(Template());
    ASSERT_TRUE(made.ok());
    const std::vector<x509::X509Ptr> chain = ChainOf(*made);
    const ASN1_INTEGER* serial = X509_get0_serialNumber(chain[0].get());
    EXPECT_NE(ASN1_STRING_type(serial), V_ASN1_NEG_INTEGER);
    EXPECT_LE(ASN1_STRING_length(serial), 20);
    EXPECT_TRUE(signed_serials.insert(made->serial).second);
  }
  std::set<SerialBytes> serials;
  for (int i = 0; i < 100000; ++i) {
    const auto serial = RandomSerial();
    ASSERT_TRUE(serial.ok());
    EXPECT_TRUE(serials.insert(*serial).second);
  }
}

TEST_F(CaSignerTest, ASerialWithItsTopBitSetIsStillPositiveAndZeroIsRefused) {
  CaOptions options = Options();
  SerialBytes next{};
  next.fill(0xff);
  options.serial_source = [&next] { return next; };
  const auto ca = *Open(options);
  const auto made = ca->SignX509Svid(Template());
  ASSERT_TRUE(made.ok()) << made.status();
  const std::vector<x509::X509Ptr> chain = ChainOf(*made);
  const ASN1_INTEGER* serial = X509_get0_serialNumber(chain[0].get());
  EXPECT_NE(ASN1_STRING_type(serial), V_ASN1_NEG_INTEGER);
  EXPECT_EQ(serial->length, 16);
  // In DER the INTEGER begins with a zero byte: else it would be read as a negative number.
  unsigned char* der = nullptr;
  const int size = i2d_ASN1_INTEGER(serial, &der);
  ASSERT_EQ(size, 19);
  EXPECT_EQ(der[2], 0);
  OPENSSL_free(der);
  next.fill(0);
  EXPECT_FALSE(ca->SignX509Svid(Template()).ok());
}

bool SignatureFits(X509* signer, base::ByteSpan data, const std::string& signature) {
  const x509::OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  return EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr,
                              X509_get0_pubkey(signer)) == 1 &&
         EVP_DigestVerify(context.get(), base::AsBytes(signature).data(), signature.size(),
                          data.data(), data.size()) == 1;
}

TEST_F(CaSignerTest, SignsBytesWithTheKeyThatSignsCertificates) {
  const auto ca = Open();
  ASSERT_TRUE(ca.ok());
  const std::string data("postern-test-v1\0list", 20);
  const auto made = (*ca)->SignBytes(base::AsBytes(data));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->signer, (*ca)->current());
  X509* signer = made->signer->chain.front().get();
  EXPECT_TRUE(SignatureFits(signer, base::AsBytes(data), made->signature));
  EXPECT_FALSE(SignatureFits(signer, base::AsBytes(data).first(19), made->signature));
  EXPECT_TRUE((*ca)->SignBytes({}).ok());
}

TEST_F(CaSignerTest, SignsNoBytesWithACaThatHasExpired) {
  const auto ca = Open();
  ASSERT_TRUE(ca.ok());
  clock_.Advance(kIntermediateLifetime);
  EXPECT_TRUE(absl::IsFailedPrecondition((*ca)->SignBytes(base::AsBytes("x")).status()));
}

TEST(Sign, TakesEd25519KeysToo) {
  const x509::PkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const auto signature = Sign(key.get(), x509::SignatureDigest(key.get()), base::AsBytes("data"));
  ASSERT_TRUE(signature.ok()) << signature.status();
  EXPECT_THAT(*signature, SizeIs(64));
}

}  // namespace
}  // namespace postern::ca
