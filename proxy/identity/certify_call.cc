// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/certify_call.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <charconv>
#include <chrono>
#include <utility>

#include "common/base/strings.h"
#include "postern/v1/identity.grpc.pb.h"
#include "proxy/identity/let_go.h"
#include "proxy/identity/rpc_status.h"

namespace postern::identity {
namespace {

// See identity.proto.
constexpr char kRetryAfterKey[] = "postern-retry-after-ms";

absl::Duration RetryAfter(const grpc::ClientContext& context) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto at = trailers.find(kRetryAfterKey);
  int64_t milliseconds = 0;
  if (at != trailers.end()) {
    std::from_chars(at->second.data(), at->second.data() + at->second.size(), milliseconds);
  }
  return milliseconds > 0 ? absl::Milliseconds(milliseconds) : absl::ZeroDuration();
}

}  // namespace

// Owned by the CertifyCall, on the main loop. gRPC's thread looks at it through a plain pointer
// until it says through `let_go` that it has done: were it to own a part, the channel could end on
// it, and ending the last channel of the process waits for that very thread.
struct CertifyCall::State : std::enable_shared_from_this<State> {
  // One of the calls that it is made of.
  struct Leg {
    grpc::ClientContext context;
    std::shared_ptr<LetGo> let_go;  // null: not begun
  };

  State(net::Loop& main, rpc::IssuerChannel made, const base::Clock* wall)
      : loop(main),
        channel(std::move(made)),
        clock(wall),
        stub(v1::Identity::NewStub(channel.channel())),
        deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kDeadline)) {}

  net::Loop& loop;
  rpc::IssuerChannel channel;
  const base::Clock* const clock;
  std::unique_ptr<v1::Identity::Stub> stub;
  const std::chrono::system_clock::time_point deadline;
  Leg challenge;
  Leg certify;
  v1::ChallengeRequest challenge_request;
  v1::ChallengeResponse challenge_response;
  v1::CertifyRequest request;
  std::shared_ptr<v1::CertifyResponse> response = std::make_shared<v1::CertifyResponse>();
  absl::Duration sent;                // SinceBoot
  Prove prove;                        // loop only
  std::function<void(Outcome)> done;  // loop only; empty once called or cancelled

  // In this order, on the loop; Judge on either side.
  void AskForChallenge();
  void OnChallenge(const Outcome& outcome);
  void AskForCertificate();
  Outcome Judge(const Leg& leg, const grpc::Status& status) const;
  void PostOutcome(const grpc::Status& status);
  void Finish(const Outcome& outcome) { std::exchange(done, nullptr)(outcome); }
};

void CertifyCall::State::AskForChallenge() {
  challenge.let_go = std::make_shared<LetGo>();
  challenge.context.set_deadline(deadline);
  stub->async()->Challenge(
      &challenge.context, &challenge_request, &challenge_response,
      [plain = this, let_go = challenge.let_go](const grpc::Status& status) {
        plain->loop.Post(
            [weak = plain->weak_from_this(), outcome = plain->Judge(plain->challenge, status)] {
              if (const auto state = weak.lock(); state != nullptr && state->done) {
                state->OnChallenge(outcome);
              }
            });
        let_go->Signal();  // the last thing: the state and the loop may go now
      });
}

void CertifyCall::State::OnChallenge(const Outcome& outcome) {
  if (!outcome.status.ok()) {
    Finish(outcome);
    return;
  }
  Outcome proven;
  proven.status = prove(challenge_response, request);
  if (!proven.status.ok()) {
    Finish(proven);
    return;
  }
  AskForCertificate();
}

void CertifyCall::State::AskForCertificate() {
  sent = clock->SinceBoot();
  certify.let_go = std::make_shared<LetGo>();
  certify.context.set_deadline(deadline);
  stub->async()->Certify(&certify.context, &request, response.get(),
                         [plain = this, let_go = certify.let_go](const grpc::Status& status) {
                           plain->PostOutcome(status);
                           let_go->Signal();  // the last thing, as above
                         });
}

CertifyCall::Outcome CertifyCall::State::Judge(const Leg& leg, const grpc::Status& status) const {
  Outcome outcome;
  outcome.status = FromGrpc(status, channel.LastRefusal());
  outcome.retry_after = RetryAfter(leg.context);
  return outcome;
}

void CertifyCall::State::PostOutcome(const grpc::Status& status) {
  Outcome outcome = Judge(certify, status);
  if (outcome.status.ok()) {
    const absl::Duration round_trip = clock->SinceBoot() - sent;
    outcome.clock_skew =
        clock->Now() - round_trip / 2 - absl::FromUnixMillis(response->issuer_time_ms());
    outcome.response = response;
  }
  loop.Post([weak = weak_from_this(), outcome = std::move(outcome)] {
    if (const auto state = weak.lock(); state != nullptr && state->done) {
      state->Finish(outcome);
    }
  });
}

CertifyCall::CertifyCall(std::shared_ptr<State> state) : state_(std::move(state)) {}

CertifyCall::~CertifyCall() {
  state_->done = nullptr;
  for (State::Leg* leg : {&state_->challenge, &state_->certify}) {
    if (leg->let_go != nullptr) {
      leg->context.TryCancel();
      leg->let_go->Wait();
    }
  }
}

absl::StatusOr<std::unique_ptr<CertifyCall>> CertifyCall::Start(
    net::Loop& loop, const rpc::IssuerChannelOptions& options, const v1::CertifyRequest& request,
    std::function<void(Outcome)> done, Prove prove) {
  auto channel = rpc::IssuerChannel::Create(options);
  if (!channel.ok()) {
    return channel.status();
  }
  auto state = std::make_shared<State>(loop, *std::move(channel), options.clock);
  state->request = request;
  state->done = std::move(done);
  state->prove = std::move(prove);
  if (state->prove) {
    state->AskForChallenge();
  } else {
    state->AskForCertificate();
  }
  return std::unique_ptr<CertifyCall>(new CertifyCall(std::move(state)));
}

}  // namespace postern::identity
