// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

namespace postern::testing {

// Mints certificates at run time, good ones and every kind of bad one. All of it aborts the test
// program with a message when OpenSSL refuses, so that a test reads without checks.
//
//   TestCa ca("example.org");
//   x509::Svid web = ca.Issue("spiffe://example.org/web");
//   x509::TrustBundleSet bundles = ca.BundleSet();

enum class KeyType : uint8_t {
  kP192,
  kP224,
  kP256,
  kP384,
  kP521,
  kEd25519,
  kRsa512,
  kRsa1024,
  kRsa2048,
};
x509::PkeyPtr MakeKey(KeyType type = KeyType::kP256);
std::string KeyPem(EVP_PKEY* key);

// What stands in a certificate. The defaults are a proper X.509-SVID but for its URI.
struct CertificateSpec {
  std::vector<std::string> uris;  // URI SANs, raw octets, as many as there are
  std::vector<std::string> dns_names;
  std::vector<std::string> emails;
  std::string san_trailer;  // bytes behind the subjectAltName list, inside the extension
  bool san_twice = false;
  std::string common_name;  // empty: an empty subject
  absl::Time not_before = absl::Now() - absl::Hours(1);
  absl::Time not_after = absl::Now() + absl::Hours(1);
  std::optional<bool> ca = false;  // nullopt: no basicConstraints at all
  int path_length = -1;            // pathLenConstraint; -1 none
  // Comma separated names as openssl.cnf has them; nullopt: no such extension; "" for EKU: an empty
  // one.
  std::optional<std::string> key_usage = "digitalSignature";
  std::optional<std::string> extended_key_usage = "serverAuth,clientAuth";
  std::string name_constraints;  // openssl.cnf syntax: "permitted;URI:.example.org"
  bool unknown_critical_extension = false;
  KeyType key_type = KeyType::kP256;
  std::string digest = "SHA256";  // of the signature; unused by Ed25519
  std::string serial;             // octets; empty: 16 random ones

  // The validity of a certificate that lives from now - 2 min to now + ttl.
  CertificateSpec& LivesFrom(absl::Time now, absl::Duration ttl);
};

// A workload's leaf for `uri`.
CertificateSpec LeafSpec(std::string_view uri);
// A CA: CA:TRUE, keyCertSign and cRLSign, no EKU, no SAN, valid from 2020 to 2045 so that it fits
// any fake clock.
CertificateSpec CaSpec(std::string_view common_name);

// A certificate with its key and the intermediates above it.
struct Minted {
  std::vector<x509::X509Ptr> chain;  // leaf first, no root
  x509::PkeyPtr key;

  X509* leaf() const { return chain.front().get(); }
  // The chain without its leaf, as a TLS peer presents it.
  x509::X509StackPtr Untrusted() const;
  std::string ChainPem() const;
  std::string KeyPem() const;
};

// A certificate authority: a root, or an intermediate below one.
class TestCa {
 public:
  // A root of the trust domain.
  explicit TestCa(std::string_view trust_domain = "example.org");
  TestCa(std::string_view trust_domain, const CertificateSpec& root);

  // An intermediate that this CA signs. Its Issue and Mint put it into the chain.
  TestCa Intermediate() const;
  TestCa Intermediate(const CertificateSpec& spec) const;

  // A workload's SVID, valid from an hour ago for two hours, P-256.
  x509::Svid Issue(std::string_view uri) const;
  // The same that lives from now - 2 min to now + ttl.
  x509::Svid Issue(std::string_view uri, absl::Time now, absl::Duration ttl) const;
  // Aborts unless the spec is a proper X.509-SVID.
  x509::Svid IssueSvid(const CertificateSpec& spec) const;

  // Any certificate, good or bad, with a fresh key of the spec's type.
  Minted Mint(const CertificateSpec& spec) const;
  Minted Mint(std::string_view uri) const { return Mint(LeafSpec(uri)); }
  // A certificate for a public key that somebody else has (a CSR's).
  x509::X509Ptr Sign(EVP_PKEY* public_key, const CertificateSpec& spec) const;

  const x509::TrustDomain& trust_domain() const { return trust_domain_; }
  X509* certificate() const { return path_.front().get(); }
  X509* root() const { return path_.back().get(); }
  EVP_PKEY* key() const { return key_.get(); }
  x509::X509Ptr Root() const { return x509::ShareX509(root()); }
  // This CA's intermediates, issuing one first; empty for a root.
  std::vector<x509::X509Ptr> Intermediates() const;

  // The root as the bundle of its trust domain.
  x509::TrustBundle Bundle() const;
  x509::TrustBundleSet BundleSet() const;
  std::string RootPem() const;

 private:
  TestCa(x509::TrustDomain trust_domain, std::vector<x509::X509Ptr> path, x509::PkeyPtr key);
  x509::TrustDomain trust_domain_;
  std::vector<x509::X509Ptr> path_;  // this CA first, root last
  x509::PkeyPtr key_;
};

// The bundles of several CAs in one set.
x509::TrustBundleSet BundleSetOf(const std::vector<const TestCa*>& cas);

}  // namespace postern::testing
