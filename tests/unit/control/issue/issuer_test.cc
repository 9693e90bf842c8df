// SPDX-License-Identifier: Apache-2.0
#include "control/issue/issuer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/key.h"
#include "control/issue/registry.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/control/issue/csr_maker.h"

namespace postern::issue {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

// Attests everybody as whoever the test says.
class FixedAttestor : public attest::Attestor {
 public:
  absl::StatusOr<attest::Attestation> Attest(const attest::Evidence&) override {
    ++asked;
    return answer;
  }
  absl::StatusOr<attest::Attestation> answer = attest::Attestation{};
  std::atomic<int> asked{0};
};

std::vector<x509::X509Ptr> ChainOf(const IssueResult& issued) {
  std::vector<x509::X509Ptr> chain;
  for (const std::string& der : issued.chain_der) {
    chain.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
  }
  return chain;
}

class IssuerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
    attestors_ = std::make_unique<attest::AttestorSet>(*store_, clock_);
    key_ = *x509::GenerateP256Key();
    Make({});
  }
  void Make(TtlPolicy ttl, ca::CaOptions options) {
    ca_ = *ca::CaSigner::Open(std::move(options), store_->cas(), clock_);
    issuer_ = *Issuer::Create(ttl, *ca_, *store_, *attestors_, clock_);
    registry_ = std::make_unique<Registry>(ExampleOrg(), ttl, *store_, clock_);
  }
  void Make(TtlPolicy ttl) { Make(ttl, {.state_dir = dir_.path(), .trust_domain = ExampleOrg()}); }
  std::string Token(std::string_view path) {
    return registry_->CreateToken(store::Entry{.spiffe_id = Id(path)}, absl::ZeroDuration())->token;
  }
  absl::StatusOr<IssueResult> Issue(const std::string& csr, attest::Evidence evidence) {
    return issuer_->Issue({base::AsBytes(csr), std::move(evidence), "test"});
  }
  absl::StatusOr<IssueResult> IssueFor(std::string_view path) {
    return Issue(Csr(), attest::JoinTokenEvidence{Token(path)});
  }
  std::string Csr() { return *x509::CreateCsr(key_.get(), std::nullopt); }
  // What the channel of a proxy with this certificate would have verified.
  x509::VerifiedPeer PeerOf(const IssueResult& issued) {
    const std::vector<x509::X509Ptr> chain = ChainOf(issued);
    STACK_OF(X509)* untrusted = sk_X509_new_null();
    sk_X509_push(untrusted, chain[1].get());
    auto verdict = x509::VerifyPeerChain(chain[0].get(), untrusted, *ca_->bundles(),
                                         x509::PeerRole::kClient, clock_.Now());
    sk_X509_free(untrusted);
    EXPECT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
    return *std::move(verdict.peer);
  }
  uint64_t Issued() { return *store_->certificates().CountIssued(); }

  postern::testing::TempDir dir_;
  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<attest::AttestorSet> attestors_;
  std::unique_ptr<ca::CaSigner> ca_;
  std::unique_ptr<Issuer> issuer_;
  std::unique_ptr<Registry> registry_;
  x509::PkeyPtr key_;
};

TEST_F(IssuerTest, ATokenAndACsrBecomeACertificateOfTheEntry) {
  const auto issued = IssueFor("/web");
  ASSERT_TRUE(issued.ok()) << issued.status();
  EXPECT_EQ(issued->id, Id("/web"));
  const std::vector<x509::X509Ptr> chain = ChainOf(*issued);
  ASSERT_THAT(chain, SizeIs(2));
  EXPECT_EQ(EVP_PKEY_eq(X509_get0_pubkey(chain[0].get()), key_.get()), 1);
  EXPECT_EQ(issued->issued_at, clock_.Now());
  EXPECT_EQ(issued->not_before, clock_.Now() - absl::Minutes(2));
  EXPECT_EQ(issued->not_after, clock_.Now() + absl::Hours(1));
  EXPECT_EQ(PeerOf(*issued).id, Id("/web"));
  const auto logged = store_->certificates().FindBySerial(issued->serial);
  ASSERT_TRUE(logged.ok()) << logged.status();
  EXPECT_EQ(logged->spiffe_id, Id("/web"));
  EXPECT_EQ(logged->entry_id, issued->entry_id);
  EXPECT_EQ(logged->ca_id, ca_->current()->ca_id);
  EXPECT_EQ(logged->leaf_sha256, x509::Sha256OfCertificate(chain[0].get()));
  EXPECT_EQ(logged->not_after, issued->not_after);
}

