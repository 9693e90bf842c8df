// SPDX-License-Identifier: Apache-2.0
#include "control/ca/plugged_ca.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using ::testing::AnyOf;
using testing::CaFileNames;
using testing::CaMount;
using testing::CaSpec;
using testing::CertificateSpec;
using ::testing::HasSubstr;
using testing::KeyType;
using ::testing::SizeIs;
using testing::TestCa;

class PluggedCaTest : public ::testing::Test {
 protected:
  CaVerdict Judge(const CaFiles& files) {
    return JudgeCa(files, nullptr, *x509::TrustDomain::Parse("example.org"), clock_.Now());
  }
  static CaFiles FilesOf(const TestCa& ca) {
    CaFiles files;
    files.signing_pem = x509::CertificatesToPem(ca.Intermediates());
    files.roots_pem = ca.RootPem();
    files.key_pem = testing::KeyPem(ca.key());
    return files;
  }
  CaVerdict Judge(const TestCa& ca) { return Judge(FilesOf(ca)); }
  void ExpectRefused(const CaVerdict& verdict, CaProblem problem, const std::string& detail) {
    EXPECT_EQ(verdict.ca, nullptr);
    EXPECT_EQ(Token(verdict.problem), Token(problem)) << verdict.detail;
    EXPECT_THAT(verdict.detail, HasSubstr(detail));
  }
  // The CA below the usual root whose certificate is changed by `change`.
  template <typename Change>
  CaVerdict JudgeChanged(Change change) {
    CertificateSpec spec = CaSpec("issuing");
    change(spec);
    return Judge(root_.Intermediate(spec));
  }
  // As a peer with just the roots: what this CA signs for /web.
  x509::ChainVerdict VerifyLeafOf(const PluggedCa& ca) {
    PluggedRoots roots;
    for (const auto& root : ca.roots) {
      roots.trusted.push_back(x509::ShareX509(root.get()));
    }
    const auto signer =
        *CaSigner::OpenPlugged({.state_dir = dir_.path(), .trust_domain = domain_}, ca.slot,
                               std::move(roots), store::Version{1, 1}, clock_);
    const x509::PkeyPtr key = testing::MakeKey();
    const auto made =
        signer->SignX509Svid({.id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                              .public_key = key.get(),
                              .ttl = absl::Hours(1)});
    EXPECT_TRUE(made.ok()) << made.status();
    leaf_ = *x509::CertificateFromDer(base::AsBytes(made->leaf_der));
    std::vector<x509::X509Ptr> sent;
    for (const std::string& der : made->signer->chain_der) {
      sent.push_back(*x509::CertificateFromDer(base::AsBytes(der)));
    }
    return x509::VerifyPeerChain(leaf_.get(), x509::ShareX509Stack(sent).get(), *signer->bundles(),
                                 x509::PeerRole::kServer, clock_.Now());
  }

  const testing::TempDir dir_;
  fakes::FakeClock clock_;
  const x509::TrustDomain domain_ = *x509::TrustDomain::Parse("example.org");
  const TestCa root_{"example.org"};
  x509::X509Ptr leaf_;
};

TEST_F(PluggedCaTest, TakesAnIntermediateInEachLayout) {
  const TestCa ca = root_.Intermediate();
  for (const CaFileNames names : {CaFileNames::kIstio, CaFileNames::kTls, CaFileNames::kLinkerd}) {
    const CaMount mount(dir_.Path(std::to_string(static_cast<int>(names))), names);
    mount.Write(ca);
    const CaVerdict verdict = Judge(*ReadCaFiles({mount.path()}));
    ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
    EXPECT_THAT(verdict.ca->roots, SizeIs(1));
    const SigningSlot& slot = *verdict.ca->slot;
    EXPECT_THAT(slot.chain, SizeIs(1));
    EXPECT_EQ(slot.chain_der[0], x509::CertificateToDer(ca.certificate()));
    EXPECT_EQ(slot.chain_pem, x509::CertificateToPem(ca.certificate()));
    EXPECT_EQ(X509_cmp(slot.root.get(), root_.root()), 0);
    EXPECT_EQ(slot.not_after, x509::NotAfter(ca.certificate()));
    EXPECT_THAT(slot.ca_id, SizeIs(64));
    EXPECT_THAT(verdict.ca->description, HasSubstr("1 intermediate, 1 root"));
    const x509::ChainVerdict peer = VerifyLeafOf(*verdict.ca);
    ASSERT_TRUE(peer.peer.has_value()) << peer.error.detail;
    EXPECT_EQ(peer.peer->id.uri(), "spiffe://example.org/web");
  }
}

