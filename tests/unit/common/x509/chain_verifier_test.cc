// SPDX-License-Identifier: Apache-2.0
#include "common/x509/chain_verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <sys/resource.h>

#include <functional>
#include <utility>

#include "common/base/sanitized.h"
#include "common/x509/certificate.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using namespace std::string_literals;
using base::CloseReason;
using testing::CaSpec;
using testing::CertificateSpec;
using ::testing::HasSubstr;
using testing::KeyType;
using testing::LeafSpec;
using testing::Minted;
using ::testing::SizeIs;
using testing::TestCa;

constexpr std::string_view kWeb = "spiffe://example.org/web";

class ChainVerifierTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }

  ChainVerdict Verify(const Minted& peer, const TrustBundleSet& bundles,
                      PeerRole role = PeerRole::kClient) {
    ChainVerdict verdict =
        VerifyPeerChain(peer.leaf(), peer.Untrusted().get(), bundles, role, clock_.Now());
    EXPECT_EQ(ERR_peek_error(), 0U);
    // Refused: with an error that OpenSSL turns into an alert, and a sentence.
    EXPECT_TRUE(verdict.peer.has_value() || verdict.error.x509_error != X509_V_OK);
    EXPECT_TRUE(verdict.peer.has_value() || !verdict.error.detail.empty());
    EXPECT_TRUE(verdict.peer.has_value() || verdict.error.reason != CloseReason::kOk);
    return verdict;
  }
  ChainVerdict Verify(const Minted& peer, PeerRole role = PeerRole::kClient) {
    return Verify(peer, ca_.BundleSet(), role);
  }

  CertificateSpec Leaf() const { return Valid(LeafSpec(kWeb)); }
  CertificateSpec Valid(CertificateSpec spec) const {
    return spec.LivesFrom(clock_.Now(), absl::Hours(1));
  }

  TestCa ca_;
  fakes::FakeClock clock_;
};

TEST_F(ChainVerifierTest, AcceptsALeafOfTheRoot) {
  const Minted peer = ca_.Mint(Leaf());
  for (const PeerRole role : {PeerRole::kClient, PeerRole::kServer}) {
    const ChainVerdict verdict = Verify(peer, role);
    ASSERT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
    EXPECT_EQ(verdict.peer->id.uri(), kWeb);
    EXPECT_EQ(verdict.peer->serial, SerialHex(peer.leaf()));
    EXPECT_EQ(verdict.peer->not_before, NotBefore(peer.leaf()));
    EXPECT_EQ(verdict.peer->not_after, NotAfter(peer.leaf()));
    EXPECT_EQ(verdict.peer->leaf_sha256, Sha256OfCertificate(peer.leaf()));
    ASSERT_THAT(verdict.peer->chain_sha256, SizeIs(2));
    EXPECT_EQ(verdict.peer->chain_sha256[0], Sha256OfCertificate(peer.leaf()));
    EXPECT_EQ(verdict.peer->chain_sha256[1], Sha256OfCertificate(ca_.root()));
  }
}

TEST_F(ChainVerifierTest, AcceptsAsManyIntermediatesAsTheDepthAllows) {
  const TestCa deepest = ca_.Intermediate().Intermediate().Intermediate();
  const Minted peer = deepest.Mint(Leaf());
  ASSERT_THAT(peer.chain, SizeIs(static_cast<size_t>(kMaxChainDepth)));
  const ChainVerdict verdict = Verify(peer);
  ASSERT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
  EXPECT_THAT(verdict.peer->chain_sha256, SizeIs(static_cast<size_t>(kMaxChainDepth) + 1));
}

TEST_F(ChainVerifierTest, EndsWithTheFirstCertificateOfTheVerifiedChain) {
  CertificateSpec spec = CaSpec("short");
  spec.not_after = clock_.Now() + absl::Minutes(5);
  const ChainVerdict verdict = Verify(ca_.Intermediate(spec).Mint(Leaf()));
  ASSERT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
  EXPECT_EQ(verdict.peer->not_after, spec.not_after);
}

TEST_F(ChainVerifierTest, AcceptsTheChainInAnyOrderWithTheLeafAndTheRootInIt) {
  Minted peer = ca_.Intermediate().Intermediate().Mint(Leaf());
  std::swap(peer.chain[1], peer.chain[2]);
  peer.chain.push_back(ca_.Root());
  peer.chain.push_back(ShareX509(peer.leaf()));
  EXPECT_TRUE(Verify(peer).peer.has_value());
}