TEST_F(IssuerTest, AnIdentityInTheCsrIsFineWhenItIsTheRightOne) {
  const std::string csr = *x509::CreateCsr(key_.get(), Id("/web"));
  EXPECT_TRUE(Issue(csr, attest::JoinTokenEvidence{Token("/web")}).ok());
}

TEST_F(IssuerTest, RefusesANeighboursIdentity) {
  const std::string csr = *x509::CreateCsr(key_.get(), Id("/db"));
  const auto issued = Issue(csr, attest::JoinTokenEvidence{Token("/web")});
  EXPECT_EQ(ReasonOf(issued.status()), RefusalReason::kIdentityMismatch);
  EXPECT_TRUE(absl::IsPermissionDenied(issued.status()));
  EXPECT_EQ(Issued(), 0U);
}

// Every request that is refused for itself: nothing is attested, so no token is used up.
TEST_F(IssuerTest, RefusesBadCsrsBeforeAnyTokenIsUsed) {
  const x509::PkeyPtr rsa512(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{512}));
  const x509::PkeyPtr p224(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-224"));
  ASSERT_TRUE(rsa512 != nullptr && p224 != nullptr);
  const x509::PkeyPtr other = *x509::GenerateP256Key();
  const std::string good = Csr();
  std::string flipped = good;
  flipped.back() = static_cast<char>(flipped.back() ^ 1);
  struct Case {
    const char* what;
    std::string csr;
    RefusalReason reason;
  };
  const RefusalReason bad = RefusalReason::kBadCsr;
  const RefusalReason foreign = RefusalReason::kForeignIdentity;
  const std::vector<Case> cases = {
      {"empty", "", bad},
      {"no DER", "hello", bad},
      {"too large", good + std::string(x509::kMaxCsrBytes, '\0'), bad},
      {"trailing bytes", good + "x", bad},
      {"truncated", good.substr(0, good.size() - 1), bad},
      {"bad signature", flipped, bad},
      {"another's key", MakeCsr(key_.get(), {.signer = other.get()}), bad},
      {"CA:TRUE", MakeCsr(key_.get(), {.extensions = {{NID_basic_constraints, "CA:TRUE"}}}), bad},
      {"RSA of 512 bits", MakeCsr(rsa512.get(), {}), bad},
      {"P-224", MakeCsr(p224.get(), {}), bad},
      {"two URIs",
       MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name,
                                            "URI:spiffe://example.org/web,URI:spiffe://"
                                            "example.org/db"}}}),
       bad},
      {"SPIFFE and http",
       MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name,
                                            "URI:http://example.org/,URI:spiffe://"
                                            "example.org/web"}}}),
       bad},
      {"foreign trust domain",
       MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name, "URI:spiffe://other.org/web"}}}),
       foreign},
      {"no SPIFFE ID",
       MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name, "URI:https://example.org/"}}}),
       foreign},
      {"the issuer itself",
       MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name,
                                            "URI:spiffe://example.org/postern/identity"}}}),
       foreign},
  };
  const std::string token = Token("/web");
  for (const Case& one : cases) {
    const auto issued = Issue(one.csr, attest::JoinTokenEvidence{token});
    ASSERT_FALSE(issued.ok()) << one.what;
    EXPECT_EQ(ReasonOf(issued.status()), one.reason) << one.what << ": " << issued.status();
    EXPECT_EQ(issued.status().code(), absl::StatusCode::kInvalidArgument) << one.what;
  }
  EXPECT_EQ(Issued(), 0U);
  EXPECT_TRUE(Issue(good, attest::JoinTokenEvidence{token}).ok()) << "the token was used up";
}

