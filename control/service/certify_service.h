// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "common/base/clock.h"
#include "control/attest/challenge_table.h"
#include "control/ca/ca_signer.h"
#include "control/issue/issuer.h"
#include "control/mesh/mesh_state.h"
#include "control/service/client_verdicts.h"
#include "control/service/issuer_metrics.h"
#include "control/service/rate_limiter.h"
#include "control/service/revocation_publisher.h"
#include "control/service/staged_rotation.h"
#include "control/service/unix_listener.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace postern::service {

class Federation;

// What the handlers work with; all of it outlives the servers.
struct ServiceParts {
  issue::Issuer* issuer = nullptr;
  ca::CaSigner* ca = nullptr;
  store::Store* store = nullptr;
  attest::Attestor* attestor = nullptr;
  attest::ChallengeTable* challenges = nullptr;
  std::shared_ptr<mesh::MeshState> mesh;
  ClientVerdicts* clients = nullptr;
  issue::Revocations* revocations = nullptr;
  RevocationPublisher* revocation_publisher = nullptr;
  RateLimiter* certify_limit = nullptr;
  IssuerCounters* counters = nullptr;
  const UnixListener* unix_listener = nullptr;
  const base::Clock* clock = nullptr;
  StagedRotation* rotation = nullptr;
  Federation* federation = nullptr;
};

// At most this many certificate requests at work at once; the next is told when to come back.
inline constexpr int kMaxCertifyAtOnce = 64;

// postern.v1.Identity: turns a request into an issue::IssueRequest and its result into an answer.
// The work is done on threads of the service's own, for it blocks on the store; what is refused for
// its number or rate is answered at once, and so are requests for a challenge, which count in the
// same rate. Destroyed after the servers that serve it have shut down.
std::unique_ptr<grpc::Service> MakeCertifyService(const ServiceParts& parts);

}  // namespace postern::service