TEST_F(ChainVerifierTest, AcceptsEachStrongKindOfKey) {
  for (const KeyType type : {KeyType::kP384, KeyType::kEd25519, KeyType::kRsa2048}) {
    CertificateSpec root = CaSpec("root");
    root.key_type = type;
    const TestCa ca("example.org", root);
    CertificateSpec leaf = Leaf();
    leaf.key_type = type;
    const ChainVerdict verdict = Verify(ca.Mint(leaf), ca.BundleSet());
    EXPECT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
  }
}

TEST_F(ChainVerifierTest, AcceptsAnIntermediateAsTheAnchor) {
  const TestCa intermediate = ca_.Intermediate();
  const TrustBundleSet bundles =
      TrustBundleSet::FromFileContent(CertificateToPem(intermediate.certificate()),
                                      ca_.trust_domain())
          .value();
  const ChainVerdict verdict = Verify(intermediate.Mint(Leaf()), bundles);
  ASSERT_TRUE(verdict.peer.has_value()) << verdict.error.detail;
  EXPECT_THAT(verdict.peer->chain_sha256, SizeIs(2));
}

TEST_F(ChainVerifierTest, AcceptsEitherRootWhileTheyRotate) {
  const TestCa next("example.org");
  const TrustBundleSet both =
      TrustBundleSet::FromFileContent(ca_.RootPem() + next.RootPem(), ca_.trust_domain()).value();
  EXPECT_TRUE(Verify(ca_.Mint(Leaf()), both).peer.has_value());
  EXPECT_TRUE(Verify(next.Mint(Leaf()), both).peer.has_value());
  EXPECT_FALSE(Verify(ca_.Mint(Leaf()), next.BundleSet()).peer.has_value());
}

TEST_F(ChainVerifierTest, AcceptsOtherKindsOfNamesBesideTheId) {
  CertificateSpec spec = Leaf();
  spec.dns_names = {"web.example.org", "*.example.org"};
  spec.emails = {"a@example.org"};
  EXPECT_TRUE(Verify(ca_.Mint(spec)).peer.has_value());
}

TEST_F(ChainVerifierTest, JudgesTheValidityToTheSecond) {
  const Minted peer = ca_.Mint(Leaf());
  const absl::Time begin = NotBefore(peer.leaf());
  const absl::Time end = NotAfter(peer.leaf());
  const std::pair<absl::Time, CloseReason> cases[] = {
      {begin - absl::Seconds(1), CloseReason::kPeerNotYetValid},
      {begin, CloseReason::kOk},
      {end - absl::Seconds(1), CloseReason::kOk},
      {end + absl::Seconds(1), CloseReason::kPeerExpired}};
  for (const auto& [now, reason] : cases) {
    clock_.SetNow(now);
    const ChainVerdict verdict = Verify(peer);
    EXPECT_EQ(verdict.peer ? CloseReason::kOk : verdict.error.reason, reason) << now;
  }
}

// ---------------------------------------------------------------- what must be refused

struct Refused {
  const char* what;
  CloseReason reason;
  int x509_error;
  int depth;
  std::function<void(CertificateSpec&)> spoil;
};

constexpr int kRejected = X509_V_ERR_CERT_REJECTED;
constexpr int kPurpose = X509_V_ERR_INVALID_PURPOSE;

class BadLeafTest : public ChainVerifierTest {
 protected:
  // Each case must be refused below a root and below an intermediate.
  void ExpectRefused(const std::vector<Refused>& cases, PeerRole role) {
    const TestCa intermediate = ca_.Intermediate();
    for (const Refused& bad : cases) {
      CertificateSpec spec = Leaf();
      bad.spoil(spec);
      for (const TestCa* ca : std::vector<const TestCa*>{&ca_, &intermediate}) {
        const ChainVerdict verdict = Verify(ca->Mint(spec), role);
        ASSERT_FALSE(verdict.peer.has_value()) << bad.what;
        EXPECT_EQ(Token(verdict.error.reason), Token(bad.reason)) << bad.what;
        EXPECT_EQ(verdict.error.x509_error, bad.x509_error) << bad.what;
        EXPECT_EQ(verdict.error.depth, bad.depth) << bad.what;
      }
    }
  }
};

