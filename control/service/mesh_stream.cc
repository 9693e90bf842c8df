// SPDX-License-Identifier: Apache-2.0
#include "control/service/mesh_stream.h"

#include <spdlog/spdlog.h>

#include "common/base/strings.h"
#include "control/service/messages.h"

namespace postern::service {
namespace {

absl::StatusOr<std::vector<mesh::Address>> Addresses(
    const google::protobuf::RepeatedPtrField<v1::Address>& messages) {
  std::vector<mesh::Address> addresses;
  addresses.reserve(static_cast<size_t>(messages.size()));
  for (const v1::Address& message : messages) {
    absl::StatusOr<mesh::Address> address = FromMessage(message);
    if (!address.ok()) {
      return address.status();
    }
    addresses.push_back(*address);
  }
  return addresses;
}

}  // namespace

MeshStream::MeshStream(const ServiceParts& parts, grpc::CallbackServerContext& context,
                       Executor executor)
    : parts_(parts),
      context_(context),
      executor_(std::move(executor)),
      caller_(WhoCalls(context, parts.unix_listener)),
      connection_(context.auth_context()),
      begun_(parts.clock->SinceBoot()),
      written_at_(begun_) {}

void MeshStream::Begin() {
  self_ = shared_from_this();
  StartRead(&request_);
}

void MeshStream::OnReadDone(bool ok) {
  const std::shared_ptr<MeshStream> keep = shared_from_this();
  if (!ok) {
    End(absl::OkStatus());
    return;
  }
  // Known before: once it has connected, the next message may be read into request_ already.
  const bool hello = request_.message_case() == v1::MeshRequest::kHello;
  const absl::Status handled = Handle(request_);
  if (!handled.ok()) {
    End(handled);
    return;
  }
  // While it connects nothing more is read: a proxy cannot queue up work before it is known. Open
  // begins the next read, maybe before this line: a second one beside it would abort the process.
  if (hello) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ == Phase::kOpen) {
    PumpLocked();
    if (phase_ == Phase::kOpen) {
      StartRead(&request_);
    }
  }
}

absl::Status MeshStream::Handle(const v1::MeshRequest& request) {
  if (request.message_case() == v1::MeshRequest::kHello) {
    return HandleHello(request.hello());
  }
  // Only this thread reads, and session_ is set before the next read begins.
  if (session_ == nullptr) {
    return absl::InvalidArgumentError("the first message of a mesh stream is hello");
  }
  switch (request.message_case()) {
    case v1::MeshRequest::kAck: {
      const absl::StatusOr<mesh::Kind> kind = FromMessage(request.ack().kind());
      if (!kind.ok()) {
        return kind.status();
      }
      if (!request.ack().error().empty()) {
        parts_.counters->nacks.fetch_add(1);
      }
      session_->Acknowledge(*kind, FromMessage(request.ack().version()), request.ack().error());
      return absl::OkStatus();
    }
    case v1::MeshRequest::kSubscribe: {
      const auto addresses = Addresses(request.subscribe().addresses());
      return addresses.ok() ? session_->Subscribe(*addresses) : addresses.status();
    }
    case v1::MeshRequest::kUnsubscribe: {
      const auto addresses = Addresses(request.unsubscribe().addresses());
      if (addresses.ok()) {
        session_->Unsubscribe(*addresses);
      }
      return addresses.status();
    }
    default:
      return absl::OkStatus();  // of a newer release: passed over
  }
}

absl::Status MeshStream::HandleHello(const v1::MeshRequest::Hello& hello) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::kHello) {
    return absl::InvalidArgumentError("hello comes once");
  }
  phase_ = Phase::kConnecting;
  executor_([stream = shared_from_this(), hello] { stream->Connect(hello); });
  return absl::OkStatus();
}

absl::StatusOr<mesh::ProxyFacts> MeshStream::AuthenticateUnixPeer() {
  const absl::StatusOr<attest::Attestation> attested =
      parts_.attestor->Attest(attest::UnixPeerEvidence{caller_.unix_peer});
  if (!attested.ok()) {
    return attested.status();
  }
  const absl::StatusOr<std::vector<store::Entry>> entries =
      parts_.store->entries().MatchEntries(attested->selectors);
  if (!entries.ok()) {
    return entries.status();
  }
  if (entries->size() != 1) {
    return absl::PermissionDeniedError(
        base::StrCat(entries->size(), " entries match this process; exactly one must"));
  }
  const store::Entry& entry = entries->front();
  const std::array<uint8_t, 4> loopback = {127, 0, 0, 1};
  // There is no certificate here whose end would end the stream, and entries are deleted.
  const absl::Duration lifetime =
      entry.svid_ttl == absl::ZeroDuration() ? parts_.issuer->ttl().default_ttl : entry.svid_ttl;
  const std::lock_guard<std::mutex> lock(mutex_);
  not_after_ = parts_.clock->Now() + lifetime;
  unix_id_ = entry.spiffe_id;
  if (absl::Status stands = CheckNotRevoked(*parts_.revocations->current()); !stands.ok()) {
    return stands;
  }
  return mesh::ProxyFacts{entry.spiffe_id, entry.id, *base::IpAddress::FromBytes(loopback)};
}