// What is not refused is ignored: the profile never depends on the request.
TEST_F(IssuerTest, TakesNothingButTheKeyFromACsr) {
  const std::vector<std::string> csrs = {
      MakeCsr(key_.get(), {.common_name = "root"}),
      MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name, "DNS:*,DNS:example.org"}}}),
      MakeCsr(key_.get(), {.extensions = {{NID_subject_alt_name, "IP:198.18.0.1"}}}),
      MakeCsr(key_.get(), {.extensions = {{NID_key_usage, "critical,keyCertSign,cRLSign"}}}),
      MakeCsr(key_.get(), {.extensions = {{NID_ext_key_usage, "anyExtendedKeyUsage"}}}),
      MakeCsr(key_.get(), {.extensions = {{NID_netscape_comment, "critical,hello"}}}),
  };
  for (const std::string& csr : csrs) {
    const auto issued = Issue(csr, attest::JoinTokenEvidence{Token("/web")});
    ASSERT_TRUE(issued.ok()) << issued.status();
    const std::vector<x509::X509Ptr> chain = ChainOf(*issued);
    X509* leaf = chain[0].get();
    EXPECT_EQ(X509_get_ext_count(leaf), 6);
    EXPECT_EQ(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
    EXPECT_EQ(X509_get_key_usage(leaf), static_cast<uint32_t>(KU_DIGITAL_SIGNATURE));
    EXPECT_EQ(X509_get_extended_key_usage(leaf),
              static_cast<uint32_t>(XKU_SSL_SERVER | XKU_SSL_CLIENT));
    EXPECT_FALSE(x509::IsCa(leaf));
    GENERAL_NAMES* names =
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr));
    EXPECT_EQ(sk_GENERAL_NAME_num(names), 1);
    GENERAL_NAMES_free(names);
    EXPECT_THAT(x509::UriSans(leaf), ElementsAre("spiffe://example.org/web"));
  }
}

TEST_F(IssuerTest, OfFiftyParallelUsesOfOneTokenOneGetsACertificate) {
  const std::string token = Token("/web");
  const std::string csr = Csr();
  std::atomic<int> issued{0};
  std::atomic<int> bad_token{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&] {
      const auto answer = Issue(csr, attest::JoinTokenEvidence{token});
      issued += answer.ok() ? 1 : 0;
      bad_token += !answer.ok() && ReasonOf(answer.status()) == RefusalReason::kBadToken ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(issued, 1);
  EXPECT_EQ(bad_token, 49);
  EXPECT_EQ(Issued(), 1U);
}

TEST_F(IssuerTest, RenewsUnderTheEntryThatTheOldCertificateCameFrom) {
  const auto first = IssueFor("/web");
  ASSERT_TRUE(first.ok());
  clock_.Advance(absl::Minutes(30));
  key_ = *x509::GenerateP256Key();
  const auto second = Issue(Csr(), attest::ExistingCertificateEvidence{PeerOf(*first)});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->entry_id, first->entry_id);
  EXPECT_EQ(second->id, first->id);
  EXPECT_NE(second->serial, first->serial);
  EXPECT_EQ(second->not_after, clock_.Now() + absl::Hours(1));
}

TEST_F(IssuerTest, DoesNotRenewOnceTheEntryIsDeleted) {
  const auto first = IssueFor("/web");
  const x509::VerifiedPeer peer = PeerOf(*first);
  ASSERT_TRUE(registry_->DeleteEntry(first->entry_id).ok());
  const auto second = Issue(Csr(), attest::ExistingCertificateEvidence{peer});
  EXPECT_EQ(ReasonOf(second.status()), RefusalReason::kNoEntry);
  EXPECT_TRUE(absl::IsPermissionDenied(second.status()));
}

TEST_F(IssuerTest, RenewsAJustExpiredCertificateAndNoLongExpiredOne) {
  const x509::VerifiedPeer peer = PeerOf(*IssueFor("/web"));
  clock_.Advance(absl::Minutes(90));
  const auto late = Issue(Csr(), attest::ExistingCertificateEvidence{peer});
  ASSERT_TRUE(late.ok()) << late.status();
  EXPECT_EQ(late->not_after, clock_.Now() + absl::Hours(1));
  clock_.Advance(absl::Minutes(31));
  EXPECT_EQ(ReasonOf(Issue(Csr(), attest::ExistingCertificateEvidence{peer}).status()),
            RefusalReason::kLongExpired);
}

TEST_F(IssuerTest, RefusesNoEntryAndMoreThanOne) {
  FixedAttestor attestor;
  issuer_ = *Issuer::Create({}, *ca_, *store_, attestor, clock_);
  attestor.answer->selectors = {"unix:gid:5", "unix:uid:7"};
  EXPECT_EQ(ReasonOf(Issue(Csr(), attest::UnixPeerEvidence{}).status()), RefusalReason::kNoEntry);
  ASSERT_TRUE(registry_->CreateEntry({.spiffe_id = Id("/a"), .selectors = {"unix:uid:7"}}).ok());
  const auto one = Issue(Csr(), attest::UnixPeerEvidence{});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->id, Id("/a"));
  ASSERT_TRUE(registry_->CreateEntry({.spiffe_id = Id("/b"), .selectors = {"unix:gid:5"}}).ok());
  const auto tie = Issue(Csr(), attest::UnixPeerEvidence{});
  EXPECT_EQ(ReasonOf(tie.status()), RefusalReason::kAmbiguousEntry);
  EXPECT_TRUE(absl::IsPermissionDenied(tie.status()));
}

