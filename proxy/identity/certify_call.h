// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/issuer_channel.h"
#include "proxy/net/loop.h"

namespace postern::v1 {
class CertifyRequest;
class CertifyResponse;
class ChallengeResponse;
}  // namespace postern::v1

namespace postern::identity {

// One Certify call, on a channel of its own, maybe after a Challenge call on the same. Lives on the
// main loop; gRPC's threads only post to it.
class CertifyCall {
 public:
  static constexpr absl::Duration kDeadline = absl::Seconds(15);  // of all of it

  struct Outcome {
    absl::Status status;         // not OK: why, as a sentence; the rest is unset then
    absl::Duration retry_after;  // what the issuer asked for; zero: nothing
    std::shared_ptr<const v1::CertifyResponse> response;
    absl::Duration clock_skew;  // this clock minus the issuer's, half the round trip taken out
  };

  // Puts the evidence that answers a challenge into the request. On `loop`, before `done`. An error
  // ends the call with it.
  using Prove = std::function<absl::Status(const v1::ChallengeResponse&, v1::CertifyRequest&)>;

  // Calls `done` once on `loop`, later. Errors of the channel's options come at once. `loop` and
  // the options' clock outlive it. With `prove`, the issuer is asked for a challenge first.
  static absl::StatusOr<std::unique_ptr<CertifyCall>> Start(
      net::Loop& loop, const rpc::IssuerChannelOptions& options, const v1::CertifyRequest& request,
      std::function<void(Outcome)> done, Prove prove = nullptr);

  // Cancels, and waits until gRPC has let go (at once, as gRPC only posts). `done` does not come
  // any more. May be called inside `done`.
  ~CertifyCall();
  CertifyCall(const CertifyCall&) = delete;
  CertifyCall& operator=(const CertifyCall&) = delete;

 private:
  struct State;
  explicit CertifyCall(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace postern::identity
