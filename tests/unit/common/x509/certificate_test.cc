// SPDX-License-Identifier: Apache-2.0
#include "common/x509/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include "common/base/strings.h"
#include "tests/testing/test_ca.h"

namespace postern::x509 {
namespace {

using namespace std::string_literals;
using testing::CertificateSpec;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LeafSpec;
using testing::Minted;
using testing::TestCa;

class CertificateTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(ERR_peek_error(), 0U) << "the error queue is not clean"; }

  X509Ptr Leaf(const CertificateSpec& spec) {
    Minted minted = ca_.Mint(spec);
    return std::move(minted.chain.front());
  }

  TestCa ca_;
};

TEST_F(CertificateTest, ConvertsToDerAndPemAndBack) {
  const X509Ptr leaf = Leaf(LeafSpec("spiffe://example.org/web"));
  const std::string der = CertificateToDer(leaf.get());
  EXPECT_EQ(X509_cmp(CertificateFromDer(base::AsBytes(der))->get(), leaf.get()), 0);
  const std::string pem = CertificateToPem(leaf.get());
  EXPECT_EQ(X509_cmp(CertificatesFromPem(pem)->front().get(), leaf.get()), 0);
}

TEST_F(CertificateTest, RefusesDerThatIsCutOrTooLong) {
  const std::string der = CertificateToDer(ca_.root());
  EXPECT_FALSE(CertificateFromDer(base::AsBytes(der + "x")).ok());
  EXPECT_FALSE(CertificateFromDer({}).ok());
  for (size_t size = 0; size < der.size(); ++size) {
    ASSERT_FALSE(CertificateFromDer(base::AsBytes(der.substr(0, size))).ok()) << size;
    ASSERT_EQ(ERR_peek_error(), 0U);
  }
}

TEST_F(CertificateTest, ReadsAllCertificatesOfAPemTextInOrder) {
  const Minted minted = ca_.Intermediate().Mint("spiffe://example.org/web");
  const std::string pem = "\xef\xbb\xbf"s + "# comment\r\n\r\n" + minted.KeyPem() +
                          CertificateToPem(minted.chain[0].get()) + "\n\n -----\nmore\n" +
                          CertificateToPem(minted.chain[1].get()) + "\n\n";
  std::string crlf;
  for (const char c : pem) {
    crlf += c == '\n' ? "\r\n"s : std::string(1, c);
  }
  for (const std::string& text : {pem, crlf}) {
    const absl::StatusOr<std::vector<X509Ptr>> read = CertificatesFromPem(text);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), 2U);
    EXPECT_EQ(CertificatesToPem(*read), minted.ChainPem());
  }
  // The mark may stand right before the first block.
  EXPECT_TRUE(CertificatesFromPem("\xef\xbb\xbf" + minted.ChainPem()).ok());
}

TEST_F(CertificateTest, NamesTheCertificateThatDoesNotParse) {
  const std::string bad = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
  const absl::Status status = CertificatesFromPem(ca_.RootPem() + bad).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("certificate 2"));
}

TEST_F(CertificateTest, RefusesTextWithoutCertificates) {
  EXPECT_FALSE(CertificatesFromPem("").ok());
  EXPECT_FALSE(CertificatesFromPem("nothing here\n").ok());
  EXPECT_FALSE(CertificatesFromPem(testing::KeyPem(ca_.key())).ok());
}

// A5: a file that is being written must not become a certificate that nobody meant.
TEST_F(CertificateTest, TakesAPemCutAtAnyByteWholeOrNotAtAll) {
  const std::string pem = ca_.RootPem();
  for (size_t size = 0; size < pem.size(); ++size) {
    const absl::StatusOr<std::vector<X509Ptr>> cut =
        CertificatesFromPem(std::string_view(pem).substr(0, size));
    if (cut.ok()) {
      EXPECT_GE(size, pem.size() - 2);
      EXPECT_EQ(X509_cmp(cut->front().get(), ca_.root()), 0);
    }
    EXPECT_EQ(ERR_peek_error(), 0U) << size;
  }
}