TEST_F(PluggedCaTest, PutsADeepChainInOrderAndLeavesTheRootOut) {
  const TestCa team = root_.Intermediate(CaSpec("team"));
  const TestCa issuing = team.Intermediate(CaSpec("issuing"));
  CaFiles files = FilesOf(issuing);
  // Any order, each twice, the root and a stranger among them.
  files.signing_pem = x509::CertificateToPem(issuing.certificate()) + root_.RootPem() +
                      TestCa("example.org", CaSpec("stranger")).RootPem();
  files.chain_pem = x509::CertificateToPem(team.certificate()) +
                    x509::CertificateToPem(issuing.certificate()) +
                    x509::CertificateToPem(team.certificate());
  const CaVerdict verdict = Judge(files);
  ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
  const SigningSlot& slot = *verdict.ca->slot;
  ASSERT_THAT(slot.chain_der, SizeIs(2));
  EXPECT_EQ(slot.chain_der[0], x509::CertificateToDer(issuing.certificate()));
  EXPECT_EQ(slot.chain_der[1], x509::CertificateToDer(team.certificate()));
  const x509::ChainVerdict peer = VerifyLeafOf(*verdict.ca);
  ASSERT_TRUE(peer.peer.has_value()) << peer.error.detail;
  EXPECT_THAT(peer.peer->chain_sha256, SizeIs(4));
}

TEST_F(PluggedCaTest, TheChainMayBeAsLongAsPeersTake) {
  TestCa ca = root_.Intermediate();
  for (int intermediates = 1; intermediates < x509::kMaxChainDepth; ++intermediates) {
    const CaVerdict verdict = Judge(ca);
    ASSERT_NE(verdict.ca, nullptr) << intermediates << ": " << verdict.detail;
    EXPECT_TRUE(VerifyLeafOf(*verdict.ca).peer.has_value());
    ca = ca.Intermediate();
  }
  ExpectRefused(Judge(ca), CaProblem::kConstrained, "too long");
}

TEST_F(PluggedCaTest, SignsWithEachKindOfKey) {
  const std::pair<KeyType, int> kinds[] = {{KeyType::kP256, NID_ecdsa_with_SHA256},
                                           {KeyType::kP384, NID_ecdsa_with_SHA256},
                                           {KeyType::kRsa2048, NID_sha256WithRSAEncryption},
                                           {KeyType::kEd25519, NID_ED25519}};
  for (const auto& [type, algorithm] : kinds) {
    CertificateSpec spec = CaSpec("issuing");
    spec.key_type = type;
    const CaVerdict verdict = Judge(root_.Intermediate(spec));
    ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
    const x509::ChainVerdict peer = VerifyLeafOf(*verdict.ca);
    EXPECT_TRUE(peer.peer.has_value()) << peer.error.detail;
    EXPECT_EQ(X509_get_signature_nid(leaf_.get()), algorithm);
  }
}

TEST_F(PluggedCaTest, TakesKeysInEachForm) {
  CertificateSpec spec = CaSpec("issuing");
  spec.key_type = KeyType::kRsa2048;
  const TestCa rsa = root_.Intermediate(spec);
  const TestCa ec = root_.Intermediate();
  const auto traditional = [](const TestCa& ca) {
    const x509::BioPtr bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey_traditional(bio.get(), ca.key(), nullptr, nullptr, 0, nullptr,
                                         nullptr);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<size_t>(size));
  };
  for (const TestCa* ca : {&rsa, &ec}) {
    CaFiles files = FilesOf(*ca);
    files.key_pem = traditional(*ca);
    ASSERT_THAT(files.key_pem, HasSubstr(ca == &rsa ? "BEGIN RSA" : "BEGIN EC"));
    const CaVerdict verdict = Judge(files);
    EXPECT_NE(verdict.ca, nullptr) << verdict.detail;
  }
}