absl::StatusOr<mesh::ProxyFacts> MeshStream::Authenticate() {
  if (caller_.unix_peer != nullptr) {
    return AuthenticateUnixPeer();
  }
  const x509::ChainVerdict verdict = parts_.clients->Verify(*connection_);
  if (!verdict.peer.has_value()) {
    return absl::UnauthenticatedError(
        base::StrCat("the channel's client certificate: ", verdict.error.detail));
  }
  const absl::StatusOr<attest::Attestation> attested =
      parts_.attestor->Attest(attest::ExistingCertificateEvidence{*verdict.peer});
  if (!attested.ok()) {
    return attested.status();
  }
  if (!caller_.ip.has_value()) {
    return absl::UnauthenticatedError("the connection has no address");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  not_after_ = verdict.peer->not_after;
  peer_ = verdict.peer;
  if (absl::Status stands = CheckNotRevoked(*parts_.revocations->current()); !stands.ok()) {
    return stands;
  }
  return mesh::ProxyFacts{verdict.peer->id, attested->entry_id, *caller_.ip, verdict.peer->serial};
}

absl::Status MeshStream::ApplyHello(mesh::Session& session,
                                    const v1::MeshRequest::Hello& hello) const {
  for (const v1::MeshRequest::Hello::Held& held : hello.held()) {
    // A kind of a newer release is not ours to send again.
    if (const absl::StatusOr<mesh::Kind> kind = FromMessage(held.kind()); kind.ok()) {
      session.SetHeld(*kind, FromMessage(held.version()));
    }
  }
  std::vector<mesh::Serving> serving;
  for (const v1::MeshRequest::Hello::Serving& port : hello.serving()) {
    if (port.port() > 65535) {
      return absl::InvalidArgumentError("hello.serving.port: no port");
    }
    serving.push_back({static_cast<uint16_t>(port.port()), mesh::Transport::kDirectTls});
  }
  return session.SetServing(serving);
}

void MeshStream::Connect(const v1::MeshRequest::Hello& hello) {
  const absl::StatusOr<mesh::ProxyFacts> facts = Authenticate();
  absl::Status done = facts.status();
  std::unique_ptr<mesh::Session> session;
  if (facts.ok()) {
    auto connected = parts_.mesh->Connect(*facts, [weak = weak_from_this()] {
      if (const std::shared_ptr<MeshStream> stream = weak.lock()) {
        stream->Pump();
      }
    });
    done = connected.status();
    if (connected.ok()) {
      session = *std::move(connected);
      done = ApplyHello(*session, hello);
    }
  }
  if (!done.ok()) {
    parts_.counters->streams_refused.fetch_add(1);
    spdlog::info("mesh stream refused source={} detail={}", caller_.source, base::Message(done));
    session.reset();  // without the lock: it waits for a running wake, which takes it
    End(done);
    return;
  }
  if (!Open(session)) {
    return;  // it went meanwhile; the session ends here, with a reference to this stream still held
  }
  spdlog::debug("mesh stream open source={} spiffe_id={}", caller_.source, facts->id.uri());
}

bool MeshStream::Open(std::unique_ptr<mesh::Session>& session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ != Phase::kConnecting) {
    return false;
  }
  session_ = std::move(session);
  phase_ = Phase::kOpen;
  PumpLocked();
  if (!writing_) {
    // Nothing is owed; the proxy waits to hear that it is connected.
    queue_.emplace_back(NewResponse()).mutable_keep_alive();
    PumpLocked();
  }
  if (phase_ == Phase::kOpen) {
    StartRead(&request_);
  }
  return true;
}

v1::MeshResponse MeshStream::NewResponse() const {
  v1::MeshResponse response;
  response.set_issuer_time_ms(absl::ToUnixMillis(parts_.clock->Now()));
  return response;
}

void MeshStream::Pump() {
  const std::lock_guard<std::mutex> lock(mutex_);
  PumpLocked();
}

