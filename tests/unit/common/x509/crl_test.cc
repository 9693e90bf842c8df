// SPDX-License-Identifier: Apache-2.0
#include "common/x509/crl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "tests/testing/test_ca.h"
#include "tests/testing/test_crl.h"

namespace postern::x509 {
namespace {

using postern::testing::CaSpec;
using postern::testing::CertificateSpec;
using postern::testing::CrlDer;
using postern::testing::CrlPem;
using postern::testing::CrlSpec;
using postern::testing::MakeCrl;
using postern::testing::TestCa;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CrlTest : public ::testing::Test {
 protected:
  std::vector<X509Ptr> Authorities() const {
    std::vector<X509Ptr> all;
    all.push_back(ca_.Root());
    return all;
  }
  std::string WhyNot(X509_CRL* crl) const {
    const auto verified = VerifyCrl(crl, "file", Authorities());
    return verified.ok() ? "" : std::string(verified.status().message());
  }

  const TestCa ca_;
};

TEST_F(CrlTest, IsReadAsPemAndAsDer) {
  const X509CrlPtr crl = MakeCrl(ca_, {.serials = {"0a", "0b"}});
  for (const std::string& content : {CrlPem(crl.get()), CrlDer(crl.get())}) {
    const auto parsed = ParseCrlFile(content);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_THAT(parsed->crls, SizeIs(1));
    const auto verified = VerifyCrl(parsed->crls[0].get(), "file", Authorities());
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_THAT((*verified)->revoked, SizeIs(2));
    EXPECT_EQ((*verified)->issuer_key, HalfOf(Sha256OfKey(ca_.root())));
  }
}

TEST_F(CrlTest, AFileMayHoldSeveralAndTheCertificatesOfTheirCas) {
  const TestCa other;
  const std::string content = CrlPem(MakeCrl(ca_, {}).get()) + "a comment\n" +
                              CertificateToPem(other.root()) + CrlPem(MakeCrl(other, {}).get());
  const auto parsed = ParseCrlFile(content);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->crls, SizeIs(2));
  EXPECT_THAT(parsed->authorities, SizeIs(1));
  EXPECT_TRUE(VerifyCrl(parsed->crls[1].get(), "file", parsed->authorities).ok());
  const auto only_ca = ParseCrlFile(CertificateToDer(other.root()));
  ASSERT_TRUE(only_ca.ok()) << only_ca.status();
  EXPECT_THAT(only_ca->authorities, SizeIs(1));
}

TEST_F(CrlTest, DamageIsNoCrl) {
  const std::string pem = CrlPem(MakeCrl(ca_, {.serials = {"01"}}).get());
  const std::string der = CrlDer(MakeCrl(ca_, {.serials = {"01"}}).get());
  for (const std::string& content :
       {std::string(), std::string("not a CRL"), pem.substr(0, pem.size() / 2), der + "x",
        der.substr(0, der.size() - 1)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseCrlFile(content).status())) << content.size();
  }
}

TEST_F(CrlTest, ASignatureOfAnotherKeyIsRefused) {
  const TestCa impostor;  // the same name, another key
  EXPECT_THAT(WhyNot(MakeCrl(ca_, {}, impostor.key()).get()), HasSubstr("signature"));
}

TEST_F(CrlTest, ACaThatNobodyKnowsIsRefusedAndTheMendIsSaid) {
  const TestCa stranger("example.org", CaSpec("somebody else"));
  EXPECT_THAT(WhyNot(MakeCrl(stranger, {}).get()), HasSubstr("put its certificate beside the CRL"));
}

TEST_F(CrlTest, ACaWithoutTheRightToSignCrlsIsRefused) {
  CertificateSpec spec = CaSpec("no CRLs");
  spec.key_usage = "keyCertSign";
  const TestCa without("example.org", spec);
  std::vector<X509Ptr> authorities;
  authorities.push_back(without.Root());
  const auto verified = VerifyCrl(MakeCrl(without, {}).get(), "file", authorities);
  EXPECT_THAT(std::string(verified.status().message()), HasSubstr("cRLSign"));
}

TEST_F(CrlTest, ADeltaCrlIsRefused) {
  EXPECT_THAT(WhyNot(MakeCrl(ca_, {.delta = true}).get()), HasSubstr("critical extension"));
}

TEST_F(CrlTest, AWeakDigestIsRefused) {
  EXPECT_THAT(WhyNot(MakeCrl(ca_, {.digest = "SHA1"}).get()), HasSubstr("weak"));
}

TEST_F(CrlTest, ItsTimesAreRead) {
  const absl::Time now = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  const auto dated =
      VerifyCrl(MakeCrl(ca_, {.this_update = now, .next_update = now + absl::Hours(2)}).get(), "f",
                Authorities())
          .value();
  EXPECT_EQ(dated->this_update, now);
  EXPECT_EQ(dated->next_update, now + absl::Hours(2));
  const auto open_end =
      VerifyCrl(MakeCrl(ca_, {.next_update = absl::InfiniteFuture()}).get(), "f", Authorities())
          .value();
  EXPECT_EQ(open_end->next_update, absl::InfiniteFuture());
}

}  // namespace
}  // namespace postern::x509