TEST_F(PluggedCaTest, SeveralRootsAreAllTrusted) {
  const TestCa ca = root_.Intermediate();
  const TestCa next("example.org", CaSpec("next root"));
  CertificateSpec old_spec = CaSpec("expired root");
  old_spec.not_after = clock_.Now() - absl::Hours(1);
  const TestCa old("example.org", old_spec);
  CaFiles files = FilesOf(ca);
  files.roots_pem = next.RootPem() + old.RootPem() + root_.RootPem() + next.RootPem();
  const CaVerdict verdict = Judge(files);
  ASSERT_NE(verdict.ca, nullptr) << verdict.detail;
  EXPECT_THAT(verdict.ca->roots, SizeIs(3));
  EXPECT_EQ(X509_cmp(verdict.ca->slot->root.get(), root_.root()), 0);
}

TEST_F(PluggedCaTest, RefusesAKeyOfAnother) {
  CaFiles files = FilesOf(root_.Intermediate());
  files.key_pem = testing::KeyPem(testing::MakeKey().get());
  ExpectRefused(Judge(files), CaProblem::kKeyMismatch, "not that of the CA 'CN=");
  CertificateSpec rsa = CaSpec("issuing");
  rsa.key_type = KeyType::kRsa2048;
  files.key_pem = testing::KeyPem(root_.Intermediate(rsa).key());
  ExpectRefused(Judge(files), CaProblem::kKeyMismatch, "not that of");
  files.key_pem = "-----BEGIN NOTHING-----\n";
  ExpectRefused(Judge(files), CaProblem::kNoKey, "private key");
}

TEST_F(PluggedCaTest, RefusesWhatIsNoCa) {
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.ca = false; }), CaProblem::kNotCa, "leaf");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.ca.reset(); }), CaProblem::kNotCa, "leaf");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.key_usage = "cRLSign"; }),
                CaProblem::kNotCa, "keyCertSign");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) {
                  s.common_name.clear();
                  s.dns_names = {"a"};
                }),
                CaProblem::kNotCa, "no subject");
  // A root that would sign by itself.
  CaFiles files = FilesOf(root_.Intermediate());
  files.signing_pem = root_.RootPem();
  files.key_pem = testing::KeyPem(root_.key());
  ExpectRefused(Judge(files), CaProblem::kNotCa, "itself one of the roots");
}

TEST_F(PluggedCaTest, RefusesWhatHasExpiredOrIsNotValidYet) {
  const absl::Time now = clock_.Now();
  ExpectRefused(JudgeChanged([now](CertificateSpec& s) { s.not_after = now - absl::Seconds(1); }),
                CaProblem::kExpired, "issuing");
  ExpectRefused(JudgeChanged([now](CertificateSpec& s) { s.not_before = now + absl::Minutes(1); }),
                CaProblem::kNotYetValid, "issuing");
  CertificateSpec spec = CaSpec("old team");
  spec.not_after = now - absl::Hours(1);
  ExpectRefused(Judge(root_.Intermediate(spec).Intermediate()), CaProblem::kExpired, "old team");
  spec = CaSpec("old root");
  spec.not_after = now - absl::Hours(1);
  ExpectRefused(Judge(TestCa("example.org", spec).Intermediate()), CaProblem::kExpired, "old root");
}

TEST_F(PluggedCaTest, RefusesWhatLeadsToNoRoot) {
  const TestCa team = root_.Intermediate();
  const TestCa issuing = team.Intermediate();
  CaFiles files = FilesOf(issuing);
  files.roots_pem = TestCa("example.org").RootPem();
  ExpectRefused(Judge(files), CaProblem::kUntrusted, "issuer");
  files.roots_pem = root_.RootPem();
  files.signing_pem = x509::CertificateToPem(issuing.certificate());  // the team's is missing
  ExpectRefused(Judge(files), CaProblem::kUntrusted, "issuer");
  files.signing_pem = root_.RootPem();  // what is no CA of ours, but has no key here either
  ExpectRefused(Judge(files), CaProblem::kKeyMismatch, "");
}

TEST_F(PluggedCaTest, RefusesRootsThatPeersWouldNotTake) {
  CaFiles files = FilesOf(root_.Intermediate());
  files.roots_pem += x509::CertificateToPem(root_.Mint("spiffe://example.org/web").leaf());
  ExpectRefused(Judge(files), CaProblem::kBadRoots, "root 2");
  files.roots_pem = "no PEM";
  ExpectRefused(Judge(files), CaProblem::kMalformed, "the roots");
}

TEST_F(PluggedCaTest, RefusesWeakKeysAndSignatures) {
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.key_type = KeyType::kRsa1024; }),
                CaProblem::kWeak, "1024");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.key_type = KeyType::kP224; }),
                CaProblem::kWeak, "P-256");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.digest = "SHA1"; }), CaProblem::kWeak, "");
}

