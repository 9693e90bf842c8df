// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_context.h"

#include <openssl/err.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <string>
#include <utility>

#include "common/base/strings.h"
#include "proxy/tls/crypto_library.h"
#include "proxy/tls/tls_context_impl.h"

namespace postern::tls {
namespace {

// ECDSA P-256 first, which is what a leaf of ours signs with. PKCS#1 counts in TLS 1.3 for the
// signatures inside certificates only.
constexpr const char* kSignatures =
    "ECDSA+SHA256:ed25519:ECDSA+SHA384:RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:"
    "RSA+SHA256:RSA+SHA384:RSA+SHA512";

constexpr int kSecurityLevel = 2;

// OpenSSL wants some context even where sessions are never resumed. What a ticket is good for is
// judged by its binding; this only keeps the two kinds of listener apart once more.
constexpr std::string_view kMutualTlsContext = "postern";
constexpr std::string_view kTlsOnlyContext = "postern tls-only";

bool HasAesInstructions() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("aes") != 0;
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
  return false;
#endif
}

const char* CipherSuites() {
  return HasAesInstructions()
             ? "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
             : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
}

// Wire form: a length in front of each name.
std::string AlpnWire() {
  std::string wire(1, static_cast<char>(kMeshAlpn.size()));
  wire.append(kMeshAlpn);
  return wire;
}

int OnSelectAlpn(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_length,
                 const unsigned char* in, unsigned int in_length, void* /*arg*/) noexcept {
  for (unsigned int at = 0; at < in_length;) {
    const unsigned int length = in[at];
    if (length > in_length - at - 1) {
      break;
    }
    const std::string_view name(reinterpret_cast<const char*>(in + at + 1), length);
    if (name == kMeshAlpn) {
      *out = in + at + 1;
      *out_length = static_cast<unsigned char>(length);
      return SSL_TLSEXT_ERR_OK;
    }
    at += 1 + length;
  }
  return SSL_TLSEXT_ERR_NOACK;  // without one, as a client that is not of the mesh expects
}

// The oldest error of the queue is the cause; empties the queue.
absl::Status OpensslRefused(std::string_view what) {
  const unsigned long code = ERR_peek_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return absl::InternalError(
      base::StrCat("OpenSSL: ", what, ": ", reason == nullptr ? "no reason given" : reason));
}

uint64_t Options() {
  uint64_t options = SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA;
#ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
  options |= SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION;
#endif
  return options;
}

}  // namespace

absl::Status TlsContext::Impl::ConfigureProtocol() const {
  SSL_CTX* c = ctx.get();
  SSL_CTX_set_security_level(c, kSecurityLevel);
  if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1) {
    return OpensslRefused("TLS 1.3");
  }
  if (SSL_CTX_set_ciphersuites(c, CipherSuites()) != 1) {
    return OpensslRefused("cipher suites");
  }
  if (const absl::Status groups = key_shares.Configure(c); !groups.ok()) {
    return groups;
  }
  if (SSL_CTX_set1_sigalgs_list(c, kSignatures) != 1) {
    return OpensslRefused("signature algorithms");
  }
  SSL_CTX_set_options(c, Options());
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_max_cert_list(c, static_cast<long>(options.max_chain_bytes));
  return absl::OkStatus();
}

// No early data in any case. recv_max_early_data keeps its default: early data that a client sends
// on somebody else's ticket is skipped, not answered with an alert. A server's handshake makes no
// tickets either: the engine asks for one when it has something to send in front of which it can
// travel.
absl::Status TlsContext::Impl::ConfigureResumption() const {
  SSL_CTX* c = ctx.get();
  const std::string_view id_context =
      options.client_auth == ClientAuth::kRequire ? kMutualTlsContext : kTlsOnlyContext;
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_num_tickets(c, 0) != 1 || SSL_CTX_set_max_early_data(c, 0) != 1 ||
      SSL_CTX_set_session_id_context(c, reinterpret_cast<const unsigned char*>(id_context.data()),
                                     static_cast<unsigned int>(id_context.size())) != 1) {
    return OpensslRefused("session settings");
  }
  if (!resumes()) {
    return absl::OkStatus();
  }
  if (!is_server()) {
    SSL_CTX_set_session_cache_mode(
        c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
    SSL_CTX_sess_set_new_cb(c, &OnNewSession);
    return absl::OkStatus();
  }
  SSL_CTX_clear_options(c, SSL_OP_NO_TICKET);  // with it, tickets would be names in a cache
  if (SSL_CTX_set_tlsext_ticket_key_evp_cb(c, &OnTicketKey) != 1 ||
      SSL_CTX_set_session_ticket_cb(c, &OnTicketMade, &OnTicketOpened, nullptr) != 1) {
    return OpensslRefused("ticket settings");
  }
  return absl::OkStatus();
}

absl::Status TlsContext::Impl::InstallIdentity() const {
  SSL_CTX* c = ctx.get();
  if (SSL_CTX_use_certificate(c, svid->leaf()) != 1) {
    return OpensslRefused("own certificate");
  }
  for (size_t i = 1; i < svid->chain().size(); ++i) {
    if (SSL_CTX_add1_chain_cert(c, svid->chain()[i].get()) != 1) {
      return OpensslRefused("own chain");
    }
  }
  if (SSL_CTX_use_PrivateKey(c, svid->key()) != 1 || SSL_CTX_check_private_key(c) != 1) {
    return OpensslRefused("own key");
  }
  return absl::OkStatus();
}

