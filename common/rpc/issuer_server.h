// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

// gRPC's own types, named only, so that its headers stay out of this one.
namespace grpc {
class AuthContext;
class ServerBuilder;
class ServerCredentials;
}  // namespace grpc

namespace postern::rpc {

// The credentials of the issuer's gRPC port: one-way TLS that asks for a client certificate and
// lets every client in; who it is, VerifyClient says.
//
// What gRPC 1.51 gives, and what it does not:
// - The certificate is chosen for each new connection, so Replace reaches the next one; connections
//   that stand keep theirs until they end.
// - The client's certificate is asked for and its key proven, but nothing about it is verified: an
//   AuthContext that calls itself authenticated means nothing here. Only VerifyClient counts.
// - There is no way to set the TLS version: TLS 1.2 is its floor and two of our programs agree on
//   1.3. "TLS 1.3 only" is the data plane's promise, not this port's.
// - The key is handed over as PEM and copied by gRPC, so it is not in locked memory there.
//
// Any thread. Must outlive the grpc::Server that it was given to.
class IssuerServerCredentials {
 public:
  // Serves `svid`'s chain followed by `root`, so that a proxy with only a pin finds the root in it.
  // `root` is the certificate that `svid`'s chain leads to. Internal when the key does not convert.
  static absl::StatusOr<std::unique_ptr<IssuerServerCredentials>> Create(const x509::Svid& svid,
                                                                         const X509* root);
  ~IssuerServerCredentials();
  IssuerServerCredentials(const IssuerServerCredentials&) = delete;
  IssuerServerCredentials& operator=(const IssuerServerCredentials&) = delete;

  // What new connections are served from now on. On an error the old one goes on.
  absl::Status Replace(const x509::Svid& svid, const X509* root);

  // For ServerBuilder::AddListeningPort, of one or of several ports.
  std::shared_ptr<grpc::ServerCredentials> credentials() const;

 private:
  struct State;
  explicit IssuerServerCredentials(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// Lets a builder's server take the proxies' pings (every 20 s, also without a call), notice dead
// clients by pings of its own, and bounds messages to kMaxRequestBytes. Everything else is the
// caller's.
void ApplyServerLimits(grpc::ServerBuilder& builder);

inline constexpr int kMaxRequestBytes = 64 << 10;   // what a proxy may send in one message
inline constexpr int kMaxResponseBytes = 16 << 20;  // what a proxy takes in one message

// The leaf that the client of a call presented; null: it presented none, or the call came through a
// unix socket. Not verified.
x509::X509Ptr ClientCertificate(const grpc::AuthContext& context);

// The issuer's own intermediates, and the same as CertificatesToPem writes them: a client that
// sends just these need not have them parsed again.
struct OwnChain {
  const std::vector<x509::X509Ptr>& certificates;
  std::string_view pem = {};
};

// Verifies the client of a call, of this moment and not of its handshake, so that a connection that
// outlives its certificate is noticed at its next call. `own_intermediates` help to build the path;
// a client that resumed a TLS session sends none (see GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME).
// kPeerNoCertificate when the client presented none. `now` is the caller's clock's; the caller may
// be lenient with it where the protocol says so.
x509::ChainVerdict VerifyClient(const grpc::AuthContext& context,
                                const x509::TrustBundleSet& bundles,
                                const OwnChain& own_intermediates, absl::Time now);

}  // namespace postern::rpc