TEST_F(CertificateTest, ReadsTimesSerialAndSubject) {
  CertificateSpec spec = LeafSpec("spiffe://example.org/web");
  spec.not_before = absl::FromUnixSeconds(1700000000);
  spec.not_after = absl::FromUnixSeconds(4102444800);  // 2100: GeneralizedTime
  spec.serial = "\x00\xab\x01"s;
  spec.common_name = "we\"b\n\xc3\xa9";
  const X509Ptr leaf = Leaf(spec);
  EXPECT_EQ(NotBefore(leaf.get()), spec.not_before);
  EXPECT_EQ(NotAfter(leaf.get()), spec.not_after);
  EXPECT_EQ(SerialHex(leaf.get()), "ab01");
  const std::string subject = SubjectText(leaf.get());
  EXPECT_THAT(subject, HasSubstr("CN="));
  EXPECT_EQ(subject.find('\n'), std::string::npos);
  EXPECT_EQ(subject, base::LineSafe(subject));
  EXPECT_EQ(Sha256OfCertificate(leaf.get()), Sha256OfCertificate(leaf.get()));
  EXPECT_NE(Sha256OfCertificate(leaf.get()), Sha256OfCertificate(ca_.root()));
}

TEST_F(CertificateTest, TellsACaFromALeaf) {
  EXPECT_TRUE(IsCa(ca_.root()));
  EXPECT_TRUE(IsCa(ca_.Intermediate().certificate()));
  EXPECT_FALSE(IsCa(Leaf(LeafSpec("spiffe://example.org/web")).get()));
  CertificateSpec spec = testing::CaSpec("no basicConstraints");
  spec.ca.reset();
  EXPECT_FALSE(IsCa(Leaf(spec).get())) << "a key usage alone makes no CA";
}

TEST_F(CertificateTest, ReadsUriSansAsTheyStand) {
  CertificateSpec spec = LeafSpec("spiffe://example.org/web");
  spec.uris.push_back("http://x/\0y"s);
  spec.dns_names.push_back("web.example.org");
  EXPECT_THAT(UriSans(Leaf(spec).get()), ElementsAre("spiffe://example.org/web", "http://x/\0y"s));
  EXPECT_THAT(UriSans(ca_.root()), IsEmpty());
}

TEST_F(CertificateTest, ReadsTheIdentityBesideOtherKindsOfNames) {
  CertificateSpec spec = LeafSpec("spiffe://example.org/web");
  spec.dns_names = {"web.example.org", "spiffe://example.org/other"};
  spec.emails = {"spiffe://example.org/third"};
  EXPECT_EQ(LeafSpiffeId(Leaf(spec).get())->uri(), "spiffe://example.org/web");
}

struct BadIdentity {
  const char* what;
  std::vector<std::string> uris;
  std::string trailer = {};
  bool twice = false;
  std::vector<std::string> dns_names = {};
  std::vector<std::string> emails = {};
};

TEST_F(CertificateTest, RefusesEachKindOfBadIdentity) {
  const std::string good = "spiffe://example.org/web";
  const std::vector<BadIdentity> cases = {
      {"no SAN at all", {}},
      {"only a DNS name that looks like an ID", {}, "", false, {good}},
      {"only an e-mail address that looks like an ID", {}, "", false, {}, {good}},
      {"two SPIFFE IDs", {good, "spiffe://example.org/other"}},
      {"the same SPIFFE ID twice", {good, good}},
      {"a SPIFFE ID and another URI", {good, "http://example.org/"}},
      {"another URI and a SPIFFE ID", {"http://example.org/", good}},
      {"another scheme", {"https://example.org/web"}},
      {"no path", {"spiffe://example.org"}},
      {"a trailing slash", {"spiffe://example.org/web/"}},
      {"dot segments", {"spiffe://example.org/../web"}},
      {"percent encoding", {"spiffe://example.org/%77eb"}},
      {"an embedded NUL", {"spiffe://example.org/web\0.evil"s}},
      {"a NUL at the end", {"spiffe://example.org/web\0"s}},
      {"an upper-case trust domain", {"spiffe://EXAMPLE.ORG/web"}},
      {"a port", {"spiffe://example.org:8443/web"}},
      {"an empty URI", {""}},
      {"bytes behind the list of names", {good}, "\x05\x00"s},
      {"the extension twice", {good}, "", true},
  };
  for (const BadIdentity& bad : cases) {
    CertificateSpec spec = LeafSpec("");
    spec.uris = bad.uris;
    spec.dns_names = bad.dns_names;
    spec.emails = bad.emails;
    spec.san_trailer = bad.trailer;
    spec.san_twice = bad.twice;
    EXPECT_EQ(LeafSpiffeId(Leaf(spec).get()).status().code(), absl::StatusCode::kInvalidArgument)
        << bad.what;
  }
}

}  // namespace
}  // namespace postern::x509
