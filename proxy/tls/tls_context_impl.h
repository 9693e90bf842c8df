// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "common/x509/chain_cache.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/openssl_ptr.h"
#include "proxy/tls/key_shares.h"
#include "proxy/tls/peer_certificates.h"
#include "proxy/tls/tls_context.h"

namespace postern::tls {

// What a TlsContext is made of; for proxy/tls alone. Immutable after Create, but for what its
// engines share and what changes no verdict; those are of one worker.
struct TlsContext::Impl {
  x509::SslCtxPtr ctx;
  std::shared_ptr<const x509::Svid> svid;
  std::shared_ptr<const x509::TrustBundleSet> bundles;
  TlsOptions options;
  x509::PeerRole peer_role = x509::PeerRole::kServer;
  mutable x509::ChainCache verified_chains;  // under these bundles, in this role
  mutable PeerCertificates peer_certificates;
  mutable KeyShares key_shares;

  absl::Status Configure();
  absl::Status ConfigureProtocol() const;
  absl::Status InstallIdentity() const;
  absl::Status ConfigureAlpn() const;
  absl::Status ConfigureResumption() const;
  // Judges the chain that a peer presents, or remembers the verdict.
  x509::ChainVerdict VerifyChain(X509* leaf, STACK_OF(X509) * presented) const;
  // Why a peer whose chain is good is refused nevertheless; nullopt: it is not.
  std::optional<x509::ChainError> JudgeRevocation(const x509::VerifiedPeer& peer,
                                                  absl::Time now) const;
  bool is_server() const { return peer_role == x509::PeerRole::kClient; }
  // Whether a server of this context gives and takes tickets, or a client keeps sessions.
  bool resumes() const {
    return is_server() ? options.ticket_keys != nullptr && options.trust != nullptr &&
                             options.client_auth == ClientAuth::kRequire
                       : options.sessions != nullptr;
  }

  // Whether clients may prove themselves again inside a connection.
  bool reauthenticates() const {
    return options.post_handshake_auth &&
           (!is_server() || options.client_auth == ClientAuth::kRequire);
  }

  static absl::StatusOr<std::shared_ptr<const TlsContext>> Create(
      x509::PeerRole peer_role, std::shared_ptr<const x509::Svid> svid,
      std::shared_ptr<const x509::TrustBundleSet> bundles, const TlsOptions& options);
};

// The callbacks that an SSL_CTX of ours hands to its engines: see tls_engine.cc. `arg` is unused;
// the engine is the SSL's app data.
int OnVerifyPeer(X509_STORE_CTX* store_ctx, void* arg) noexcept;
void OnInfo(const SSL* ssl, int where, int value) noexcept;
void OnMessage(int write, int version, int content_type, const void* bytes, size_t length, SSL* ssl,
               void* arg) noexcept;
void OnKeyLog(const SSL* ssl, const char* line) noexcept;

// The same for resumption: see engine_resumption.cc.
int OnTicketKey(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                EVP_MAC_CTX* mac, int seal) noexcept;
int OnTicketMade(SSL* ssl, void* arg) noexcept;
SSL_TICKET_RETURN OnTicketOpened(SSL* ssl, SSL_SESSION* session, const unsigned char* name,
                                 size_t name_length, SSL_TICKET_STATUS status, void* arg) noexcept;
int OnNewSession(SSL* ssl, SSL_SESSION* session) noexcept;

}  // namespace postern::tls
