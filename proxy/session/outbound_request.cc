// SPDX-License-Identifier: Apache-2.0
// The steps of an OutboundSession that only a client of an outbound proxy port needs: it says where
// it wants to go, maybe by a name, and is told how that ended.
#include "proxy/session/outbound_request.h"

#include <algorithm>
#include <utility>

#include "common/base/enum_index.h"
#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/request/reply.h"
#include "proxy/session/outbound_session.h"

namespace postern::session {

using base::CloseReason;
using base::Side;
using request::RequestReader;

namespace {

// A request comes in one piece most often; what came behind it is kept for the relay.
constexpr size_t kMaxRequestRead = 4U << 10U;

}  // namespace

// ---------------------------------------------------------------- Request

void OutboundSession::StartRequest() {
  Advance(Phase::kRequest);
  request_ = std::make_unique<OutboundRequest>();
  WatchDownstream();
}

void OutboundSession::ReadRequest() {
  const base::MutableByteSpan room = worker().relay_scratch.first(kMaxRequestRead);
  const TransportResult read = downstream_->Read(room);
  switch (read.outcome) {
    case TransportOutcome::kDone:
      break;
    case TransportOutcome::kWouldBlock:
      return;
    case TransportOutcome::kEnd:
      Fail(CloseReason::kBadProxyRequest, Side::kDownstream,
           absl::InvalidArgumentError("the client ended before its request was whole"));
      return;
    case TransportOutcome::kFailed:
      FailBy(*downstream_, Side::kDownstream);
      return;
  }
  RequestReader::Step step = request_->reader.Feed(room.first(read.bytes));
  if (step.state == RequestReader::State::kRefused) {
    request_->refusal = std::move(step.reply);
    Fail(CloseReason::kBadProxyRequest, Side::kDownstream, request_->reader.fault());
    return;
  }
  if ((step.reply.empty() || Say(step.reply)) && step.state == RequestReader::State::kDone) {
    OnRequest();
  }
}

void OutboundSession::OnRequest() {
  const request::Destination& asked = request_->reader.destination();
  const bool socks = request_->reader.protocol() == request::Protocol::kSocks5;
  const auto protocol =
      socks ? telemetry::RequestProtocol::kSocks5 : telemetry::RequestProtocol::kHttpConnect;
  worker().metrics.proxy_requests[base::At(protocol)].Add(1);
  KeepEarlyBytes(request_->reader.rest());
  request_->reader.ForgetBytes();
  if (asked.name.empty()) {
    destination_ = net::SocketAddress(asked.ip, asked.port);
    if (!RefuseSelf()) {
      Classify();
    }
    return;
  }
  Advance(Phase::kClassify);
  ClassifyName(asked);
}

// ---------------------------------------------------------------- Classify, by name

// What the destinations say of the name counts; else its addresses are looked up, as if the
// application had resolved it.
void OutboundSession::ClassifyName(const request::Destination& asked) {
  identity::EndpointDirectory* const known = worker().shared.endpoints;
  const auto record = known != nullptr ? known->FindName(asked.name, asked.port) : std::nullopt;
  const Place place{net::SocketAddress(base::IpAddress(), asked.port), asked.lookup};
  if (record.has_value()) {
    known->NoteName(asked.name, asked.port);
    InMesh(*record, place);
    return;
  }
  WatchDownstream();
  name_finder_ = std::make_unique<PlaceFinder>(
      worker().loop, *worker().names, std::vector<Place>{place},
      [this](absl::StatusOr<std::vector<Candidate>> found) { OnNameFound(std::move(found)); });
  name_finder_->Start();
}

void OutboundSession::OnNameFound(absl::StatusOr<std::vector<Candidate>> found) {
  if (phase() != Phase::kClassify) {
    return;
  }
  if (!found.ok()) {
    Fail(absl::IsResourceExhausted(found.status()) ? CloseReason::kOverload
                                                   : CloseReason::kConnectFailed,
         Side::kUpstream, found.status());
    return;
  }
  for (Candidate& candidate : *found) {
    if (!worker().own.Contains(candidate.address)) {
      request_->addresses.push_back(std::move(candidate));
    }
  }
  if (request_->addresses.empty()) {
    Fail(CloseReason::kSelfLoop, Side::kDownstream,
         absl::InvalidArgumentError(base::StrCat(AskedFor(), " is this proxy itself")));
    return;
  }
  ClassifyAddresses();
}

// One after the other; most answers are there at once.
void OutboundSession::ClassifyAddresses() {
  std::vector<Candidate>& addresses = request_->addresses;
  identity::EndpointDirectory* const known = worker().shared.endpoints;
  while (known != nullptr && request_->classified < addresses.size()) {
    const size_t at = request_->classified;
    request_->lookup = OutboundRequest::Lookup::kInside;
    auto query = known->Lookup(
        worker().loop, addresses[at].address,
        [this](const identity::EndpointDirectory::Answer& answer) { OnAddressLookup(answer); });
    if (request_->classified == at) {
      request_->lookup = OutboundRequest::Lookup::kAwaited;
      query_ = std::move(query);
      WatchDownstream();
      return;
    }
  }
  ChooseAddresses();
}

void OutboundSession::OnAddressLookup(const identity::EndpointDirectory::Answer& answer) {
  if (phase() != Phase::kClassify) {
    return;
  }
  Candidate& candidate = request_->addresses[request_->classified];
  if (!answer.ok()) {
    request_->fault = answer.status();
  } else if (answer->has_value()) {
    candidate.record = std::make_shared<const config::MeshDestination>(**answer);
  }
  ++request_->classified;
  if (request_->lookup == OutboundRequest::Lookup::kAwaited) {
    ClassifyAddresses();
  }
}

// A name with an address in the mesh is of the mesh, and plaintext is no way out of it, now or when
// its addresses have moved.
void OutboundSession::ChooseAddresses() {
  if (std::ranges::none_of(request_->addresses,
                           [](const Candidate& one) { return one.record != nullptr; })) {
    NoneInMesh();
    return;
  }
  const request::Destination& asked = request_->reader.destination();
  worker().shared.endpoints->NoteName(asked.name, asked.port);
  std::vector<Candidate> mesh;
  for (const Candidate& candidate : request_->addresses) {
    if (candidate.record == nullptr) {
      continue;
    }
    if (!AddEndpointsOf(candidate, mesh)) {
      const config::MeshDestination record = *candidate.record;
      const Place place{candidate.address, ""};
      request_->addresses.clear();
      InMesh(record, place);
      return;
    }
  }
  request_->addresses = std::move(mesh);
  NeedIdentity();
}

void OutboundSession::NoneInMesh() {
  const identity::EndpointDirectory* const known = worker().shared.endpoints;
  const request::Destination& asked = request_->reader.destination();
  if (!request_->fault.ok()) {
    RefuseLookup(request_->fault);
  } else if (known != nullptr && known->WasInMesh(asked.name, asked.port)) {
    RefuseLookup(absl::FailedPreconditionError(
        base::StrCat(asked.ToString(), " led into the mesh once and does not now")));
  } else {
    NotInMesh();
  }
}

// False: its record says names to dial, which are to be resolved first.
bool OutboundSession::AddEndpointsOf(const Candidate& candidate, std::vector<Candidate>& to) {
  for (const config::EndpointSpec& endpoint : candidate.record->endpoints) {
    if (!endpoint.name.empty()) {
      return false;
    }
    Candidate elsewhere = candidate;
    elsewhere.address =
        net::SocketAddress(endpoint.ip.value_or(candidate.address.ip()),
                           endpoint.port != 0 ? endpoint.port : candidate.address.port());
    to.push_back(std::move(elsewhere));
  }
  if (candidate.record->endpoints.empty()) {
    to.push_back(candidate);
  }
  return true;
}

void OutboundSession::OnCandidate(const Candidate& candidate) {
  if (candidate.record != nullptr) {
    expected_ = candidate.record->expected;
    pins_ = candidate.record->pins;
  }
}

// ---------------------------------------------------------------- what the client is told

bool OutboundSession::Say(std::string_view text) {
  const TransportResult written = downstream_->Write(base::AsBytes(text));
  if (written.outcome == TransportOutcome::kFailed) {
    FailBy(*downstream_, Side::kDownstream);
    return false;
  }
  if (written.bytes != text.size()) {  // so little always fits, unless the client is gone
    Fail(CloseReason::kReset, Side::kDownstream,
         absl::UnavailableError("the client does not take its answer"));
    return false;
  }
  return true;
}

// Not before the upstream has proved who it is: until then a failure can still be told.
bool OutboundSession::Grant() {
  if (request_ == nullptr) {
    return true;
  }
  request_->said = OutboundRequest::Said::kAnswer;
  return Say(request::Granted(*request_->reader.protocol()));
}

bool OutboundSession::TellDownstream(const base::Failure& failure) {
  if (request_ == nullptr || request_->said == OutboundRequest::Said::kAnswer ||
      failure.reason == CloseReason::kReset) {
    return false;
  }
  request_->said = OutboundRequest::Said::kAnswer;
  std::string reply = std::move(request_->refusal);
  if (reply.empty() && request_->reader.protocol().has_value()) {
    // A SOCKS client whose request is not whole waits for no reply.
    const request::Protocol protocol = *request_->reader.protocol();
    const bool whole = request_->reader.fault().ok() && request_->reader.destination().port != 0;
    if (whole || protocol == request::Protocol::kHttpConnect) {
      reply = request::Refusal(protocol, failure.reason, net::ErrnoOf(failure.detail));
    }
  }
  if (reply.empty() || downstream_->Write(base::AsBytes(reply)).bytes != reply.size()) {
    return false;
  }
  downstream_->CloseWrite();
  return true;
}

std::string OutboundSession::AskedFor() const {
  const bool whole = request_ != nullptr && request_->reader.destination().port != 0;
  return whole ? request_->reader.destination().ToString() : "";
}

}  // namespace postern::session
