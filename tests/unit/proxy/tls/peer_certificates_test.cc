// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/peer_certificates.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "common/x509/certificate.h"
#include "tests/testing/test_ca.h"

namespace postern::tls {
namespace {

constexpr char kWeb[] = "spiffe://example.org/web";

// What OpenSSL has in its hands while it asks whether a peer's chain is good: certificates that it
// has parsed for this connection alone.
class Handshake {
 public:
  explicit Handshake(const std::vector<x509::X509Ptr>& chain) {
    for (const x509::X509Ptr& sent : chain) {
      auto parsed = x509::CertificateFromDer(base::AsBytes(x509::CertificateToDer(sent.get())));
      sk_X509_push(sent_.get(), parsed->release());
    }
    X509_STORE_CTX_init(ctx_.get(), nullptr, leaf(), sent_.get());
  }

  void Verified(PeerCertificates& certificates) {
    certificates.Share(ctx_.get(), x509::Sha256OfCertificate(leaf()));
  }
  X509* leaf() const { return sk_X509_value(sent_.get(), 0); }
  X509* judged() const { return X509_STORE_CTX_get0_cert(ctx_.get()); }
  int size() const { return sk_X509_num(sent_.get()); }

 private:
  x509::X509StackPtr sent_{sk_X509_new_null()};
  x509::X509StoreCtxPtr ctx_{X509_STORE_CTX_new()};
};

class PeerCertificatesTest : public ::testing::Test {
 protected:
  std::vector<x509::X509Ptr> Chain(const char* id = kWeb) { return ca_.Mint(id).chain; }

  const testing::TestCa root_;
  const testing::TestCa ca_{root_.Intermediate()};
  PeerCertificates certificates_;
};

TEST_F(PeerCertificatesTest, GivesConnectionsOfOnePeerTheSameLeaf) {
  const auto chain = Chain();
  Handshake first(chain);
  Handshake second(chain);
  X509* const kept = first.leaf();
  ASSERT_NE(kept, second.leaf());
  first.Verified(certificates_);
  second.Verified(certificates_);
  EXPECT_EQ(first.leaf(), kept);
  EXPECT_EQ(second.leaf(), kept);
  EXPECT_EQ(second.judged(), kept);
  EXPECT_EQ(certificates_.size(), 1U);
}

TEST_F(PeerCertificatesTest, LetsGoOfIntermediates) {
  const auto chain = Chain();
  ASSERT_EQ(chain.size(), 2U);
  for (int round = 0; round < 2; ++round) {
    Handshake handshake(chain);
    handshake.Verified(certificates_);
    EXPECT_EQ(handshake.size(), 1);
  }
}

TEST_F(PeerCertificatesTest, KeepsDifferentPeersApart) {
  Handshake web(Chain());
  Handshake renewed(Chain());  // the same name, another certificate
  web.Verified(certificates_);
  renewed.Verified(certificates_);
  EXPECT_NE(web.leaf(), renewed.leaf());
  EXPECT_EQ(certificates_.size(), 2U);
}

TEST_F(PeerCertificatesTest, OutlivesTheConnectionsThatShare) {
  const auto chain = Chain();
  { Handshake(chain).Verified(certificates_); }
  Handshake later(chain);
  later.Verified(certificates_);
  EXPECT_EQ(x509::LeafSpiffeId(later.leaf())->uri(), kWeb);
}

TEST_F(PeerCertificatesTest, IsBounded) {
  std::vector<Handshake> open;
  for (int peer = 0; peer < 200; ++peer) {
    open.emplace_back(Chain()).Verified(certificates_);
    ASSERT_LE(certificates_.size(), 64U);
  }
  for (const Handshake& handshake : open) {
    EXPECT_EQ(x509::LeafSpiffeId(handshake.leaf())->uri(), kWeb);
  }
}

}  // namespace
}  // namespace postern::tls