TEST_F(IssuerTest, PassesOnWhyACallerIsNotAttested) {
  FixedAttestor attestor;
  attestor.answer = attest::Refuse(RefusalReason::kUnattested, "who are you");
  issuer_ = *Issuer::Create({}, *ca_, *store_, attestor, clock_);
  const auto issued = Issue(Csr(), attest::UnixPeerEvidence{});
  EXPECT_EQ(ReasonOf(issued.status()), RefusalReason::kUnattested);
  EXPECT_TRUE(absl::IsUnauthenticated(issued.status()));
}

TEST_F(IssuerTest, RefusesOnceItsCaHasExpiredAndUsesNoTokenForThat) {
  const postern::testing::TempDir dir;
  store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
  attestors_ = std::make_unique<attest::AttestorSet>(*store_, clock_);
  ca::CaOptions options{.state_dir = dir.path(), .trust_domain = ExampleOrg()};
  options.root_lifetime = absl::Seconds(60);
  Make({.default_ttl = absl::Seconds(20), .allow_short_ttl = true}, options);
  const std::string token = Token("/web");
  const absl::Time start = clock_.Now();
  clock_.SetNow(start + absl::Seconds(61));
  const auto issued = Issue(Csr(), attest::JoinTokenEvidence{token});
  EXPECT_EQ(ReasonOf(issued.status()), RefusalReason::kCaExpired);
  EXPECT_TRUE(absl::IsUnavailable(issued.status()));
  clock_.SetNow(start + absl::Seconds(50));
  const auto cut = Issue(Csr(), attest::JoinTokenEvidence{token});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->not_after, start + absl::Seconds(60)) << "never longer than the chain";
}

TEST_F(IssuerTest, DrawsAnotherSerialWhenOneWasDrawnBefore) {
  const postern::testing::TempDir dir;
  store_ = *store::OpenMemoryStore(ExampleOrg(), clock_);
  attestors_ = std::make_unique<attest::AttestorSet>(*store_, clock_);
  ca::CaOptions options{.state_dir = dir.path(), .trust_domain = ExampleOrg()};
  std::vector<uint8_t> draws = {1, 2, 7, 7, 8, 8, 8, 8};  // the first two are the CA's own
  size_t drawn = 0;
  options.serial_source = [&draws, &drawn] {
    ca::SerialBytes serial{};
    serial.back() = draws.at(drawn++);
    return serial;
  };
  Make({}, options);
  const auto seven = IssueFor("/a");
  const auto eight = IssueFor("/b");
  ASSERT_TRUE(seven.ok() && eight.ok()) << eight.status();
  EXPECT_NE(seven->serial, eight->serial);
  EXPECT_EQ(drawn, 5U);
  const auto none = IssueFor("/c");
  EXPECT_EQ(ReasonOf(none.status()), RefusalReason::kInternal);
  EXPECT_EQ(Issued(), 2U);
}

TEST_F(IssuerTest, TtlIsTheEntrysElseTheDefaultWithinBounds) {
  for (const absl::Duration bad : {absl::Seconds(599), absl::Hours(24) + absl::Seconds(1)}) {
    EXPECT_FALSE(Issuer::Create({.default_ttl = bad}, *ca_, *store_, *attestors_, clock_).ok());
  }
  EXPECT_FALSE(Issuer::Create({.default_ttl = absl::Seconds(9), .allow_short_ttl = true}, *ca_,
                              *store_, *attestors_, clock_)
                   .ok());
  Make({.default_ttl = absl::Seconds(10), .allow_short_ttl = true});
  EXPECT_EQ(IssueFor("/a")->not_after, clock_.Now() + absl::Seconds(10));
  const auto token = registry_->CreateToken(
      store::Entry{.spiffe_id = Id("/b"), .svid_ttl = absl::Seconds(30)}, absl::ZeroDuration());
  ASSERT_TRUE(token.ok());
  const auto second = registry_->CreateToken(
      store::Entry{.spiffe_id = Id("/c"), .svid_ttl = absl::Seconds(30)}, absl::ZeroDuration());
  EXPECT_EQ(Issue(Csr(), attest::JoinTokenEvidence{token->token})->not_after,
            clock_.Now() + absl::Seconds(30));
  Make({});  // restarted without --allow-short-ttl
  EXPECT_EQ(Issue(Csr(), attest::JoinTokenEvidence{second->token})->not_after,
            clock_.Now() + absl::Minutes(10));
}