TEST_F(BadLeafTest, IsRefusedForItsIdentity) {
  const CloseReason reason = CloseReason::kPeerBadCertificate;
  const auto with = [](std::vector<std::string> uris) {
    return [uris](CertificateSpec& s) { s.uris = uris; };
  };
  const std::string web(kWeb);
  ExpectRefused({{"no URI", reason, kRejected, 0, with({})},
                 {"two SPIFFE IDs", reason, kRejected, 0, with({web, "spiffe://example.org/b"})},
                 {"a SPIFFE ID and http", reason, kRejected, 0, with({web, "http://example.org/"})},
                 {"http and a SPIFFE ID", reason, kRejected, 0, with({"http://example.org/", web})},
                 {"only http", reason, kRejected, 0, with({"http://example.org/web"})},
                 {"no path", reason, kRejected, 0, with({"spiffe://example.org"})},
                 {"upper case", reason, kRejected, 0, with({"spiffe://EXAMPLE.org/web"})},
                 {"a port", reason, kRejected, 0, with({"spiffe://example.org:8443/web"})},
                 {"dot segments", reason, kRejected, 0, with({"spiffe://example.org/../web"})},
                 {"percent encoding", reason, kRejected, 0, with({"spiffe://example.org/%61"})},
                 {"an embedded NUL", reason, kRejected, 0, with({web + "\0.evil"s})},
                 {"a DNS name only", reason, kRejected, 0,
                  [web](CertificateSpec& s) {
                    s.uris.clear();
                    s.dns_names = {web};
                  }},
                 {"an e-mail only", reason, kRejected, 0,
                  [web](CertificateSpec& s) {
                    s.uris.clear();
                    s.emails = {web};
                  }},
                 {"bytes behind the names", reason, kRejected, 0,
                  [](CertificateSpec& s) { s.san_trailer = "\x05\x00"s; }},
                 {"the SAN extension twice", reason, kRejected, 0,
                  [](CertificateSpec& s) { s.san_twice = true; }},
                 {"1000 names", reason, kRejected, 0,
                  [](CertificateSpec& s) { s.dns_names.assign(999, "a.example.org"); }}},
                PeerRole::kClient);
}

TEST_F(BadLeafTest, IsRefusedForItsProfile) {
  const CloseReason bad = CloseReason::kPeerBadCertificate;
  const CloseReason usage = CloseReason::kPeerWrongUsage;
  ExpectRefused(
      {{"CA:TRUE", bad, kRejected, 0, [](CertificateSpec& s) { s.ca = true; }},
       {"CA:TRUE and keyCertSign", bad, kRejected, 0,
        [](CertificateSpec& s) {
          s.ca = true;
          s.key_usage = "digitalSignature,keyCertSign";
        }},
       {"keyCertSign", bad, kRejected, 0,
        [](CertificateSpec& s) { s.key_usage = "digitalSignature,keyCertSign"; }},
       {"cRLSign", bad, kRejected, 0,
        [](CertificateSpec& s) { s.key_usage = "digitalSignature,cRLSign"; }},
       {"no key usage", usage, kPurpose, 0, [](CertificateSpec& s) { s.key_usage.reset(); }},
       {"no digitalSignature", usage, kPurpose, 0,
        [](CertificateSpec& s) { s.key_usage = "keyEncipherment"; }},
       {"an unknown critical extension", bad, X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION, 0,
        [](CertificateSpec& s) { s.unknown_critical_extension = true; }},
       {"RSA-512", bad, X509_V_ERR_EE_KEY_TOO_SMALL, 0,
        [](CertificateSpec& s) { s.key_type = KeyType::kRsa512; }},
       {"RSA-1024", bad, X509_V_ERR_EE_KEY_TOO_SMALL, 0,
        [](CertificateSpec& s) { s.key_type = KeyType::kRsa1024; }},
       {"P-192", bad, X509_V_ERR_EE_KEY_TOO_SMALL, 0,
        [](CertificateSpec& s) { s.key_type = KeyType::kP192; }},
       {"P-224", bad, X509_V_ERR_EE_KEY_TOO_SMALL, 0,
        [](CertificateSpec& s) { s.key_type = KeyType::kP224; }},
       {"a SHA-1 signature", bad, X509_V_ERR_CA_MD_TOO_WEAK, 0,
        [](CertificateSpec& s) { s.digest = "SHA1"; }},
       {"expired", CloseReason::kPeerExpired, X509_V_ERR_CERT_HAS_EXPIRED, 0,
        [this](CertificateSpec& s) { s.not_after = clock_.Now() - absl::Seconds(5); }},
       {"not yet valid", CloseReason::kPeerNotYetValid, X509_V_ERR_CERT_NOT_YET_VALID, 0,
        [this](CertificateSpec& s) { s.not_before = clock_.Now() + absl::Seconds(5); }}},
      PeerRole::kClient);
}

