// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/mesh_client.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/base/strings.h"
#include "postern/v1/mesh.pb.h"
#include "proxy/identity/wire.h"

namespace postern::identity {
namespace {

constexpr size_t kLongestNack = 512;

v1::Kind WireKind(TrustKind kind) {
  switch (kind) {
    case TrustKind::kBundles:
      return v1::KIND_BUNDLES;
    case TrustKind::kPolicy:
      return v1::KIND_POLICY;
    case TrustKind::kRevocations:
      break;
  }
  return v1::KIND_REVOCATIONS;
}

}  // namespace

MeshClient::MeshClient(net::Loop& loop, const base::Clock& clock, RandomFraction random,
                       Delegate& delegate, std::vector<uint16_t> serving)
    : loop_(loop),
      clock_(clock),
      delegate_(delegate),
      serving_(std::move(serving)),
      backoff_(std::move(random)),
      reconnect_(loop, clock, [this] { Open(); }),
      handover_(loop, clock, [this] { OnHandoverTime(); }) {}

MeshClient::~MeshClient() = default;

void MeshClient::Connect(rpc::IssuerChannelOptions options) {
  options_ = std::move(options);
  backoff_.Reset();
  if (current_.heard) {
    Drop(draining_);
    draining_ = std::exchange(current_, {});
    handover_.SetAfter(kHandover);
  }
  Open();
}

void MeshClient::Open() {
  reconnect_.Stop();
  last_attempt_ = clock_.SinceBoot();
  Drop(current_);
  const uint64_t number = ++last_number_;
  current_.number = number;
  auto stream = MeshStream::Open(
      loop_, *options_,
      {[this, number](const v1::MeshResponse& message) { OnMessage(number, message); },
       [this, number](absl::Status status) { OnEnd(number, std::move(status)); }});
  if (!stream.ok()) {
    OnEnd(number, stream.status());
    return;
  }
  current_.stream = *std::move(stream);
  SendHello();
  Subscribe(delegate_.Subscriptions());
}

void MeshClient::SendHello() {
  v1::MeshRequest request;
  auto* hello = request.mutable_hello();
  hello->set_proxy_version(POSTERN_VERSION);
  const auto add_held = [hello](v1::Kind kind, const std::optional<Version>& version) {
    if (version.has_value()) {
      auto* held = hello->add_held();
      held->set_kind(kind);
      *held->mutable_version() = ToWire(*version);
    }
  };
  add_held(v1::KIND_BUNDLES, delegate_.HeldBundles());
  add_held(v1::KIND_POLICY, delegate_.HeldPolicy());
  add_held(v1::KIND_REVOCATIONS, delegate_.HeldRevocations());
  for (const uint16_t port : serving_) {
    auto* serving = hello->add_serving();
    serving->set_port(port);
    serving->set_transport(v1::TRANSPORT_DIRECT_TLS);
  }
  current_.stream->Send(std::move(request));
}

MeshClient::Stream* MeshClient::Find(uint64_t number) {
  if (number == current_.number) {
    return &current_;
  }
  return number == draining_.number ? &draining_ : nullptr;
}

void MeshClient::OnMessage(uint64_t number, const v1::MeshResponse& message) {
  Stream* const stream = Find(number);
  if (stream == nullptr) {
    return;  // dropped already
  }
  if (!stream->heard) {
    stream->heard = true;
    backoff_.Reset();
    last_error_ = absl::OkStatus();
    spdlog::info("connected to the issuer's stream");
    handover_.Stop();
    Drop(draining_);
    delegate_.OnConnection();
  }
  delegate_.OnHeard(clock_.Now() - absl::FromUnixMillis(message.issuer_time_ms()));
  Apply(*stream, message);
}

void MeshClient::Apply(Stream& from, const v1::MeshResponse& message) {
  switch (message.message_case()) {
    case v1::MeshResponse::kBundles:
      Applied(from, TrustKind::kBundles, FromWire(message.bundles().version()),
              delegate_.OnBundles(message.bundles()));
      return;
    case v1::MeshResponse::kPolicy:
      Applied(from, TrustKind::kPolicy, FromWire(message.policy().version()),
              delegate_.OnPolicy(message.policy()));
      return;
    case v1::MeshResponse::kRevocations: {
      // The version stands inside of what is signed; of what does not parse it is none.
      v1::RevocationList list;
      list.ParseFromString(message.revocations().list());
      Applied(from, TrustKind::kRevocations, FromWire(list.version()),
              delegate_.OnRevocations(message.revocations()));
      return;
    }
    case v1::MeshResponse::kEndpoints:
      for (const auto& answer : message.endpoints().answers()) {
        delegate_.OnAnswer(answer);
      }
      delegate_.OnAnswersEnd();
      Acknowledge(from, v1::KIND_ENDPOINTS, FromWire(message.endpoints().version()),
                  absl::OkStatus());
      return;
    case v1::MeshResponse::kKeepAlive:
    case v1::MeshResponse::MESSAGE_NOT_SET:  // of a newer release
      return;
  }
}

void MeshClient::Applied(Stream& from, TrustKind kind, const Version& version,
                         const absl::Status& applied) {
  delegate_.OnApplied(kind, applied.ok());
  Acknowledge(from, WireKind(kind), version, applied);
}

void MeshClient::Acknowledge(Stream& to, int kind, const Version& version,
                             const absl::Status& applied) {
  if (to.stream == nullptr) {
    return;  // dropped by what was applied
  }
  v1::MeshRequest request;
  auto* ack = request.mutable_ack();
  ack->set_kind(static_cast<v1::Kind>(kind));
  *ack->mutable_version() = ToWire(version);
  if (!applied.ok()) {
    ack->set_error(base::LineSafe(base::Message(applied), kLongestNack));
  }
  to.stream->Send(std::move(request));
}

void MeshClient::OnEnd(uint64_t number, absl::Status status) {
  if (number != current_.number) {
    if (number == draining_.number) {
      Drop(draining_);
      delegate_.OnConnection();
    }
    return;
  }
  const bool was_heard = current_.heard;
  Drop(current_);
  last_error_ =
      status.ok() ? absl::UnavailableError("the issuer ended the stream") : std::move(status);
  const absl::Duration pause = backoff_.Next(kLongestPause);
  spdlog::log(was_heard ? spdlog::level::warn : spdlog::level::debug,
              "no stream to the issuer, again in {}: {}", absl::FormatDuration(pause),
              base::Message(last_error_));
  reconnect_.SetAfter(pause);
  HurryReconnect();
  delegate_.OnConnection();
}

void MeshClient::Hurry() {
  hurried_until_ = clock_.SinceBoot() + kHurried;
  HurryReconnect();
}

void MeshClient::HurryReconnect() {
  const absl::Duration soonest = last_attempt_ + kHurriedPause;
  if (reconnect_.due().has_value() && soonest < *reconnect_.due() && soonest < hurried_until_) {
    reconnect_.SetAt(soonest);
  }
}

void MeshClient::OnHandoverTime() {
  if (current_.stream == nullptr) {
    handover_.SetAfter(kHandover);  // there is nothing yet to hand over to
    return;
  }
  Drop(draining_);
}

void MeshClient::Drop(Stream& stream) {
  if (stream.stream != nullptr) {
    // It may be its own callback that we are in.
    loop_.Defer([ended = std::shared_ptr<MeshStream>(std::move(stream.stream))] {});
  }
  stream = {};
}

void MeshClient::Subscribe(const std::vector<AddressKey>& keys) {
  v1::MeshRequest request;
  for (size_t i = 0; current_.stream != nullptr && i < keys.size(); ++i) {
    *request.mutable_subscribe()->add_addresses() = AddressToWire(keys[i]);
    if (request.subscribe().addresses_size() == kMostAddressesPerRequest || i + 1 == keys.size()) {
      current_.stream->Send(std::exchange(request, {}));
    }
  }
}

void MeshClient::Unsubscribe(const std::vector<AddressKey>& keys) {
  v1::MeshRequest request;
  for (size_t i = 0; current_.stream != nullptr && i < keys.size(); ++i) {
    *request.mutable_unsubscribe()->add_addresses() = AddressToWire(keys[i]);
    if (request.unsubscribe().addresses_size() == kMostAddressesPerRequest ||
        i + 1 == keys.size()) {
      current_.stream->Send(std::exchange(request, {}));
    }
  }
}

}  // namespace postern::identity
