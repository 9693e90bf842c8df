// SPDX-License-Identifier: Apache-2.0
#include "control/service/certify_service.h"

#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include <atomic>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "control/service/caller.h"
#include "control/service/messages.h"
#include "postern/v1/identity.grpc.pb.h"

namespace postern::service {
namespace {

using attest::RefusalReason;
using attest::Refuse;

constexpr char kRetryAfterKey[] = "postern-retry-after-ms";
constexpr absl::Duration kOverloadRetry = absl::Seconds(1);

// Counts itself among the requests at work for as long as it lives.
class Admission {
 public:
  explicit Admission(std::atomic<int>& at_work)
      : at_work_(at_work), number_(at_work.fetch_add(1) + 1) {}
  ~Admission() { at_work_.fetch_sub(1); }
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;
  bool IsTooMany() const { return number_ > kMaxCertifyAtOnce; }

 private:
  std::atomic<int>& at_work_;
  const int number_;
};

class CertifyService final : public v1::Identity::Service {
 public:
  explicit CertifyService(const ServiceParts& parts) : parts_(parts) {}

  grpc::Status Certify(grpc::ServerContext* context, const v1::CertifyRequest* request,
                       v1::CertifyResponse* response) override {
    const absl::Duration begun = parts_.clock->SinceBoot();
    absl::Status done = Answer(*context, *request, *response);
    parts_.counters->ObserveCertify(parts_.clock->SinceBoot() - begun);
    if (!done.ok()) {
      const RefusalReason reason = attest::ReasonOf(done);
      parts_.counters->refused[static_cast<size_t>(reason)].fetch_add(1);
    }
    return ToGrpc(done);
  }

 private:
  absl::Status Answer(grpc::ServerContext& context, const v1::CertifyRequest& request,
                      v1::CertifyResponse& response);
  absl::Status Admit(grpc::ServerContext& context, const Caller& caller,
                     const Admission& admission) const;
  absl::StatusOr<attest::Evidence> ReadEvidence(const grpc::ServerContext& context,
                                                const v1::CertifyRequest& request,
                                                const Caller& caller) const;
  absl::StatusOr<attest::Evidence> CertificateEvidence(const grpc::ServerContext& context) const;

  const ServiceParts parts_;
  std::atomic<int> at_work_{0};
};

absl::Status CertifyService::Admit(grpc::ServerContext& context, const Caller& caller,
                                   const Admission& admission) const {
  const absl::Duration wait = parts_.certify_limit->Take(caller.rate_key);
  const bool too_many = admission.IsTooMany();
  if (wait == absl::ZeroDuration() && !too_many) {
    return absl::OkStatus();
  }
  const absl::Duration retry = std::max(wait, too_many ? kOverloadRetry : absl::ZeroDuration());
  context.AddTrailingMetadata(kRetryAfterKey, std::to_string(absl::ToInt64Milliseconds(retry) + 1));
  return too_many ? Refuse(RefusalReason::kOverload, "the issuer is busy; try again shortly")
                  : Refuse(RefusalReason::kRateLimited,
                           base::StrCat("too many certificate requests from ", caller.rate_key));
}

absl::StatusOr<attest::Evidence> CertifyService::CertificateEvidence(
    const grpc::ServerContext& context) const {
  x509::ChainVerdict verdict = VerifiedClient(*context.auth_context(), *parts_.ca, *parts_.clock);
  if (!verdict.peer.has_value()) {
    return Refuse(RefusalReason::kUnattested,
                  base::StrCat("the channel's client certificate: ", verdict.error.detail));
  }
  return attest::ExistingCertificateEvidence{*std::move(verdict.peer)};
}

absl::StatusOr<attest::Evidence> CertifyService::ReadEvidence(const grpc::ServerContext& context,
                                                              const v1::CertifyRequest& request,
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
    case v1::CertifyRequest::EVIDENCE_NOT_SET:
      break;
  }
  return Refuse(RefusalReason::kBadRequest, "the request holds no evidence");
}

absl::Status CertifyService::Answer(grpc::ServerContext& context, const v1::CertifyRequest& request,
                                    v1::CertifyResponse& response) {
  const Admission admission(at_work_);
  const Caller caller = WhoCalls(context, parts_.unix_listener);
  if (absl::Status admitted = Admit(context, caller, admission); !admitted.ok()) {
    return admitted;
  }
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
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<grpc::Service> MakeCertifyService(const ServiceParts& parts) {
  return std::make_unique<CertifyService>(parts);
}

}  // namespace postern::service