TEST_F(BadLeafTest, IsRefusedForAnMd5Signature) {
  CertificateSpec root = CaSpec("rsa root");
  root.key_type = KeyType::kRsa2048;
  const TestCa ca("example.org", root);
  CertificateSpec leaf = Leaf();
  leaf.digest = "MD5";
  const ChainVerdict verdict = Verify(ca.Mint(leaf), ca.BundleSet());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerBadCertificate);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_CA_MD_TOO_WEAK);
}

struct ExtendedUsage {
  std::optional<std::string> value;
  bool client;
  bool server;
};

// B10: the usage must stand there, in so many words.
TEST_F(ChainVerifierTest, WantsTheUsageOfTheRoleInTheLeaf) {
  const ExtendedUsage cases[] = {{std::nullopt, false, false},
                                 {"", false, false},
                                 {"anyExtendedKeyUsage", false, false},
                                 {"codeSigning", false, false},
                                 {"emailProtection,codeSigning", false, false},
                                 {"clientAuth", true, false},
                                 {"serverAuth", false, true},
                                 {"serverAuth,clientAuth", true, true},
                                 {"codeSigning,clientAuth", true, false},
                                 {"anyExtendedKeyUsage,serverAuth", false, true}};
  for (const ExtendedUsage& usage : cases) {
    CertificateSpec spec = Leaf();
    spec.extended_key_usage = usage.value;
    const Minted peer = ca_.Mint(spec);
    for (const PeerRole role : {PeerRole::kClient, PeerRole::kServer}) {
      const ChainVerdict verdict = Verify(peer, role);
      const bool good = role == PeerRole::kClient ? usage.client : usage.server;
      EXPECT_EQ(verdict.peer.has_value(), good) << usage.value.value_or("none");
      if (!good) {
        EXPECT_EQ(verdict.error.reason, CloseReason::kPeerWrongUsage);
        EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_INVALID_PURPOSE);
        EXPECT_EQ(verdict.error.depth, 0);
      }
    }
  }
}

TEST_F(ChainVerifierTest, WantsACaThatNamesUsagesToNameThatOfTheRole) {
  const ExtendedUsage cases[] = {
      {std::nullopt, true, true},           {"", false, false},
      {"anyExtendedKeyUsage", true, true},  {"codeSigning", false, false},
      {"clientAuth", true, false},          {"serverAuth", false, true},
      {"serverAuth,clientAuth", true, true}};
  for (const ExtendedUsage& usage : cases) {
    CertificateSpec spec = CaSpec("CA");
    spec.extended_key_usage = usage.value;
    const TestCa root("example.org", spec);
    const TestCa below_root = ca_.Intermediate(spec);
    for (const TestCa* ca : std::vector<const TestCa*>{&root, &below_root}) {
      const Minted peer = ca->Mint(Leaf());
      for (const PeerRole role : {PeerRole::kClient, PeerRole::kServer}) {
        const ChainVerdict verdict = Verify(peer, ca->BundleSet(), role);
        const bool good = role == PeerRole::kClient ? usage.client : usage.server;
        EXPECT_EQ(verdict.peer.has_value(), good) << usage.value.value_or("none");
        EXPECT_TRUE(good || (verdict.error.reason == CloseReason::kPeerWrongUsage &&
                             verdict.error.depth == 1));
      }
    }
  }
}

struct BadCa {
  const char* what;
  CloseReason reason;
  int x509_error;
  int depth;
  std::function<void(CertificateSpec&)> spoil;
};

