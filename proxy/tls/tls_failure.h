// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "common/base/failure.h"
#include "common/x509/chain_verifier.h"
#include "proxy/tls/ssl_call.h"

namespace postern::tls {

// What an engine knows when a call fails. References live for the call.
struct FailureEvidence {
  const SslCallResult& call;
  const std::optional<x509::ChainError>& chain_error;  // our own verdict on the peer's chain
  const std::string& peer_id;                          // empty unless verified
  int alert_sent = -1;
  int alert_received = -1;
};

// Says why, attributed to who failed: our verdict on the peer's chain first, then the alert that
// the peer sent, then what OpenSSL found. The detail is never empty. The side stays the caller's.
// Pure.
base::Failure ExplainFailure(const FailureEvidence& evidence);

}  // namespace postern::tls
