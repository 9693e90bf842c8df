// SPDX-License-Identifier: Apache-2.0
#include "control/service/certify_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "common/base/strings.h"
#include "control/issue/registry.h"
#include "control/service/caller.h"
#include "control/service/come_back.h"
#include "control/service/messages.h"
#include "control/service/worker_pool.h"
#include "postern/v1/identity.grpc.pb.h"

namespace postern::service {
namespace {

using attest::RefusalReason;
using attest::Refuse;

constexpr char kRetryAfterKey[] = "postern-retry-after-ms";

// Threads that sign, or wait for the store to sync what was signed: those that wait share one sync.
constexpr size_t kWorkers = 32;

// Counts itself among the requests at work for as long as it lives.
class Admission {
 public:
  explicit Admission(std::atomic<int>& at_work)
      : at_work_(at_work), number_(at_work.fetch_add(1) + 1) {}
  ~Admission() { at_work_.fetch_sub(1); }
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;
  bool IsTooMany() const { return number_ > kMaxCertifyAtOnce; }
  int at_work() const { return std::min(at_work_.load(), kMaxCertifyAtOnce); }

 private:
  std::atomic<int>& at_work_;
  const int number_;
};

// What a challenge is bound to: the TCP connection, by the caller's address and port, which no
// other open connection has. Empty: a unix socket.
std::string ConnectionOf(const grpc::ServerContextBase& context, const Caller& caller) {
  return caller.ip.has_value() ? std::string(context.peer()) : std::string();
}

class CertifyService final : public v1::Identity::CallbackService {
 public:
  explicit CertifyService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* Certify(grpc::CallbackServerContext* context,
                                    const v1::CertifyRequest* request,
                                    v1::CertifyResponse* response) override;
  grpc::ServerUnaryReactor* Challenge(grpc::CallbackServerContext* context,
                                      const v1::ChallengeRequest* request,
                                      v1::ChallengeResponse* response) override;

 private:
  // One request at work. Its messages are gRPC's until Finish.
  struct Call {
    std::optional<Admission> admission;
    Caller caller;
    absl::Duration begun;
    grpc::CallbackServerContext* context = nullptr;
    grpc::ServerUnaryReactor* reactor = nullptr;
  };

  void FinishServed(Call& call, const absl::Status& status);
  void Finish(Call& call, const absl::Status& status);
  absl::Status Answer(const Call& call, const v1::CertifyRequest& request,
                      v1::CertifyResponse& response);
  absl::Status Admit(grpc::CallbackServerContext& context, const Caller& caller,
                     const Admission& admission);
  absl::StatusOr<attest::Evidence> ReadEvidence(const grpc::ServerContextBase& context,
                                                const v1::CertifyRequest& request,
                                                const Caller& caller) const;
  absl::StatusOr<attest::Evidence> CertificateEvidence(
      const grpc::ServerContextBase& context) const;
  absl::Status GiveChallenge(grpc::CallbackServerContext& context,
                             v1::ChallengeResponse& response) const;

