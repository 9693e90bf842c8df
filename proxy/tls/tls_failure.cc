// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>

#include <algorithm>
#include <initializer_list>
#include <string>

#include "common/base/strings.h"

namespace postern::tls {
namespace {

using base::CloseReason;

bool Holds(const SslCallResult& call, std::initializer_list<int> ssl_reasons) {
  return std::any_of(call.queue.begin(), call.queue.end(), [&](unsigned long code) {
    return ERR_GET_LIB(code) == ERR_LIB_SSL && std::find(ssl_reasons.begin(), ssl_reasons.end(),
                                                         ERR_GET_REASON(code)) != ssl_reasons.end();
  });
}

// The oldest error is the cause, later ones are consequences.
std::string OpensslReason(const SslCallResult& call) {
  if (call.queue.empty()) {
    return base::StrCat("the TLS state machine stopped without a reason (SSL_get_error ",
                        call.error, ")");
  }
  const unsigned long code = call.queue.front();
  const char* reason = ERR_reason_error_string(code);
  if (reason != nullptr) {
    return reason;
  }
  char text[256];
  ERR_error_string_n(code, text, sizeof(text));
  return text;
}

CloseReason ReasonOf(const FailureEvidence& evidence) {
  if (Holds(evidence.call, {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE})) {
    return CloseReason::kPeerNoCertificate;
  }
  // A server without TLS 1.3 answers our hello with the alert protocol_version, or with a
  // ServerHello of its own version.
  if (evidence.alert_received == SSL_AD_PROTOCOL_VERSION ||
      Holds(evidence.call,
            {SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_WRONG_SSL_VERSION, SSL_R_VERSION_TOO_LOW})) {
    return CloseReason::kTlsVersion;
  }
  return evidence.alert_received >= 0 ? CloseReason::kRejectedByPeer
                                      : CloseReason::kHandshakeFailed;
}

std::string DetailOf(CloseReason reason, const FailureEvidence& evidence) {
  if (evidence.alert_received >= 0) {
    return base::StrCat("the peer sent the TLS alert '",
                        SSL_alert_desc_string_long(evidence.alert_received), "' (",
                        evidence.alert_received, ")");
  }
  if (reason == CloseReason::kPeerNoCertificate) {
    return "the peer sent no certificate";
  }
  return OpensslReason(evidence.call);
}

}  // namespace

base::Failure ExplainFailure(const FailureEvidence& evidence) {
  base::Failure failure;
  failure.peer_id = evidence.peer_id;
  failure.alert_sent = evidence.alert_sent;
  failure.alert_received = evidence.alert_received;
  if (evidence.chain_error.has_value()) {
    const x509::ChainError& error = *evidence.chain_error;
    failure.reason = error.reason;
    failure.x509_error = error.x509_error;
    failure.x509_depth = error.depth;
    failure.peer_id = error.peer_id;
    failure.detail = absl::UnauthenticatedError(error.detail.empty() ? OpensslReason(evidence.call)
                                                                     : error.detail);
    return failure;
  }
  failure.reason = ReasonOf(evidence);
  failure.detail = absl::UnauthenticatedError(DetailOf(failure.reason, evidence));
  return failure;
}

}  // namespace postern::tls
