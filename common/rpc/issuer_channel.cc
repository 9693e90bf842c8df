// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/issuer_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "common/base/host_port.h"
#include "common/base/strings.h"
#include "common/rpc/issuer_server.h"
#include "common/rpc/nobodys_root.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/key.h"

namespace postern::rpc {
namespace {

namespace tls = grpc::experimental;

constexpr std::string_view kUnixScheme = "unix:";
constexpr int kFirstBackoffMs = 1000;
constexpr int kLongestBackoffMs = 10'000;
constexpr size_t kMostChainCertificates = 16;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as many as the keepalive needs
  // gRPC's connect deadline is the larger of this and its back-off.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstBackoffMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestBackoffMs);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // Channels of equal arguments would share a connection, and with it a client certificate.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(kMaxResponseBytes);
  arguments.SetMaxSendMessageSize(kMaxRequestBytes);
  return arguments;
}

// The root that the pin names, out of what the server sent; null: it is not among them. Only a root
// counts: an intermediate that was pinned by mistake would work until its next rotation.
x509::X509Ptr FindPinned(const std::vector<x509::X509Ptr>& chain, const base::Sha256Digest& pin) {
  for (const auto& certificate : chain) {
    const bool self_issued = X509_NAME_cmp(X509_get_subject_name(certificate.get()),
                                           X509_get_issuer_name(certificate.get())) == 0;
    if (self_issued && x509::Sha256OfCertificate(certificate.get()) == pin) {
      return x509::ShareX509(certificate.get());
    }
  }
  return nullptr;
}

// No reply comes over a channel that is refused, so nothing measures this clock. But the issuer's
// certificate tells: it is backdated by a day, and renewed at half of its lifetime.
std::string_view ClockHint(base::CloseReason reason) {
  switch (reason) {
    case base::CloseReason::kPeerExpired:
      return "; a running issuer renews its own in time, so this clock is ahead by at least so "
             "much";
    case base::CloseReason::kPeerNotYetValid:
      return "; the issuer backdates its own by a day, so this clock is behind by a day and so "
             "much";
    default:
      return "";
  }
}

absl::Status VerifyAgainst(const std::vector<x509::X509Ptr>& chain,
                           const x509::TrustBundleSet& bundles, const x509::SpiffeId& expected,
                           const x509::RevocationSet* revocations, absl::Time now) {
  const x509::X509StackPtr untrusted = x509::ShareX509Stack(std::span(chain).subspan(1));
  if (untrusted == nullptr) {
    return absl::InternalError("out of memory");
  }
  const x509::ChainVerdict verdict = x509::VerifyPeerChain(chain.front().get(), untrusted.get(),
                                                           bundles, x509::PeerRole::kServer, now);
  if (!verdict.peer.has_value()) {
    return absl::UnauthenticatedError(
        base::StrCat("the issuer's certificate is refused (", base::Token(verdict.error.reason),
                     "): ", verdict.error.detail, ClockHint(verdict.error.reason)));
  }
  if (verdict.peer->id != expected) {
    return absl::UnauthenticatedError(base::StrCat("the server is ", verdict.peer->id.uri(),
                                                   ", not the issuer ", expected.uri()));
  }
  if (revocations != nullptr) {
    if (const std::optional<std::string> why = revocations->WhyRevoked(*verdict.peer)) {
      return absl::UnauthenticatedError(base::StrCat("the issuer's certificate is refused (",
                                                     base::Token(base::CloseReason::kPeerRevoked),
                                                     "): ", *why));
    }
  }
  return absl::OkStatus();
}

absl::Status VerifyIssuer(std::string_view chain_pem, const IssuerTrust& trust, absl::Time now) {
  auto chain = x509::CertificatesFromPem(chain_pem);
  if (!chain.ok()) {
    return chain.status();
  }
  if (chain->size() > kMostChainCertificates) {
    return absl::UnauthenticatedError("the issuer sent too many certificates");
  }
  const x509::SpiffeId expected = IssuerId(trust.trust_domain);
  if (trust.bundles != nullptr) {
    return VerifyAgainst(*chain, *trust.bundles, expected, trust.revocations.get(), now);
  }
  std::vector<x509::X509Ptr> roots;
  roots.push_back(FindPinned(*chain, *trust.pin));
  if (roots.front() == nullptr) {
    return absl::UnauthenticatedError(
        "no root certificate that the issuer sent is the one that the pin names");
  }
  auto bundle = x509::TrustBundle::Create(trust.trust_domain, std::move(roots));
  if (!bundle.ok()) {
    return bundle.status();
  }
  std::vector<x509::TrustBundle> only;
  only.push_back(*std::move(bundle));
  return VerifyAgainst(*chain, x509::TrustBundleSet(std::move(only)), expected,
                       trust.revocations.get(), now);
}

absl::Status CheckTrust(const IssuerChannelOptions& options) {
  if (!options.trust.has_value()) {
    return absl::InvalidArgumentError("neither a bundle nor a pin to know the issuer by");
  }
  const IssuerTrust& trust = *options.trust;
  if (trust.bundles == nullptr) {
    return trust.pin.has_value()
               ? absl::OkStatus()
               : absl::InvalidArgumentError("neither a bundle nor a pin to know the issuer by");
  }
  if (trust.bundles->Find(trust.trust_domain.name()) == nullptr) {
    return absl::InvalidArgumentError(
        base::StrCat("no bundle for the issuer's trust domain ", trust.trust_domain.name()));
  }
  return absl::OkStatus();
}

}  // namespace

