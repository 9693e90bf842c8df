// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/outbound_session.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "proxy/intercept/socket_table.h"
#include "proxy/session/clock_notes.h"
#include "proxy/session/plain_transport.h"

namespace postern::session {

using base::CloseReason;
using base::Side;
using telemetry::PlaintextReason;

// ---------------------------------------------------------------- Accept

OutboundSession::OutboundSession(WorkerContext& worker, const ListenerSpec& via,
                                 std::unique_ptr<net::Stream> accepted,
                                 const net::SocketAddress& peer)
    : Session(worker, via, peer) {
  downstream_ = std::make_unique<PlainTransport>(std::move(accepted));
}

void OutboundSession::GoTo(const net::SocketAddress& destination, ConnectOutcome outcome) {
  destination_ = destination;
  outcome_ = std::move(outcome);
}

void OutboundSession::Start() {
  if (via().takes_requests) {
    StartRequest();
    return;
  }
  if (via().tunnel == nullptr) {
    StartOriginalDestination();
    return;
  }
  destination_ = via().target.value_or(net::SocketAddress());
  dial_ = destination_;
  expected_ = via().tunnel->peers;
  pins_ = via().tunnel->pins;
  NeedIdentity();
}

// ---------------------------------------------------------------- OriginalDestination

void OutboundSession::StartOriginalDestination() {
  Advance(Phase::kOriginalDestination);
  if (!via().handed) {
    const auto& accepted = static_cast<const PlainTransport&>(*downstream_);
    const absl::StatusOr<net::SocketAddress> original =
        worker().shared.original_destination(accepted.stream(), via().transparent);
    if (!original.ok()) {
      Fail(CloseReason::kNoOriginalDestination, Side::kDownstream, original.status());
      return;
    }
    destination_ = *original;
  }
  if (!RefuseSelf()) {
    Classify();
  }
}

// True: the connection would come back here for ever, and has failed.
bool OutboundSession::RefuseSelf() {
  if (!worker().own.Contains(destination_)) {
    return false;
  }
  Fail(CloseReason::kSelfLoop, Side::kDownstream,
       absl::InvalidArgumentError(base::StrCat(destination_.ToString(), " is this proxy itself")));
  return true;
}

// ---------------------------------------------------------------- Classify

void OutboundSession::Classify() {
  Advance(Phase::kClassify);
  dial_ = destination_;
  if (worker().shared.endpoints == nullptr) {
    NotInMesh();
    return;
  }
  WatchDownstream();
  query_ = worker().shared.endpoints->Lookup(
      worker().loop, destination_,
      [this](const identity::EndpointDirectory::Answer& answer) { OnLookup(answer); });
}

void OutboundSession::OnLookup(const identity::EndpointDirectory::Answer& answer) {
  if (phase() != Phase::kClassify) {
    return;
  }
  if (!answer.ok()) {
    RefuseLookup(answer.status());
  } else if (answer->has_value()) {
    InMesh(**answer, Place{destination_, ""});
  } else {
    NotInMesh();
  }
}

void OutboundSession::RefuseLookup(const absl::Status& why) {
  Fail(absl::IsFailedPrecondition(why) ? CloseReason::kMeshDowngrade : CloseReason::kLookupTimeout,
       Side::kUpstream, why);
}

void OutboundSession::NotInMesh() {
  if (std::optional<base::Failure> banned = RefusesPlaintext()) {
    Fail(*std::move(banned));
    return;
  }
  carries_ = Carries::kUnseen;
  Connect();
}

// The one place that says whether bytes may go to this destination outside of mTLS. Of a name's
// addresses, and of a service's places, each may be dialled, and what holds for the name or the
// service holds for each of them.
std::optional<base::Failure> OutboundSession::RefusesPlaintext() const {
  const auto covers = [this](const net::SocketAddress& address) {
    return !address.is_unix() && worker().config().require_mtls.Covers(address.ip());
  };
  const auto covers_one = [&covers](const auto& several) {
    return std::ranges::any_of(several, [&](const auto& one) { return covers(one.address); });
  };
  const bool by_name = request_ != nullptr && !request_->addresses.empty();
  const bool banned =
      by_name ? worker().config().require_mtls.CoversName(request_->reader.destination().name) ||
                    covers_one(request_->addresses)
              : covers(destination_) || covers(dial_) || covers_one(places_);
  const std::string what = request_ != nullptr ? AskedFor() : destination_.ToString();
  base::Failure failure;
  failure.side = Side::kUpstream;
  if (banned) {
    failure.reason = CloseReason::kMtlsRequired;
    failure.detail = absl::PermissionDeniedError(
        base::StrCat(what, " would be reached without mTLS, which --require-mtls forbids"));
    return failure;
  }
  if (worker().config().outbound_default == config::OutboundDefault::kDeny) {
    failure.reason = CloseReason::kDestinationDenied;
    failure.detail = absl::PermissionDeniedError(base::StrCat(what, " is not in the mesh"));
    return failure;
  }
  return std::nullopt;
}

void OutboundSession::InMesh(const config::MeshDestination& destination, const Place& asked) {
  expected_ = destination.expected;
  pins_ = destination.pins;
  endpoints_are_ = destination.endpoints_are;
  if (destination.endpoints.empty()) {
    places_ = asked.name.empty() ? std::vector<Place>() : std::vector<Place>{asked};
    dial_ = asked.address;
    WrapOrPass();
    return;
  }
  for (const config::EndpointSpec& endpoint : destination.endpoints) {
    Place place = asked;
    if (endpoint.ip.has_value() || !endpoint.name.empty()) {
      place.name = endpoint.name;
    }
    place.address = net::SocketAddress(endpoint.ip.value_or(asked.address.ip()),
                                       endpoint.port != 0 ? endpoint.port : asked.address.port());
    places_.push_back(std::move(place));
  }
  if (places_.size() == 1 && places_.front().name.empty()) {
    dial_ = places_.front().address;
    places_.clear();
  }
  WrapOrPass();
}

// A client that asks says nothing before it is answered: its own TLS is wrapped.
void OutboundSession::WrapOrPass() {
  const auto& rules = worker().config().application_tls;
  const auto rule = rules.find(destination_.port());
  if (request_ == nullptr && rule != rules.end() && rule->second == config::ApplicationTls::kPass) {
    StartFirstBytes();
  } else {
    NeedIdentity();
  }
}

// ---------------------------------------------------------------- FirstBytes

// Whether it is TLS already shows in what the application says; one that waits for the server to
// speak first says nothing, and is carried over mTLS. One that waits for the outcome of its connect
// says nothing either, so it is answered before there is one.
void OutboundSession::StartFirstBytes() {
  Advance(Phase::kFirstBytes);
  outcome_.Connected();
  if (early_bytes().empty()) {
    WatchDownstream();
  } else {
    OnFirstBytesKnown();  // said while the destination was looked up
  }
}

void OutboundSession::OnFirstBytesKnown() {
  if (!tls::BeginsAsTls(early_bytes())) {
    NeedIdentity();
    return;
  }
  if (endpoints_are_ == config::EndpointsAre::kForMtls) {
    places_.clear();
    dial_ = destination_;  // the application itself, not what takes mTLS for it
  }
  // --outbound-default is about what is not in the mesh; this destination is.
  if (std::optional<base::Failure> banned = RefusesPlaintext();
      banned.has_value() && banned->reason == CloseReason::kMtlsRequired) {
    Fail(*std::move(banned));
    return;
  }
  carries_ = Carries::kUnseen;
  Connect();
}

void OutboundSession::OnDownstreamReadable() {
  if (phase() == Phase::kRequest) {
    ReadRequest();
    return;
  }
  TakeEarlyBytes();
  if (phase() == Phase::kFirstBytes && !early_bytes().empty()) {
    OnFirstBytesKnown();
  }
}

void OutboundSession::OnDeadline() {
  if (phase() == Phase::kFirstBytes) {
    NeedIdentity();
  } else {
    Session::OnDeadline();
  }
}

void OutboundSession::NeedIdentity() {
  if (auto stale = StaleTrust(worker().shared, Side::kUpstream); stale.has_value()) {
    Fail(*std::move(stale));
    return;
  }
  if (worker().identity == nullptr) {
    AwaitIdentity();
  } else if (IdentityIsUsable()) {
    Connect();
  }
}

// ---------------------------------------------------------------- Connect

void OutboundSession::Connect() {
  if (via().tunnel != nullptr && !via().target.has_value()) {
    StartConnect(TargetOf(*via().tunnel));
  } else if (!places_.empty()) {
    StartConnect(std::move(places_));
  } else if (request_ != nullptr && !request_->addresses.empty()) {
    StartConnect(std::move(request_->addresses));
  } else {
    StartConnect(dial_);
  }
}

// A service of the workload's own, or an address of its own that a client asked for. Who is of its
// identity at an address of this host is taken for the workload itself, but for the proxy's own
// listeners, where it is served as anybody. A tunnel goes where its config says.
bool OutboundSession::IsOwnWorkload(const net::SocketAddress& address) const {
  if (worker().config().intercept == config::InterceptMode::kNone || via().tunnel != nullptr ||
      worker().identity == nullptr || address.is_unix() || address.ip().IsLoopback()) {
    return false;
  }
  const x509::SpiffeId& own = worker().identity->svid().id();
  return std::ranges::any_of(expected_, [&](const auto& one) { return one.Matches(own); }) &&
         IsLocalAddress(address.ip()) && !worker().own.Contains(address);
}

// Rules of an older release, or of somebody else, do not lead it to this proxy: then the end that
// was dialled is there.
bool OutboundSession::IsPastOwnProxy(const net::Stream& connected) const {
  const absl::StatusOr<net::SocketAddress> from = connected.LocalAddress();
  return from.ok() && intercept::HasTcpConnection(upstream_address(), *from).value_or(false);
}

void OutboundSession::OnConnected(std::unique_ptr<net::Stream> stream) {
  name_finder_.reset();
  if (HasAnotherPlace() && IsOwnWorkload(upstream_address()) && IsPastOwnProxy(*stream)) {
    FailOver(FailureOf(
        CloseReason::kConnectFailed, Side::kUpstream,
        absl::UnavailableError(base::StrCat(
            upstream_address().ToString(),
            " is this workload, and no rule leads there through its proxy (postern intercept)"))));
    return;
  }
  if (carries_ == Carries::kMeshTls) {
    Handshake(std::move(stream));
    return;
  }
  upstream_ = std::make_unique<PlainTransport>(std::move(stream));
  outcome_.Connected();
  if (Grant()) {
    StartRelay({});
  }
}

// ---------------------------------------------------------------- Handshake

void OutboundSession::Handshake(std::unique_ptr<net::Stream> stream) {
  if (!IdentityIsUsable()) {
    return;
  }
  absl::StatusOr<std::unique_ptr<tls::TlsEngine>> engine =
      tls::TlsEngine::CreateClient(worker().identity->client(), worker().tls_scratch, expected_,
                                   upstream_address().ToString(), pins_);
  if (!engine.ok()) {
    Fail(CloseReason::kInternal, Side::kUpstream, engine.status());
    return;
  }
  StartHandshake(*std::move(engine), std::move(stream), {});
}

// ---------------------------------------------------------------- Identify

void OutboundSession::OnHandshakeDone() {
  if (upstream_->peer() == nullptr) {
    Fail(CloseReason::kPeerNoCertificate, Side::kUpstream,
         absl::UnauthenticatedError("the handshake ended without a verified peer"),
         kAlertCertificateRequired);
    return;
  }
  Secure(telemetry::Security::kMutualTls);
  Authorize();
}

// ---------------------------------------------------------------- Authorize

void OutboundSession::Authorize() {
  Advance(Phase::kAuthorize);
  std::optional<base::Failure> refused = Judge();
  if (refused.has_value()) {
    const int alert = AlertOf(*refused);
    Fail(*std::move(refused), alert);
    return;
  }
  outcome_.Connected();
  if (Grant()) {
    StartRelay({});
  }
}

// The engine has checked the expected identities inside the handshake; here they are checked on the
// facts, and again whenever trust changes.
std::optional<base::Failure> OutboundSession::Judge() {
  const x509::VerifiedPeer* const peer = upstream_ != nullptr ? upstream_->peer() : nullptr;
  if (peer == nullptr) {
    return std::nullopt;  // plaintext, or not connected yet
  }
  if (std::optional<base::Failure> distrusted = JudgePeer(peer)) {
    return distrusted;
  }
  base::Failure failure;
  failure.side = Side::kUpstream;
  if (const auto mismatch = pins_ != nullptr ? pins_->Mismatch(*peer) : std::nullopt) {
    failure.reason = CloseReason::kPinMismatch;
    failure.detail = absl::PermissionDeniedError(*mismatch);
    return failure;
  }
  if (std::any_of(expected_.begin(), expected_.end(),
                  [&](const x509::SpiffeIdPattern& p) { return p.Matches(peer->id); })) {
    return std::nullopt;
  }
  failure.reason = CloseReason::kIdentityMismatch;
  failure.detail =
      absl::PermissionDeniedError(base::StrCat(peer->id.uri(), " is not who is expected there"));
  return failure;
}

// ---------------------------------------------------------------- events of the phases

bool OutboundSession::JudgeFirstBytes(base::ByteSpan bytes) {
  NoteApplicationTls(bytes);
  if (carries_ == Carries::kUnseen) {
    carries_ = Carries::kPlain;
    PassPlaintext(tls::BeginsAsTls(bytes) ? PlaintextReason::kApplicationTls
                                          : PlaintextReason::kNotInMesh);
  }
  return true;
}

void OutboundSession::BeforeRecord(const base::Failure& end) {
  outcome_.Failed(end);  // unless it was told already
  if (carries_ == Carries::kUnseen && upstream_ != nullptr) {
    carries_ = Carries::kPlain;  // the application never spoke
    PassPlaintext(PlaintextReason::kNotInMesh);
  }
}

}  // namespace postern::session