TEST_F(ChainVerifierTest, RefusesEachKindOfBadIntermediate) {
  const CloseReason bad = CloseReason::kPeerBadCertificate;
  const CloseReason untrusted = CloseReason::kPeerUntrusted;
  const std::vector<BadCa> cases = {
      {"expired", CloseReason::kPeerExpired, X509_V_ERR_CERT_HAS_EXPIRED, 1,
       [this](CertificateSpec& s) { s.not_after = clock_.Now() - absl::Seconds(1); }},
      {"not yet valid", CloseReason::kPeerNotYetValid, X509_V_ERR_CERT_NOT_YET_VALID, 1,
       [this](CertificateSpec& s) { s.not_before = clock_.Now() + absl::Minutes(1); }},
      {"CA:FALSE", untrusted, X509_V_ERR_INVALID_CA, 1, [](CertificateSpec& s) { s.ca = false; }},
      {"no basicConstraints", untrusted, X509_V_ERR_INVALID_CA, 1,
       [](CertificateSpec& s) { s.ca.reset(); }},
      {"no keyCertSign", untrusted, -1, -1,
       [](CertificateSpec& s) { s.key_usage = "digitalSignature"; }},
      {"RSA-512", bad, X509_V_ERR_CA_KEY_TOO_SMALL, 1,
       [](CertificateSpec& s) { s.key_type = KeyType::kRsa512; }},
      {"RSA-1024", bad, X509_V_ERR_CA_KEY_TOO_SMALL, 1,
       [](CertificateSpec& s) { s.key_type = KeyType::kRsa1024; }},
      {"P-192", bad, X509_V_ERR_CA_KEY_TOO_SMALL, 1,
       [](CertificateSpec& s) { s.key_type = KeyType::kP192; }},
      {"P-521", bad, X509_V_ERR_CA_KEY_TOO_SMALL, 1,
       [](CertificateSpec& s) { s.key_type = KeyType::kP521; }},
      {"a SHA-1 signature", bad, X509_V_ERR_CA_MD_TOO_WEAK, 1,
       [](CertificateSpec& s) { s.digest = "SHA1"; }},
      {"names of another trust domain only", untrusted, X509_V_ERR_PERMITTED_VIOLATION, -1,
       [](CertificateSpec& s) { s.name_constraints = "permitted;URI:other.org"; }},
      {"names of ours left out", untrusted, X509_V_ERR_EXCLUDED_VIOLATION, -1,
       [](CertificateSpec& s) { s.name_constraints = "excluded;URI:example.org"; }},
      {"an unknown critical extension", bad, X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION, 1,
       [](CertificateSpec& s) { s.unknown_critical_extension = true; }},
  };
  for (const BadCa& ca : cases) {
    CertificateSpec spec = CaSpec("intermediate");
    ca.spoil(spec);
    const ChainVerdict verdict = Verify(ca_.Intermediate(spec).Mint(Leaf()));
    ASSERT_FALSE(verdict.peer.has_value()) << ca.what;
    EXPECT_EQ(Token(verdict.error.reason), Token(ca.reason)) << ca.what;
    EXPECT_TRUE(ca.x509_error < 0 || verdict.error.x509_error == ca.x509_error)
        << ca.what << ": " << verdict.error.x509_error;
    EXPECT_TRUE(ca.depth < 0 || verdict.error.depth == ca.depth)
        << ca.what << ": " << verdict.error.depth;
    EXPECT_EQ(verdict.error.peer_id, kWeb) << ca.what;
  }
}

TEST_F(ChainVerifierTest, RefusesAnIntermediateWithAThousandNames) {
  CertificateSpec spec = CaSpec("intermediate");
  spec.dns_names.assign(1000, "a.example.org");
  const ChainVerdict verdict = Verify(ca_.Intermediate(spec).Mint(Leaf()));
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerBadCertificate);
  EXPECT_THAT(verdict.error.detail, HasSubstr("1000"));
}

TEST_F(ChainVerifierTest, RefusesALeafWithAThousandNamesThatCameAlone) {
  CertificateSpec spec = Leaf();
  spec.dns_names.assign(1000, "a.example.org");
  const Minted peer = ca_.Mint(spec);
  const ChainVerdict verdict =
      VerifyPeerChain(peer.leaf(), nullptr, ca_.BundleSet(), PeerRole::kClient, clock_.Now());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerBadCertificate);
  EXPECT_THAT(verdict.error.detail, HasSubstr("1001"));
}

