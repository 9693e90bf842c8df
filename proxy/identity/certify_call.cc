// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/certify_call.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "common/base/strings.h"
#include "postern/v1/identity.grpc.pb.h"
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

struct CertifyCall::State {
  State(net::Loop& main, rpc::IssuerChannel made, const base::Clock* wall)
      : loop(main),
        channel(std::move(made)),
        clock(wall),
        stub(v1::Identity::NewStub(channel.channel())) {}

  net::Loop& loop;
  rpc::IssuerChannel channel;
  const base::Clock* const clock;
  std::unique_ptr<v1::Identity::Stub> stub;
  grpc::ClientContext context;
  v1::CertifyRequest request;
  std::shared_ptr<v1::CertifyResponse> response = std::make_shared<v1::CertifyResponse>();
  absl::Duration sent;                // SinceBoot
  std::function<void(Outcome)> done;  // loop only; empty once called or cancelled

  std::mutex mutex;
  std::condition_variable finished_changed;
  bool finished = false;  // guarded by mutex: gRPC has let go

  Outcome Judge(const grpc::Status& status) const;
  void Finish();
};

CertifyCall::Outcome CertifyCall::State::Judge(const grpc::Status& status) const {
  Outcome outcome;
  outcome.status = FromGrpc(status, channel.LastRefusal());
  outcome.retry_after = RetryAfter(context);
  if (outcome.status.ok()) {
    const absl::Duration round_trip = clock->SinceBoot() - sent;
    outcome.clock_skew =
        clock->Now() - round_trip / 2 - absl::FromUnixMillis(response->issuer_time_ms());
    outcome.response = response;
  }
  return outcome;
}

void CertifyCall::State::Finish() {
  const std::lock_guard lock(mutex);
  finished = true;
  finished_changed.notify_all();
}

CertifyCall::CertifyCall(std::shared_ptr<State> state) : state_(std::move(state)) {}

CertifyCall::~CertifyCall() {
  state_->done = nullptr;
  state_->context.TryCancel();
  std::unique_lock lock(state_->mutex);
  state_->finished_changed.wait(lock, [this] { return state_->finished; });
}

absl::StatusOr<std::unique_ptr<CertifyCall>> CertifyCall::Start(
    net::Loop& loop, const rpc::IssuerChannelOptions& options, const v1::CertifyRequest& request,
    std::function<void(Outcome)> done) {
  auto channel = rpc::IssuerChannel::Create(options);
  if (!channel.ok()) {
    return channel.status();
  }
  auto state = std::make_shared<State>(loop, *std::move(channel), options.clock);
  state->request = request;
  state->done = std::move(done);
  state->sent = options.clock->SinceBoot();
  state->context.set_deadline(std::chrono::system_clock::now() +
                              absl::ToChronoMilliseconds(kDeadline));
  // gRPC holds the state through this callback until the call has ended. Post comes first: once
  // Finish was called, the loop may go.
  state->stub->async()->Certify(
      &state->context, &state->request, state->response.get(), [state](const grpc::Status& status) {
        state->loop.Post([state, outcome = state->Judge(status)]() mutable {
          if (auto callback = std::exchange(state->done, nullptr)) {
            callback(std::move(outcome));
          }
        });
        state->Finish();
      });
  return std::unique_ptr<CertifyCall>(new CertifyCall(std::move(state)));
}

}  // namespace postern::identity
