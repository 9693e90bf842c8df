// SPDX-License-Identifier: Apache-2.0
#include "control/issue/check_signed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "control/ca/plugged_ca.h"
#include "control/issue/leaf_profile.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::issue {
namespace {

using ::testing::HasSubstr;

class CheckSignedTest : public ::testing::Test {
 protected:
  CheckSignedTest() {
    store_ = *store::OpenMemoryStore(domain_, clock_);
    ca_ = *ca::CaSigner::Open({.state_dir = dir_.path(), .trust_domain = domain_}, store_->cas(),
                              clock_);
    key_ = *x509::GenerateP256Key();
  }
  ca::SvidTemplate Wanted(EVP_PKEY* key, std::string_view path = "/web") const {
    return {.id = *x509::SpiffeId::Parse(base::StrCat("spiffe://example.org", path)),
            .public_key = key,
            .ttl = absl::Hours(1)};
  }
  absl::Status Check(const ca::SignedSvid& made, const ca::SvidTemplate& wanted) const {
    return CheckSigned(made, wanted, clock_.Now());
  }
  // Both refuse it, and for this reason the quick one.
  void ExpectRefused(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                     const char* reason) const {
    const absl::Status status = Check(made, wanted);
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(reason));
    EXPECT_FALSE(CheckSignedAsPeer(made, wanted, *ca_->bundles(), clock_.Now()).ok()) << reason;
  }

  postern::testing::TempDir dir_;
  fakes::FakeClock clock_;
  const x509::TrustDomain domain_ = *x509::TrustDomain::Parse("example.org");
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<ca::CaSigner> ca_;
  x509::PkeyPtr key_;
};

TEST_F(CheckSignedTest, BothChecksAgreeOnEachKindOfKeyAndLengthOfName) {
  const x509::PkeyPtr p384(EVP_EC_gen("P-384"));
  const x509::PkeyPtr rsa(EVP_RSA_gen(2048));
  const x509::PkeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  for (EVP_PKEY* key : {key_.get(), p384.get(), rsa.get(), ed25519.get()}) {
    for (const size_t length : {1U, 90U, 110U, 240U, 2000U}) {
      const ca::SvidTemplate wanted = Wanted(key, "/" + std::string(length, 'a'));
      const auto made = ca_->SignX509Svid(wanted);
      ASSERT_TRUE(made.ok()) << made.status();
      EXPECT_TRUE(Check(*made, wanted).ok()) << length << ": " << Check(*made, wanted);
      const absl::Status peer = CheckSignedAsPeer(*made, wanted, *ca_->bundles(), clock_.Now());
      EXPECT_TRUE(peer.ok()) << length << ": " << peer;
    }
  }
}

// As a plugged-in CA may have it.
TEST_F(CheckSignedTest, KnowsTheAlgorithmOfEachKindOfSigner) {
  const testing::TestCa root("example.org");
  std::vector<ca::SignedSvid> all;
  for (const testing::KeyType type : {testing::KeyType::kP256, testing::KeyType::kP384,
                                      testing::KeyType::kRsa2048, testing::KeyType::kEd25519}) {
    testing::CertificateSpec spec = testing::CaSpec("issuing");
    spec.key_type = type;
    const testing::TestCa issuing = root.Intermediate(spec);
    ca::CaFiles files;
    files.signing_pem = x509::CertificateToPem(issuing.certificate());
    files.roots_pem = root.RootPem();
    files.key_pem = testing::KeyPem(issuing.key());
    const ca::CaVerdict verdict = ca::JudgeCa(files, nullptr, domain_, clock_.Now());
    ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
    std::vector<x509::X509Ptr> roots;
    roots.push_back(root.Root());
    const auto signer =
        *ca::CaSigner::OpenPlugged({.state_dir = dir_.path(), .trust_domain = domain_},
                                   verdict.ca->slot, {.trusted = std::move(roots)}, {1, 1}, clock_);
    const ca::SvidTemplate wanted = Wanted(key_.get());
    const auto made = signer->SignX509Svid(wanted);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(Check(*made, wanted).ok()) << Check(*made, wanted);
    EXPECT_TRUE(CheckSignedAsPeer(*made, wanted, *signer->bundles(), clock_.Now()).ok());
    ca::SignedSvid changed = *made;
    changed.leaf_der.back() = static_cast<char>(changed.leaf_der.back() ^ 0x01);
    EXPECT_FALSE(Check(changed, wanted).ok());
    all.push_back(*made);
  }
  // One's leaf under another's name.
  for (size_t i = 0; i < all.size(); ++i) {
    ca::SignedSvid changed = all[i];
    changed.signer = all[(i + 1) % all.size()].signer;
    EXPECT_FALSE(Check(changed, Wanted(key_.get())).ok()) << i;
  }
}