absl::Status TlsContext::Impl::ConfigureAlpn() const {
  if (is_server()) {
    SSL_CTX_set_alpn_select_cb(ctx.get(), &OnSelectAlpn, nullptr);
    return absl::OkStatus();
  }
  const std::string wire = AlpnWire();
  if (SSL_CTX_set_alpn_protos(ctx.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                              static_cast<unsigned int>(wire.size())) != 0) {
    return OpensslRefused("ALPN");
  }
  return absl::OkStatus();
}

x509::ChainVerdict TlsContext::Impl::VerifyChain(X509* leaf, STACK_OF(X509) * presented) const {
  const absl::Time now = options.clock->Now();
  const std::optional<base::Sha256Digest> digest = x509::DigestOfPresented(leaf, presented);
  if (digest.has_value()) {
    if (const x509::VerifiedPeer* known = verified_chains.Find(*digest, now)) {
      std::optional<x509::ChainError> revoked = JudgeRevocation(*known, now);
      return revoked.has_value() ? x509::ChainVerdict{{}, *std::move(revoked)}
                                 : x509::ChainVerdict{*known, {}};
    }
  }
  x509::ChainVerdict verdict = x509::VerifyPeerChain(leaf, presented, *bundles, peer_role, now);
  if (!verdict.peer.has_value()) {
    return verdict;
  }
  if (digest.has_value()) {
    verified_chains.Add(*digest, *verdict.peer);
  }
  if (std::optional<x509::ChainError> revoked = JudgeRevocation(*verdict.peer, now)) {
    return {{}, *std::move(revoked)};
  }
  return verdict;
}

std::optional<x509::ChainError> TlsContext::Impl::JudgeRevocation(const x509::VerifiedPeer& peer,
                                                                  absl::Time now) const {
  const x509::RevocationSet* const set =
      options.revocations == nullptr ? nullptr : options.revocations->set.get();
  if (set == nullptr) {
    return std::nullopt;
  }
  if (std::optional<std::string> why = set->WhyRevoked(peer)) {
    return x509::ChainError{base::CloseReason::kPeerRevoked, X509_V_ERR_CERT_REVOKED, 0,
                            *std::move(why), peer.id.uri()};
  }
  if (std::optional<std::string> why = set->WhyUnknown(peer, now)) {
    return x509::ChainError{base::CloseReason::kCrlExpired, X509_V_ERR_CRL_HAS_EXPIRED, 0,
                            *std::move(why), peer.id.uri()};
  }
  return std::nullopt;
}

absl::Status TlsContext::Impl::Configure() {
  ERR_clear_error();
  ctx.reset(SSL_CTX_new_ex(TlsLibraryFor(svid->key()), nullptr,
                           is_server() ? TLS_server_method() : TLS_client_method()));
  if (ctx == nullptr) {
    return OpensslRefused("new context");
  }
  for (const absl::Status& status :
       {ConfigureProtocol(), InstallIdentity(), ConfigureAlpn(), ConfigureResumption()}) {
    if (!status.ok()) {
      return status;
    }
  }
  // No list of CAs is set: a CertificateRequest would name every root of the bundle.
  int verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  if (is_server() && options.client_auth == ClientAuth::kNone) {
    verify = SSL_VERIFY_NONE;
  }
  SSL_CTX_set_verify(ctx.get(), verify, nullptr);
  if (!is_server() && reauthenticates()) {
    SSL_CTX_set_post_handshake_auth(ctx.get(), 1);  // the extension; the rest is the engine's
  }
  SSL_CTX_set_cert_verify_callback(ctx.get(), &OnVerifyPeer, nullptr);
  SSL_CTX_set_info_callback(ctx.get(), &OnInfo);
  SSL_CTX_set_msg_callback(ctx.get(), &OnMessage);
  ERR_clear_error();  // a group that this library does not know is no error
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Impl::Create(
    x509::PeerRole peer_role, std::shared_ptr<const x509::Svid> svid,
    std::shared_ptr<const x509::TrustBundleSet> bundles, const TlsOptions& options) {
  if (svid == nullptr || bundles == nullptr) {
    return absl::InternalError("a TLS context needs an identity and trust bundles");
  }
  auto impl = std::make_unique<Impl>();
  impl->peer_role = peer_role;
  impl->svid = std::move(svid);
  impl->bundles = std::move(bundles);
  impl->options = options;
  const absl::Status configured = impl->Configure();
  if (!configured.ok()) {
    return configured;
  }
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(impl)));
}

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::CreateServer(
    std::shared_ptr<const x509::Svid> svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
    const TlsOptions& options) {
  return Impl::Create(x509::PeerRole::kClient, std::move(svid), std::move(bundles), options);
}

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::CreateClient(
    std::shared_ptr<const x509::Svid> svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
    const TlsOptions& options) {
  return Impl::Create(x509::PeerRole::kServer, std::move(svid), std::move(bundles), options);
}

}  // namespace postern::tls