TEST_F(PluggedCaTest, RefusesACaThatMayNotSignForTheTrustDomain) {
  const char* const forbidding[] = {"permitted;URI:other.org", "permitted;URI:.example.org",
                                    "excluded;URI:example.org"};
  for (const char* constraints : forbidding) {
    ExpectRefused(
        JudgeChanged([constraints](CertificateSpec& s) { s.name_constraints = constraints; }),
        CaProblem::kConstrained, "spiffe://example.org");
    // The same further up.
    CertificateSpec team = CaSpec("team");
    team.name_constraints = constraints;
    ExpectRefused(Judge(root_.Intermediate(team).Intermediate()), CaProblem::kConstrained,
                  "spiffe://example.org");
  }
  const char* const allowing[] = {"permitted;URI:example.org", "excluded;URI:other.org",
                                  "permitted;DNS:other.org"};
  for (const char* constraints : allowing) {
    const CaVerdict verdict =
        JudgeChanged([constraints](CertificateSpec& s) { s.name_constraints = constraints; });
    ASSERT_NE(verdict.ca, nullptr) << constraints << ": " << verdict.detail;
    EXPECT_TRUE(VerifyLeafOf(*verdict.ca).peer.has_value()) << constraints;
  }
}

TEST_F(PluggedCaTest, RefusesACaBelowOneThatAllowsNoCa) {
  CertificateSpec team = CaSpec("team");
  team.path_length = 0;
  ExpectRefused(Judge(root_.Intermediate(team).Intermediate()), CaProblem::kConstrained,
                "path length");
  // It may sign leaves.
  EXPECT_NE(Judge(root_.Intermediate(team)).ca, nullptr);
  team.path_length = 1;
  CertificateSpec last = CaSpec("issuing");
  last.path_length = 0;
  EXPECT_NE(Judge(root_.Intermediate(team).Intermediate(last)).ca, nullptr);
}

TEST_F(PluggedCaTest, RefusesACaWhoseUsagesLeaveOursOut) {
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.extended_key_usage = "clientAuth"; }),
                CaProblem::kConstrained, "serverAuth");
  ExpectRefused(JudgeChanged([](CertificateSpec& s) { s.extended_key_usage = "serverAuth"; }),
                CaProblem::kConstrained, "clientAuth");
  EXPECT_NE(
      JudgeChanged([](CertificateSpec& s) { s.extended_key_usage = "serverAuth,clientAuth"; }).ca,
      nullptr);
}

// Whatever is left of a file that was cut: it is refused, unless nothing is missing but the last
// line's end, or (the chain alone) what was lost is not needed.
TEST_F(PluggedCaTest, ATruncatedFileIsRefusedAtEachByte) {
  const TestCa ca = root_.Intermediate().Intermediate();
  const CaMount mount(dir_.Path("ca"), CaFileNames::kTls);
  mount.Write(ca, root_.RootPem() + TestCa("example.org", CaSpec("next")).RootPem());
  const CaVerdict whole = Judge(*ReadCaFiles({mount.path()}));
  ASSERT_NE(whole.ca, nullptr) << whole.detail;
  for (const std::string_view name : {mount.signing_name(), mount.key_name(), mount.roots_name()}) {
    const std::string content = mount.Read(name);
    int taken = 0;
    for (size_t size = 0; size + 1 < content.size(); ++size) {
      mount.Put(name, content.substr(0, size));
      const absl::StatusOr<CaFiles> files = ReadCaFiles({mount.path()});
      const CaVerdict verdict = files.ok() ? Judge(*files) : CaVerdict();
      if (verdict.ca == nullptr) {
        continue;
      }
      // A cut right behind a whole root cannot be told from a file with one root.
      ++taken;
      EXPECT_EQ(name, mount.roots_name()) << size;
      EXPECT_THAT(size, AnyOf(root_.RootPem().size(), root_.RootPem().size() - 1));
    }
    EXPECT_EQ(taken, name == mount.roots_name() ? 2 : 0) << name;
    mount.Put(name, content.substr(0, content.size() - 1));
    EXPECT_NE(Judge(*ReadCaFiles({mount.path()})).ca, nullptr) << name;
    mount.Put(name, content);
  }
}

}  // namespace
}  // namespace postern::ca