TEST_F(IssuerTest, MakesTheIssuersOwnCertificate) {
  const auto svid = issuer_->IssueOwnSvid();
  ASSERT_TRUE(svid.ok()) << svid.status();
  EXPECT_EQ((*svid)->id().uri(), "spiffe://example.org/postern/identity");
  EXPECT_EQ((*svid)->not_before(), clock_.Now() - absl::Hours(24));
  EXPECT_TRUE((*svid)->CheckUsable(clock_.Now()).ok());
  EXPECT_THAT((*svid)->chain(), SizeIs(2));
  EXPECT_TRUE(store_->certificates().FindBySerial((*svid)->serial()).ok());
}

TEST_F(IssuerTest, KeepsWhatItIssuedOverARestartOnDisk) {
  std::string serial;
  {
    store_ = *store::OpenSqliteStore(dir_.path(), ExampleOrg(), clock_);
    attestors_ = std::make_unique<attest::AttestorSet>(*store_, clock_);
    std::filesystem::remove_all(dir_.Path("keys"));
    Make({});
    serial = IssueFor("/web")->serial;
    issuer_.reset();
    registry_.reset();
    ca_.reset();
    attestors_.reset();
    store_.reset();
  }
  store_ = *store::OpenSqliteStore(dir_.path(), ExampleOrg(), clock_);
  EXPECT_EQ(store_->certificates().FindBySerial(serial)->spiffe_id, Id("/web"));
}

TEST_F(IssuerTest, RefusesAndSaysStoreErrorWhenTheStoreFails) {
  // A store that forgets how to write: its directory's database is damaged under it.
  class FailingLog : public store::CertificateLog {
   public:
    explicit FailingLog(store::CertificateLog& log) : log_(log) {}
    absl::Status Append(const store::IssuedCertificate&) override {
      return absl::UnavailableError("disk full");
    }
    absl::StatusOr<store::IssuedCertificate> FindBySerial(std::string_view serial) override {
      return log_.FindBySerial(serial);
    }
    absl::StatusOr<std::vector<store::LiveCertificate>> ListLive(absl::Time now) override {
      return log_.ListLive(now);
    }
    absl::StatusOr<uint64_t> CountIssued() override { return log_.CountIssued(); }
    absl::StatusOr<uint64_t> PruneExpired(absl::Time before) override {
      return log_.PruneExpired(before);
    }

   private:
    store::CertificateLog& log_;
  };
  class FailingStore : public store::Store {
   public:
    explicit FailingStore(store::Store& store) : store_(store), log_(store.certificates()) {}
    store::EntryStore& entries() override { return store_.entries(); }
    store::TokenStore& tokens() override { return store_.tokens(); }
    store::CertificateLog& certificates() override { return log_; }
    store::CaStore& cas() override { return store_.cas(); }
    store::PolicyStore& policy() override { return store_.policy(); }
    store::SpeakerStore& speakers() override { return store_.speakers(); }
    store::ForeignBundleStore& foreign_bundles() override { return store_.foreign_bundles(); }
    store::RevocationStore& revocations() override { return store_.revocations(); }
    uint64_t epoch() const override { return store_.epoch(); }
    uint64_t error_count() const override { return 1; }
    absl::Status Probe() override { return absl::UnavailableError("disk full"); }

   private:
    store::Store& store_;
    FailingLog log_;
  };
  FailingStore failing(*store_);
  issuer_ = *Issuer::Create({}, *ca_, failing, *attestors_, clock_);
  const auto issued = IssueFor("/web");
  EXPECT_EQ(ReasonOf(issued.status()), RefusalReason::kStoreError);
  EXPECT_TRUE(absl::IsUnavailable(issued.status()));
  EXPECT_EQ(Issued(), 0U) << "nothing goes out that was not recorded";
}

}  // namespace
}  // namespace postern::issue
