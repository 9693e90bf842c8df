// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/x509/revocation_set.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace postern::rpc {

// The reserved identity of a trust domain's issuer: spiffe://TD/postern/identity.
x509::SpiffeId IssuerId(const x509::TrustDomain& trust_domain);

// How the issuer is known before anything was heard from it. A value.
struct IssuerTrust {
  x509::TrustDomain trust_domain;
  // Roots of `trust_domain` and maybe of others; null: only the pin is known.
  std::shared_ptr<const x509::TrustBundleSet> bundles;
  // SHA-256 over the DER of the root that the issuer's chain must end in and be verified by. Used
  // only without bundles: roots that came later, over an authenticated channel, replace it.
  std::optional<base::Sha256Digest> pin;
  // What is revoked: an issuer's certificate that a revoked CA vouches for is refused. May be null.
  std::shared_ptr<const x509::RevocationSet> revocations = nullptr;
};

struct IssuerChannelOptions {
  std::string target;                                 // "HOST:PORT", "[v6]:PORT", or "unix:PATH"
  std::optional<IssuerTrust> trust;                   // required for all but unix:
  std::shared_ptr<const x509::Svid> client;           // what to present; null: nothing
  const base::Clock* clock = &base::Clock::System();  // judges validity; outlives the channel
};

inline constexpr int kConnectTimeoutMs = 5000;
inline constexpr int kKeepAliveTimeMs = 20'000;
inline constexpr int kKeepAliveTimeoutMs = 10'000;

// A channel to the issuer. TCP: TLS in which gRPC verifies nothing and common/x509 everything: the
// chain in the server's role at `clock`'s time, against the bundles or up to the pinned root, and
// the SPIFFE ID, which must be IssuerId exactly. Host names play no part. Unix socket: no TLS; the
// kernel tells the issuer who asks, and the file's path and mode tell the proxy whom it asks.
//
// Pings every 20 s, without calls too, and gives up after 10 s without an answer; a connection must
// be made within 5 s. No proxy from the environment, no service config from DNS, no TLS session is
// resumed, no connection is shared with another channel. The client certificate is fixed: make a
// new channel for a new identity, and a new channel after a failure if gRPC's own back-off (1 s to
// 10 s) is not wanted. gRPC 1.51 offers TLS 1.2 as well and copies the key as PEM; see
// issuer_server.h.
//
// Any thread but one of gRPC's: letting go of a channel inside a gRPC callback (with the last
// reference to it, or to a ClientContext that was used on it) makes gRPC wait for the thread that
// it is on, and damages memory when it was the last channel of the process.
class IssuerChannel {
 public:
  // InvalidArgument: a target that is neither form, neither bundles nor a pin, or no bundle for the
  // trust domain. Does not connect yet: that is the first call's.
  static absl::StatusOr<IssuerChannel> Create(const IssuerChannelOptions& options);
  ~IssuerChannel();
  IssuerChannel(IssuerChannel&&) noexcept;
  IssuerChannel& operator=(IssuerChannel&&) noexcept;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // Why the last certificate that the server showed was refused: gRPC's own message says only that
  // it could not connect. Empty: none was refused. A printable sentence.
  std::string LastRefusal() const;

 private:
  struct Verdicts;
  IssuerChannel(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<Verdicts> verdicts);
  std::shared_ptr<grpc::Channel> channel_;
  std::shared_ptr<Verdicts> verdicts_;
};

}  // namespace postern::rpc