TEST_F(ChainVerifierTest, RefusesBadRoots) {
  CertificateSpec spec = CaSpec("expired root");
  spec.not_after = clock_.Now() - absl::Minutes(1);
  const TestCa expired("example.org", spec);
  ChainVerdict verdict = Verify(expired.Mint(Leaf()), expired.BundleSet());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerExpired);
  EXPECT_EQ(verdict.error.depth, 1);

  spec = CaSpec("root of the future");
  spec.not_before = clock_.Now() + absl::Minutes(1);
  const TestCa early("example.org", spec);
  verdict = Verify(early.Mint(Leaf()), early.BundleSet());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerNotYetValid);
  EXPECT_EQ(verdict.error.depth, 1);

  spec = CaSpec("SHA-1 root");
  spec.digest = "SHA1";
  const TestCa sha1("example.org", spec);
  verdict = Verify(sha1.Mint(Leaf()), sha1.BundleSet());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerBadCertificate);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_CA_MD_TOO_WEAK);
  EXPECT_EQ(verdict.error.depth, 1);
}

TEST_F(ChainVerifierTest, HonoursThePathLengthOfACa) {
  CertificateSpec spec = CaSpec("leaves only");
  spec.path_length = 0;
  const TestCa root("example.org", spec);
  EXPECT_TRUE(Verify(root.Mint(Leaf()), root.BundleSet()).peer.has_value());
  const ChainVerdict verdict = Verify(root.Intermediate().Mint(Leaf()), root.BundleSet());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_PATH_LENGTH_EXCEEDED);
}

// ---------------------------------------------------------------- who may speak for whom

TEST_F(ChainVerifierTest, RefusesAnotherCaOfTheSameName) {
  const TestCa impostor("example.org");
  const ChainVerdict verdict = Verify(impostor.Mint(Leaf()));
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.peer_id, kWeb);
}

TEST_F(ChainVerifierTest, RefusesARootThatThePeerBroughtItself) {
  const TestCa impostor("example.org", CaSpec("own root"));
  Minted peer = impostor.Mint(Leaf());
  peer.chain.push_back(impostor.Root());
  const ChainVerdict verdict = Verify(peer);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
}

TEST_F(ChainVerifierTest, RefusesARootThatSpeaksForAnotherTrustDomain) {
  const TestCa other("other.org");
  const TrustBundleSet both = testing::BundleSetOf({&ca_, &other});
  EXPECT_TRUE(Verify(other.Mint(Valid(LeafSpec("spiffe://other.org/web"))), both).peer.has_value());
  const ChainVerdict verdict = Verify(other.Mint(Leaf()), both);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.peer_id, kWeb);
}

TEST_F(ChainVerifierTest, RefusesAnUnknownTrustDomain) {
  const ChainVerdict verdict = Verify(ca_.Mint(Valid(LeafSpec("spiffe://unknown.org/web"))));
  EXPECT_EQ(verdict.error.reason, CloseReason::kTrustDomainUnknown);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
  EXPECT_EQ(verdict.error.peer_id, "spiffe://unknown.org/web");
  EXPECT_EQ(Verify(ca_.Mint(Leaf()), TrustBundleSet()).error.reason,
            CloseReason::kTrustDomainUnknown);
}

TEST_F(ChainVerifierTest, RefusesAMissingIntermediate) {
  Minted peer = ca_.Intermediate().Mint(Leaf());
  peer.chain.resize(1);
  const ChainVerdict verdict = Verify(peer);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
  EXPECT_EQ(verdict.error.depth, 0);
}

TEST_F(ChainVerifierTest, RefusesASelfSignedLeaf) {
  CertificateSpec spec = Leaf();
  spec.common_name = "self";
  const TestCa self("example.org", spec);
  Minted peer;
  peer.chain.push_back(self.Root());
  const ChainVerdict verdict = Verify(peer);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
}

TEST_F(ChainVerifierTest, RefusesARootThatPresentsItself) {
  CertificateSpec spec = CaSpec("root with an ID");
  spec.uris = {std::string(kWeb)};
  spec.key_usage = "digitalSignature,keyCertSign";
  spec.extended_key_usage = "serverAuth,clientAuth";
  const TestCa root("example.org", spec);
  Minted peer;
  peer.chain.push_back(root.Root());
  EXPECT_EQ(Verify(peer, root.BundleSet()).error.reason, CloseReason::kPeerBadCertificate);
}

TEST_F(ChainVerifierTest, RefusesAnotherLeafAsIssuer) {
  // A workload signs a certificate for another identity with its own key.
  const Minted workload = ca_.Mint(Leaf());
  CertificateSpec spec = Leaf();
  spec.ca = false;
  spec.common_name = "workload";
  const TestCa bad = ca_.Intermediate(spec);
  const ChainVerdict verdict = Verify(bad.Mint(Valid(LeafSpec("spiffe://example.org/admin"))));
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
}