// A certificate's end may lie beyond 2049, where the encoding of times changes.
TEST_F(CheckSignedTest, KnowsTheTimesOfTheNextHalfCentury) {
  const ca::SvidTemplate wanted = Wanted(key_.get());
  auto made = ca_->SignX509Svid(wanted);
  ASSERT_TRUE(made.ok());
  made->not_after = absl::FromUnixSeconds(2524607999);  // 2049-12-31T23:59:59Z
  EXPECT_THAT(*ExpectedTbs(*made, wanted), HasSubstr("\x17\x0d"
                                                     "491231235959Z"));
  made->not_after += absl::Seconds(1);
  EXPECT_THAT(*ExpectedTbs(*made, wanted), HasSubstr("\x18\x0f"
                                                     "20500101000000Z"));
}

TEST_F(CheckSignedTest, RefusesWhatWasNotWanted) {
  const ca::SvidTemplate wanted = Wanted(key_.get());
  const auto made = ca_->SignX509Svid(wanted);
  ASSERT_TRUE(made.ok());
  const char* const encoding = "the encoding is not the one that was wanted";
  ExpectRefused(*made, Wanted(key_.get(), "/db"), encoding);
  const x509::PkeyPtr other = *x509::GenerateP256Key();
  ExpectRefused(*made, Wanted(other.get()), encoding);
  ca::SignedSvid changed = *made;
  changed.serial.back() = changed.serial.back() == '0' ? '1' : '0';
  ExpectRefused(changed, wanted, encoding);
  changed = *made;
  changed.not_after -= absl::Seconds(1);
  ExpectRefused(changed, wanted, encoding);
  changed = *made;
  changed.not_before += absl::Seconds(1);
  ExpectRefused(changed, wanted, encoding);
}

TEST_F(CheckSignedTest, RefusesAnyChangedByteOfTheCertificate) {
  const ca::SvidTemplate wanted = Wanted(key_.get());
  const auto made = ca_->SignX509Svid(wanted);
  ASSERT_TRUE(made.ok());
  for (size_t i = 0; i < made->leaf_der.size(); ++i) {
    ca::SignedSvid changed = *made;
    changed.leaf_der[i] = static_cast<char>(changed.leaf_der[i] ^ 0x01);
    EXPECT_FALSE(Check(changed, wanted).ok()) << "byte " << i;
  }
  ca::SignedSvid longer = *made;
  longer.leaf_der += '\0';
  ExpectRefused(longer, wanted, "does not parse");
  ca::SignedSvid empty = *made;
  empty.leaf_der.clear();
  ExpectRefused(empty, wanted, "does not parse");
}

TEST_F(CheckSignedTest, RefusesALifetimeBeyondWhatWasAskedOrItsChain) {
  ca::SvidTemplate wanted = Wanted(key_.get());
  const auto made = ca_->SignX509Svid(wanted);
  ASSERT_TRUE(made.ok());
  wanted.ttl = absl::Minutes(30);
  ExpectRefused(*made, wanted, "lives longer than was asked for");
  wanted.ttl = absl::Hours(1);
  // A signer that lives shorter than it says it does.
  auto shorter = std::make_shared<ca::SigningSlot>();
  shorter->ca_id = made->signer->ca_id;
  shorter->chain.push_back(x509::ShareX509(made->signer->chain.front().get()));
  shorter->not_before = made->signer->not_before;
  shorter->not_after = made->not_after - absl::Seconds(1);
  ca::SignedSvid changed = *made;
  changed.signer = shorter;
  ExpectRefused(changed, wanted, "lives longer than its chain");
  clock_.Advance(absl::Hours(2));
  ExpectRefused(*made, wanted, "is not valid now");
}

TEST_F(CheckSignedTest, RefusesAnotherSignersSignature) {
  const postern::testing::TempDir elsewhere;
  const auto other_store = *store::OpenMemoryStore(domain_, clock_);
  const auto other = *ca::CaSigner::Open({.state_dir = elsewhere.path(), .trust_domain = domain_},
                                         other_store->cas(), clock_);
  const ca::SvidTemplate wanted = Wanted(key_.get());
  const auto mine = ca_->SignX509Svid(wanted);
  const auto theirs = other->SignX509Svid(wanted);
  ASSERT_TRUE(mine.ok() && theirs.ok());
  ca::SignedSvid changed = *theirs;
  changed.signer = mine->signer;
  ExpectRefused(changed, wanted, "the encoding is not the one that was wanted");
  // The right text under another signature: only the signature's own bytes differ.
  EVP_PKEY* const signer = X509_get0_pubkey(mine->signer->chain.front().get());
  const SignedParts right = SplitCertificate(mine->leaf_der, signer);
  const auto again = ca_->SignX509Svid(wanted);
  ASSERT_TRUE(again.ok());
  const SignedParts wrong = SplitCertificate(again->leaf_der, signer);
  ASSERT_FALSE(right.tbs.empty() || wrong.tbs.empty());
  if (right.signature.size() == wrong.signature.size()) {
    changed = *mine;
    const size_t at = changed.leaf_der.size() - right.signature.size();
    changed.leaf_der.replace(at, wrong.signature.size(), wrong.signature);
    ExpectRefused(changed, wanted, "the signature does not verify");
  }
}

}  // namespace
}  // namespace postern::issue