  const ServiceParts parts_;
  ComeBack come_back_{*parts_.clock};
  std::atomic<int> at_work_{0};
  WorkerPool workers_{kWorkers};  // last: joined first
};

grpc::ServerUnaryReactor* CertifyService::Certify(grpc::CallbackServerContext* context,
                                                  const v1::CertifyRequest* request,
                                                  v1::CertifyResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto call = std::make_shared<Call>();
  call->admission.emplace(at_work_);
  call->caller = WhoCalls(*context, parts_.unix_listener);
  call->begun = parts_.clock->SinceBoot();
  call->context = context;
  call->reactor = reactor;
  if (absl::Status admitted = Admit(*context, call->caller, *call->admission); !admitted.ok()) {
    Finish(*call, admitted);
    return reactor;
  }
  workers_.Post(
      [this, call, request, response] { FinishServed(*call, Answer(*call, *request, *response)); });
  return reactor;
}

void CertifyService::FinishServed(Call& call, const absl::Status& status) {
  come_back_.OnServed(parts_.clock->SinceBoot() - call.begun, call.admission->at_work());
  Finish(call, status);
}

void CertifyService::Finish(Call& call, const absl::Status& status) {
  parts_.counters->ObserveCertify(parts_.clock->SinceBoot() - call.begun);
  if (!status.ok()) {
    const RefusalReason reason = attest::ReasonOf(status);
    parts_.counters->refused[static_cast<size_t>(reason)].fetch_add(1);
  }
  call.admission.reset();  // first: the caller's next request may come before this returns
  call.reactor->Finish(ToGrpc(status));  // context and messages may be gone from here on
}

absl::Status CertifyService::Admit(grpc::CallbackServerContext& context, const Caller& caller,
                                   const Admission& admission) {
  const absl::Duration wait = parts_.certify_limit->Take(caller.rate_key);
  const bool too_many = admission.IsTooMany();
  if (wait == absl::ZeroDuration() && !too_many) {
    return absl::OkStatus();
  }
  const absl::Duration retry = std::max(wait, too_many ? come_back_.Next() : absl::ZeroDuration());
  context.AddTrailingMetadata(kRetryAfterKey, std::to_string(absl::ToInt64Milliseconds(retry) + 1));
  return too_many ? Refuse(RefusalReason::kOverload, "the issuer is busy; try again shortly")
                  : Refuse(RefusalReason::kRateLimited,
                           base::StrCat("too many certificate requests from ", caller.rate_key));
}

absl::StatusOr<attest::Evidence> CertifyService::CertificateEvidence(
    const grpc::ServerContextBase& context) const {
  x509::ChainVerdict verdict = parts_.clients->VerifyForRenewal(*context.auth_context());
  if (!verdict.peer.has_value()) {
    return Refuse(RefusalReason::kUnattested,
                  base::StrCat("the channel's client certificate: ", verdict.error.detail));
  }
  return attest::ExistingCertificateEvidence{*std::move(verdict.peer)};
}

absl::StatusOr<attest::Evidence> CertifyService::ReadEvidence(
    const grpc::ServerContextBase& context, const v1::CertifyRequest& request,
    const Caller& caller) const {
  switch (request.evidence_case()) {
    case v1::CertifyRequest::kJoinToken:
      return attest::JoinTokenEvidence{request.join_token().token()};
    case v1::CertifyRequest::kExistingCertificate:
      return CertificateEvidence(context);
    case v1::CertifyRequest::kUnixPeer:
      if (caller.unix_peer == nullptr) {
        return Refuse(RefusalReason::kUnattested,
                      "attestation by peer credentials works over the unix socket alone");
      }
      return attest::UnixPeerEvidence{caller.unix_peer};
    case v1::CertifyRequest::kKubernetesServiceAccount:
      return Refuse(RefusalReason::kUnattested,
                    "this issuer does not attest by Kubernetes service accounts");
    case v1::CertifyRequest::kEnrolledKey: {
      const v1::CertifyRequest::EnrolledKey& shown = request.enrolled_key();
      return attest::EnrolledKeyEvidence{shown.public_key_der(),
                                         shown.challenge(),
                                         shown.signature(),
                                         ConnectionOf(context, caller),
                                         {}};
    }
    case v1::CertifyRequest::EVIDENCE_NOT_SET:
      break;
  }
  return Refuse(RefusalReason::kBadRequest, "the request holds no evidence");
}

grpc::ServerUnaryReactor* CertifyService::Challenge(grpc::CallbackServerContext* context,
                                                    const v1::ChallengeRequest* /*request*/,
                                                    v1::ChallengeResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::Status status = GiveChallenge(*context, *response);
  if (status.ok()) {
    parts_.counters->challenges.fetch_add(1);
  } else {
    parts_.counters->refused[static_cast<size_t>(attest::ReasonOf(status))].fetch_add(1);
  }
  reactor->Finish(ToGrpc(status));
  return reactor;
}

absl::Status CertifyService::GiveChallenge(grpc::CallbackServerContext& context,
                                           v1::ChallengeResponse& response) const {
  const Caller caller = WhoCalls(context, parts_.unix_listener);
  const std::string connection = ConnectionOf(context, caller);
  if (connection.empty()) {
    return Refuse(RefusalReason::kUnattested,
                  "challenges are for TLS; the unix socket is evidence by itself");
  }
  const absl::Duration wait = parts_.certify_limit->Take(caller.rate_key);
  if (wait > absl::ZeroDuration()) {
    context.AddTrailingMetadata(kRetryAfterKey,
                                std::to_string(absl::ToInt64Milliseconds(wait) + 1));
    return Refuse(RefusalReason::kRateLimited,
                  base::StrCat("too many certificate requests from ", caller.rate_key));
  }
  absl::StatusOr<std::string> challenge = parts_.challenges->Make(connection);
  if (!challenge.ok()) {
    return challenge.status();
  }
  response.set_challenge(*std::move(challenge));
  response.set_issuer_spiffe_id(issue::IssuerId(parts_.ca->trust_domain()).uri());
  return absl::OkStatus();
}

absl::Status CertifyService::Answer(const Call& call, const v1::CertifyRequest& request,
                                    v1::CertifyResponse& response) {
  const grpc::CallbackServerContext& context = *call.context;
  const Caller& caller = call.caller;
  absl::StatusOr<attest::Evidence> evidence = ReadEvidence(context, request, caller);
  if (!evidence.ok()) {
    spdlog::info("certify refused source={} reason={} detail={}", caller.source,
                 attest::Token(attest::ReasonOf(evidence.status())),
                 base::Message(evidence.status()));
    return evidence.status();
  }
  if (context.IsCancelled()) {
    return Refuse(RefusalReason::kOverload, "the caller's deadline has passed");
  }
  const size_t kind = evidence->index();
  absl::StatusOr<issue::IssueResult> result =
      parts_.issuer->Issue({base::AsBytes(request.csr_der()), *std::move(evidence), caller.source});
  if (!result.ok()) {
    return result.status();
  }
  parts_.counters->issued[kind].fetch_add(1);
  for (std::string& der : result->chain_der) {
    response.add_chain_der(std::move(der));
  }
  response.set_spiffe_id(result->id.uri());
  response.set_not_before(absl::ToUnixSeconds(result->not_before));
  response.set_not_after(absl::ToUnixSeconds(result->not_after));
  response.set_issued_at(absl::ToUnixSeconds(result->issued_at));
  response.set_issuer_time_ms(absl::ToUnixMillis(parts_.clock->Now()));
  *response.mutable_bundles() = ToMessage(*parts_.mesh->bundles());
  response.set_sends_revocations(true);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<grpc::Service> MakeCertifyService(const ServiceParts& parts) {
  return std::make_unique<CertifyService>(parts);
}

}  // namespace postern::service