TEST_F(ChainVerifierTest, RefusesAChangedLeaf) {
  const Minted peer = ca_.Mint(Leaf());
  std::string der = CertificateToDer(peer.leaf());
  const size_t at = der.find("/web");
  ASSERT_NE(at, std::string::npos);
  der.replace(at, 4, "/adm");
  Minted changed;
  changed.chain.push_back(CertificateFromDer(base::AsBytes(der)).value());
  const ChainVerdict verdict = Verify(changed);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_CERT_SIGNATURE_FAILURE);
  EXPECT_EQ(verdict.error.peer_id, "spiffe://example.org/adm");
}

TEST_F(ChainVerifierTest, RefusesAChainThatIsTooDeep) {
  const Minted peer = ca_.Intermediate().Intermediate().Intermediate().Intermediate().Mint(Leaf());
  const ChainVerdict verdict = Verify(peer);
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerUntrusted);
  EXPECT_EQ(verdict.error.x509_error, X509_V_ERR_CERT_CHAIN_TOO_LONG);
}

TEST_F(ChainVerifierTest, RefusesMoreCertificatesThanAnyChainNeeds) {
  Minted peer = ca_.Mint(Leaf());
  for (int i = 0; i < 100; ++i) {
    peer.chain.push_back(ca_.Root());
  }
  EXPECT_EQ(Verify(peer).error.x509_error, X509_V_ERR_CERT_CHAIN_TOO_LONG);
}

TEST_F(ChainVerifierTest, RefusesNoCertificate) {
  const ChainVerdict verdict =
      VerifyPeerChain(nullptr, nullptr, ca_.BundleSet(), PeerRole::kClient, clock_.Now());
  EXPECT_EQ(verdict.error.reason, CloseReason::kPeerNoCertificate);
  EXPECT_NE(verdict.error.x509_error, X509_V_OK);
}

TEST_F(ChainVerifierTest, SaysWhichCertificateExpiredAndByHowMuch) {
  CertificateSpec spec = CaSpec("old CA\n\x1b[2J");
  spec.not_after = clock_.Now() - absl::Seconds(3725);
  ChainVerdict verdict = Verify(ca_.Intermediate(spec).Mint(Leaf()));
  EXPECT_THAT(verdict.error.detail, HasSubstr("certificate 1 above the leaf (CN=old CA"));
  EXPECT_THAT(verdict.error.detail, HasSubstr("expired 1h2m5s ago"));
  EXPECT_EQ(verdict.error.detail.find('\n'), std::string::npos);
  EXPECT_EQ(verdict.error.detail.find('\x1b'), std::string::npos);

  CertificateSpec leaf = Leaf();
  leaf.not_before = clock_.Now() + absl::Seconds(90);
  verdict = Verify(ca_.Mint(leaf));
  EXPECT_THAT(verdict.error.detail, HasSubstr("the leaf is not valid for another 1m30s"));
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// C8: chains that are made to be slow, within the 64 KiB that a handshake message may have.
TEST_F(ChainVerifierTest, JudgesPathologicalChainsInLittleTime) {
  CertificateSpec constrained = CaSpec("constraints");
  for (int i = 0; i < 1500; ++i) {
    constrained.name_constraints +=
        (i == 0 ? "" : ",") + "permitted;URI:h"s + std::to_string(i) + ".example.org";
  }
  CertificateSpec many_names = Leaf();
  many_names.dns_names.assign(60, "a.example.org");
  const Minted constraints_times_names = ca_.Intermediate(constrained).Mint(many_names);

  // Ten CAs of one name and key identifier: each may seem to be the issuer of each other.
  Minted same_names = ca_.Intermediate().Mint(Leaf());
  same_names.chain.resize(1);
  for (int i = 0; i < 9; ++i) {
    same_names.chain.push_back(ShareX509(ca_.Intermediate().certificate()));
  }
  for (const Minted* peer : {&constraints_times_names, &std::as_const(same_names)}) {
    const double before = CpuSeconds();
    EXPECT_FALSE(Verify(*peer).peer.has_value());
    EXPECT_LT(CpuSeconds() - before, base::kSanitized ? 2.0 : 0.1);
  }
}

}  // namespace
}  // namespace postern::x509