absl::Status MeshStream::CheckNotRevoked(const x509::RevocationSet& revoked) const {
  if (peer_.has_value()) {
    const std::optional<std::string> why = revoked.WhyRevoked(*peer_);
    return why.has_value() ? absl::PermissionDeniedError(*why) : absl::OkStatus();
  }
  const x509::Revocation* const found =
      unix_id_.has_value() ? revoked.Find(x509::RevokedBy::kSpiffeId, unix_id_->uri()) : nullptr;
  return found == nullptr ? absl::OkStatus()
                          : absl::PermissionDeniedError(base::StrCat(
                                unix_id_->uri(), " is revoked: ", base::Printable(found->reason)));
}

bool MeshStream::EndIfRevokedLocked() {
  std::shared_ptr<const x509::RevocationSet> now = parts_.revocations->current();
  if (phase_ != Phase::kOpen || now == judged_by_) {
    return false;
  }
  judged_by_ = std::move(now);
  const absl::Status stands = CheckNotRevoked(*judged_by_);
  if (stands.ok()) {
    return false;
  }
  parts_.counters->streams_revoked.fetch_add(1);
  spdlog::warn("mesh stream ended source={} detail={}", caller_.source, base::Message(stands));
  EndLocked(stands);
  return true;
}

void MeshStream::PumpLocked() {
  if (EndIfRevokedLocked() || phase_ != Phase::kOpen || writing_) {
    return;
  }
  if (queue_.empty()) {
    const mesh::Updates updates = session_->Take();
    if (updates.entry_gone) {
      EndLocked(absl::NotFoundError("the entry of this proxy was deleted"));
      return;
    }
    if (updates.bundles != nullptr) {
      *queue_.emplace_back(NewResponse()).mutable_bundles() = ToMessage(*updates.bundles);
    }
    // After the roots, by which their signature is verified, and before all else.
    if (updates.revocations != nullptr) {
      *queue_.emplace_back(NewResponse()).mutable_revocations() = ToMessage(*updates.revocations);
    }
    if (updates.policy != nullptr) {
      *queue_.emplace_back(NewResponse()).mutable_policy() = ToMessage(*updates.policy);
    }
    if (updates.endpoints.has_value()) {
      *queue_.emplace_back(NewResponse()).mutable_endpoints() = ToMessage(*updates.endpoints);
    }
  }
  if (!queue_.empty()) {
    writing_ = true;
    written_at_ = parts_.clock->SinceBoot();
    StartWrite(&queue_.front());
  }
}

void MeshStream::OnWriteDone(bool ok) {
  const std::shared_ptr<MeshStream> keep = shared_from_this();
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  queue_.pop_front();
  if (phase_ == Phase::kEnding) {
    phase_ = Phase::kEnded;
    Finish(ToGrpc(end_status_));
  } else if (!ok) {
    EndLocked(absl::CancelledError("the proxy went away"));
  } else {
    PumpLocked();
  }
}

void MeshStream::Tick() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const absl::Duration now = parts_.clock->SinceBoot();
  if (phase_ == Phase::kHello && now - begun_ > kHelloDeadline) {
    EndLocked(absl::DeadlineExceededError("no hello in time"));
  } else if (phase_ == Phase::kOpen && parts_.clock->Now() >= not_after_) {
    EndLocked(
        absl::UnauthenticatedError("the attestation of this stream has expired: connect again"));
  } else if (EndIfRevokedLocked()) {
    return;
  } else if (phase_ == Phase::kOpen && !writing_ && now - written_at_ > kKeepAlivePeriod) {
    queue_.emplace_back(NewResponse()).mutable_keep_alive();
    PumpLocked();
  } else if (phase_ == Phase::kEnding && now - written_at_ > kKeepAlivePeriod) {
    context_.TryCancel();  // the last write does not leave: the proxy reads no more
  }
}

void MeshStream::End(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  EndLocked(status);
}

void MeshStream::EndLocked(const absl::Status& status) {
  if (phase_ == Phase::kEnding || phase_ == Phase::kEnded) {
    return;
  }
  if (writing_) {
    phase_ = Phase::kEnding;
    end_status_ = status;
    return;
  }
  phase_ = Phase::kEnded;
  Finish(ToGrpc(status));
}

void MeshStream::OnCancel() {
  const std::shared_ptr<MeshStream> keep = shared_from_this();
  End(absl::CancelledError("the proxy went away"));
}

void MeshStream::OnDone() {
  std::unique_ptr<mesh::Session> session;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    phase_ = Phase::kEnded;
    session = std::move(session_);
  }
  session.reset();
  self_.reset();  // may destroy this: nothing may follow
}

}  // namespace postern::service
