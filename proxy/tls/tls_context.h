// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/revocation_set.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/tls/session_cache.h"
#include "proxy/tls/ticket_keys.h"

namespace postern::tls {

// The ALPN protocol that marks mesh TLS on a port that also takes the application's own TLS.
inline constexpr std::string_view kMeshAlpn = "postern/1";

enum class ClientAuth : uint8_t { kRequire, kNone };

// What is not accepted at this moment though its chain verifies. Its owner, a worker, changes it in
// place on its own thread; null: nothing is known to be revoked.
struct RevocationState {
  std::shared_ptr<const x509::RevocationSet> set;
};

struct TlsOptions {
  ClientAuth client_auth = ClientAuth::kRequire;  // server role only
  size_t max_chain_bytes = 64U << 10U;            // of the peer's Certificate message
  const base::Clock* clock = &base::Clock::System();
  // Resumption, server: what seals its tickets, and what they are bound to besides. Both, or no
  // tickets; none in any case for clients without a certificate (client_auth kNone).
  std::shared_ptr<const TicketKeys> ticket_keys = nullptr;
  std::shared_ptr<const TrustState> trust = nullptr;
  // Resumption, client: where sessions are kept; null: nowhere.
  std::shared_ptr<SessionCache> sessions = nullptr;
  // Whether a client offers, and a server that asks for certificates may use, authentication inside
  // the connection (RFC 8446 section 4.6.2).
  bool post_handshake_auth = true;
  // Looked at in every handshake, full or resumed; null: nothing is ever revoked.
  std::shared_ptr<const RevocationState> revocations = nullptr;
};

// One SSL_CTX for one role, made from an identity and a set of trust bundles: TLS 1.3 only, tickets
// only as TlsOptions says, no 0-RTT, no renegotiation, no certificate compression, groups and
// signatures as design.md says (X25519MLKEM768 first where the library has it, found at run time;
// a client sends one key share, see key_shares.h).
// Immutable once made, and confined to one thread with its engines: each worker builds its own from
// the shared snapshot. An engine keeps what it needs alive by itself, so a context may be replaced
// while connections are open.
class TlsContext {
 public:
  // Internal when OpenSSL refuses; the identity must be usable (checked by who publishes it).
  static absl::StatusOr<std::shared_ptr<const TlsContext>> CreateServer(
      std::shared_ptr<const x509::Svid> svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
      const TlsOptions& options);
  static absl::StatusOr<std::shared_ptr<const TlsContext>> CreateClient(
      std::shared_ptr<const x509::Svid> svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
      const TlsOptions& options);
  ~TlsContext();

  struct Impl;
  const Impl& impl() const { return *impl_; }  // for proxy/tls alone

 private:
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::tls