// Shared by the channel's owner and by the verifier inside gRPC, whichever lives longer.
struct IssuerChannel::Verdicts {
  std::mutex mutex;
  std::string last_refusal;  // guarded by mutex
};

namespace {

// Runs on gRPC's threads, after the TLS handshake and before the first byte of a call.
template <typename Verdicts>
class IssuerVerifier final : public tls::ExternalCertificateVerifier {
 public:
  IssuerVerifier(IssuerTrust trust, const base::Clock* clock, std::shared_ptr<Verdicts> verdicts)
      : trust_(std::move(trust)), clock_(clock), verdicts_(std::move(verdicts)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    const auto pem = request->peer_cert_full_chain();
    const absl::Status verdict = VerifyIssuer({pem.data(), pem.size()}, trust_, clock_->Now());
    if (!verdict.ok()) {
      const std::string message(verdict.message());
      *sync_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, message);
      const std::lock_guard lock(verdicts_->mutex);
      verdicts_->last_refusal = message;
    }
    return true;  // decided, without a callback
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  const IssuerTrust trust_;
  const base::Clock* const clock_;
  const std::shared_ptr<Verdicts> verdicts_;
};

// The certificate and key to present, if any, and the roots, which are nobody's: IssuerVerifier
// judges.
absl::Status Provide(const x509::Svid* svid, tls::TlsChannelCredentialsOptions& options) {
  auto root = NobodysRoot();
  if (!root.ok()) {
    return root.status();
  }
  options.watch_root_certs();
  if (svid == nullptr) {
    options.set_certificate_provider(std::make_shared<tls::StaticDataCertificateProvider>(*root));
    return absl::OkStatus();
  }
  auto key_pem = x509::PrivateKeyToPem(svid->key());
  if (!key_pem.ok()) {
    return key_pem.status();
  }
  std::vector<tls::IdentityKeyCertPair> pairs(1);
  pairs.front().private_key = *key_pem;
  pairs.front().certificate_chain = x509::CertificatesToPem(svid->chain());
  options.set_certificate_provider(
      std::make_shared<tls::StaticDataCertificateProvider>(*root, pairs));
  options.watch_identity_key_cert_pairs();
  // Ours; gRPC's own copies live as long as the channel.
  OPENSSL_cleanse(key_pem->data(), key_pem->size());
  OPENSSL_cleanse(pairs.front().private_key.data(), pairs.front().private_key.size());
  return absl::OkStatus();
}

}  // namespace

x509::SpiffeId IssuerId(const x509::TrustDomain& trust_domain) {
  // Cannot fail: the path is in the grammar.
  return x509::SpiffeId::Parse(trust_domain.ToUri() + "/postern/identity").value();
}

IssuerChannel::IssuerChannel(std::shared_ptr<grpc::Channel> channel,
                             std::shared_ptr<Verdicts> verdicts)
    : channel_(std::move(channel)), verdicts_(std::move(verdicts)) {}
IssuerChannel::~IssuerChannel() = default;
IssuerChannel::IssuerChannel(IssuerChannel&&) noexcept = default;
IssuerChannel& IssuerChannel::operator=(IssuerChannel&&) noexcept = default;

absl::StatusOr<IssuerChannel> IssuerChannel::Create(const IssuerChannelOptions& options) {
  auto verdicts = std::make_shared<Verdicts>();
  if (options.target.starts_with(kUnixScheme)) {
    if (options.target.size() == kUnixScheme.size()) {
      return absl::InvalidArgumentError("unix: needs the path of the issuer's socket");
    }
    return IssuerChannel(
        grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), Arguments()),
        std::move(verdicts));
  }
  const auto address = base::HostPort::Parse(
      options.target, {.names = true, .final_dot = true, .what = "issuer", .also = "unix:PATH"});
  if (!address.ok()) {
    return address.status();
  }
  if (auto status = CheckTrust(options); !status.ok()) {
    return status;
  }
  tls::TlsChannelCredentialsOptions tls_options;
  tls_options.set_verify_server_certs(false);  // by gRPC, which knows host names and one root list
  tls_options.set_check_call_host(false);
  tls_options.set_certificate_verifier(
      tls::ExternalCertificateVerifier::Create<IssuerVerifier<Verdicts>>(*options.trust,
                                                                         options.clock, verdicts));
  if (auto status = Provide(options.client.get(), tls_options); !status.ok()) {
    return status;
  }
  return IssuerChannel(grpc::CreateCustomChannel("dns:///" + options.target,
                                                 tls::TlsCredentials(tls_options), Arguments()),
                       std::move(verdicts));
}

std::string IssuerChannel::LastRefusal() const {
  const std::lock_guard lock(verdicts_->mutex);
  return verdicts_->last_refusal;
}

}  // namespace postern::rpc
