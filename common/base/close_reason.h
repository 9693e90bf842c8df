// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace postern::base {

// Why a connection ended. The list is closed and append-only: its token is the log field, the
// metric label and the row in docs/OPERATIONS.md. X(enumerator, token, what happened, the mend).
#define POSTERN_CLOSE_REASONS(X)                                                                   \
  X(kOk, "ok", "both directions ended cleanly", "")                                                \
  X(kReset, "reset", "one of the two ends reset its TCP connection",                               \
    "look at the application that reset; the record names the side")                               \
  X(kTruncated, "truncated", "a TLS peer ended TCP without close_notify",                          \
    "the peer proxy died or something between cut the connection")                                 \
  X(kRejectedByPeer, "rejected_by_peer", "the peer sent a fatal TLS alert",                        \
    "the alert says what the peer disliked; its own /failures has the reason")                     \
  X(kSelfLoop, "self_loop", "the original destination is one of the proxy's own listeners",        \
    "the application dials an intercept port directly, or a rule is missing")                      \
  X(kNoOriginalDestination, "no_original_destination",                                             \
    "the connection was not redirected by an interception rule",                                   \
    "dial the application's port, not the intercept port; check `postern intercept show`")         \
  X(kNoIdentity, "no_identity", "this proxy holds no valid certificate",                           \
    "see /certs and the renewal log; check that the issuer is reachable")                          \
  X(kNoPolicy, "no_policy", "no policy has come yet, so nothing is let in",                        \
    "check the issuer stream, or give --policy")                                                   \
  X(kPlaintextRefused, "plaintext_refused", "a client spoke plaintext on a strict port",           \
    "put the client into the mesh, or set the port to permissive")                                 \
  X(kInvalidClientHello, "invalid_client_hello", "the first bytes began as TLS but are malformed", \
    "capture the first bytes of the client")                                                       \
  X(kClientHelloTooLarge, "client_hello_too_large", "the ClientHello exceeds its limit", "")       \
  X(kSniffTimeout, "sniff_timeout", "no first bytes before the deadline",                          \
    "a server-speaks-first protocol needs strict mesh mode or a declared port")                    \
  X(kHandshakeTimeout, "handshake_timeout", "the TLS handshake did not finish in time",            \
    "the peer is slow, overloaded or not speaking TLS")                                            \
  X(kHandshakeFailed, "handshake_failed", "the TLS handshake broke a rule of the protocol",        \
    "the detail holds OpenSSL's reason")                                                           \
  X(kTlsVersion, "tls_version", "the peer offered no TLS 1.3", "upgrade the peer's TLS library")   \
  X(kPeerNoCertificate, "peer_no_certificate", "the peer sent no certificate",                     \
    "the client must be in the mesh and present its X.509-SVID")                                   \
  X(kPeerUntrusted, "peer_untrusted", "the peer's chain leads to no root of its trust domain",     \
    "compare both sides' /certs: one of them lacks a root or an intermediate")                     \
  X(kPeerExpired, "peer_expired", "a certificate of the peer's chain has expired",                 \
    "look at the peer's renewals, and at both clocks")                                             \
  X(kPeerNotYetValid, "peer_not_yet_valid", "a certificate of the peer's chain is not valid yet",  \
    "one of the two clocks is wrong")                                                              \
  X(kPeerBadCertificate, "peer_bad_certificate", "the peer's certificate is no X.509-SVID",        \
    "the detail names the rule of the SPIFFE X.509-SVID document that it breaks")                  \
  X(kPeerWrongUsage, "peer_wrong_usage",                                                           \
    "the peer's certificate lacks the key usage for its role",                                     \
    "issue it with digitalSignature, serverAuth and clientAuth")                                   \
  X(kTrustDomainUnknown, "trust_domain_unknown", "no trust bundle for the peer's trust domain",    \
    "add a bundle of that trust domain")                                                           \
  X(kIdentityMismatch, "identity_mismatch",                                                        \
    "the server is not one of the identities expected at that address",                            \
    "correct the registration entry or the destination, or find out who answered")                 \
  X(kPolicyDenied, "policy_denied", "policy does not let this identity in",                        \
    "`postern policy check` names the rule")                                                       \
  X(kPolicyRevoked, "policy_revoked", "a change of policy or trust ended an open connection", "")  \
  X(kDestinationDenied, "destination_denied",                                                      \
    "the destination is not in the mesh and plaintext is refused",                                 \
    "--outbound-default passthrough, or bring the destination into the mesh")                      \
  X(kMeshDowngrade, "mesh_downgrade",                                                              \
    "the destination was once in the mesh and may not fall back to plaintext",                     \
    "restore its entry, or let it leave the mesh with `postern seen forget`")                      \
  X(kLookupTimeout, "lookup_timeout", "the destination could not be looked up in time",            \
    "check the issuer stream in /status")                                                          \
  X(kConnectFailed, "connect_failed", "the next hop refused or could not be reached",              \
    "the detail holds the address and the system's error")                                         \
  X(kConnectTimeout, "connect_timeout", "the next hop did not answer in time", "")                 \
  X(kPeerDead, "peer_dead", "nothing that was sent was acknowledged for 60 s", "")                 \
  X(kIdleTimeout, "idle_timeout", "no byte moved for the idle limit", "")                          \
  X(kDrainDeadline, "drain_deadline", "still open when the drain deadline came", "")               \
  X(kOverload, "overload", "a connection limit was reached",                                       \
    "raise the limit, or find the client that opens so many")                                      \
  X(kPeerExpiredOpen, "peer_expired_open",                                                         \
    "the peer's certificate expired while the connection was open",                                \
    "look at the peer's renewals; --on-peer-expiry decides")                                       \
  X(kReauthFailed, "reauth_failed",                                                                \
    "the peer did not prove its identity again inside the open connection",                        \
    "the detail says what was wrong with its renewed certificate or its answer")                   \
  X(kStaleTrust, "stale_trust",                                                                    \
    "the issuer has not confirmed what is trusted for longer than --max-stale",                    \
    "bring the issuer back; /status says what is stale and why the stream does not stand")         \
  X(kPinMismatch, "pin_mismatch",                                                                  \
    "the server has none of the keys or CAs that are pinned for that destination",                 \
    "the detail holds the hashes; correct the pins if they are old, or find out who answered")     \
  X(kPeerRevoked, "peer_revoked", "the peer's identity, certificate, key or CA is revoked",        \
    "the detail says what was revoked, when and why; `postern revoke lift` takes it back")         \
  X(kCrlExpired, "crl_expired", "the CRL of one of the peer's CAs is out of date",                 \
    "replace the file of --crl by the CA's present CRL")                                           \
  X(kBadProxyRequest, "bad_proxy_request",                                                         \
    "what came at an outbound proxy port is no SOCKS5 or HTTP CONNECT request that is served",     \
    "the detail says what is wrong with it; `curl --socks5-hostname` shows a good one")            \
  X(kProxyRequestTimeout, "proxy_request_timeout",                                                 \
    "a client of an outbound proxy port did not finish its request in time", "")                   \
  X(kSourceRate, "source_rate", "the source opens connections faster than it may",                 \
    "--max-rate-per-source, or find out what the source is doing")                                 \
  X(kSourceHandshakes, "source_handshakes", "the source has too many handshakes under way",        \
    "the detail says which bound; look for clients that connect and do not finish")                \
  X(kSourceConnections, "source_connections", "the source has too many connections open",          \
    "--max-connections-per-source or --max-connections, or find out why it opens so many")         \
  X(kPeerConnections, "peer_connections", "the peer's identity has too many connections open",     \
    "--max-connections-per-peer, or find out why it opens so many")                                \
  X(kLateClientHello, "late_client_hello",                                                         \
    "a ClientHello of the mesh came after the server had spoken in plaintext",                     \
    "the next try is waited for longer; register the client's address, or make the port strict")   \
  X(kMtlsRequired, "mtls_required",                                                                \
    "the destination must be reached by mTLS and is not in the mesh",                              \
    "bring the destination into the mesh, or narrow --require-mtls")                               \
  X(kInternal, "internal", "a fault of Postern itself", "please report it with the log line")

enum class CloseReason : uint8_t {
#define X(enumerator, token, what, mend) enumerator,
  POSTERN_CLOSE_REASONS(X)
#undef X
};

inline constexpr size_t kCloseReasonCount = 0
#define X(enumerator, token, what, mend) +1
    POSTERN_CLOSE_REASONS(X)
#undef X
    ;

// Every reason, in the order of the list: for metrics, docs and the test that each one is produced.
extern const std::array<CloseReason, kCloseReasonCount> kAllCloseReasons;

// The stable token: log field and metric label value.
std::string_view Token(CloseReason reason) noexcept;

// One sentence for a person: what happened.
std::string_view Describe(CloseReason reason) noexcept;

// What to do about it; empty where the reason needs no mend.
std::string_view Mend(CloseReason reason) noexcept;

// The reverse of Token; nullopt for an unknown token.
std::optional<CloseReason> ParseCloseReason(std::string_view token) noexcept;

}  // namespace postern::base
