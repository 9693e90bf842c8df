// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/relay.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/enum_index.h"

namespace postern::session {
namespace {

using base::At;

constexpr base::Side Opposite(base::Side side) {
  return side == base::Side::kDownstream ? base::Side::kUpstream : base::Side::kDownstream;
}

}  // namespace

Relay::Relay(net::Loop& loop, Transport& downstream, Transport& upstream, Owner& owner,
             const Options& options)
    : loop_(loop), owner_(owner), options_(options), last_activity_(loop.Now()) {
  Half& out = halves_[At(base::Side::kDownstream)];
  out.source = &downstream;
  out.sink = &upstream;
  out.from = base::Side::kDownstream;
  Half& in = halves_[At(base::Side::kUpstream)];
  in.source = &upstream;
  in.sink = &downstream;
  in.from = base::Side::kUpstream;
}

Relay::~Relay() {
  Stop();
}

void Relay::Start(base::ByteSpan first_bytes, size_t own) {
  state_ = State::kRunning;
  for (Half& half : halves_) {
    half.source->SetHandler(this);
  }
  Half& downstream = halves_[At(base::Side::kDownstream)];
  const base::ByteSpan of_downstream = first_bytes.subspan(own);
  if (!of_downstream.empty() && !Account(downstream, of_downstream)) {
    return;
  }
  if (!first_bytes.empty() && !PassOn(downstream, first_bytes)) {
    return;
  }
  for (Half& half : halves_) {
    // What the handshake has left inside the transport is told by no readiness.
    if (half.source->HasBufferedInput()) {
      Pull(half);
    } else {
      UpdateFlow(half);
    }
    if (state_ != State::kRunning) {
      return;
    }
  }
}

void Relay::Stop() {
  if (state_ == State::kRunning) {
    for (Half& half : halves_) {
      half.source->SetHandler(nullptr);
    }
  }
  state_ = State::kOver;
}

size_t Relay::Backlog() const {
  return halves_[0].Waiting() + halves_[1].Waiting();
}

void Relay::OnTransportReadable(Transport& transport) noexcept {
  Half& half = HalfFrom(transport);
  if (half.state == HalfState::kFlowing) {
    Pull(half);
  } else {
    half.source->WantRead(false);
  }
}

void Relay::OnTransportWritable(Transport& transport) noexcept {
  Half& half = Other(HalfFrom(transport));
  if (!FlushPending(half)) {
    return;
  }
  if (half.state == HalfState::kEnding) {
    PassOnEnd(half);
    return;
  }
  const bool was_paused = half.state == HalfState::kPaused;
  UpdateFlow(half);
  if (was_paused && half.state == HalfState::kFlowing && half.source->HasBufferedInput()) {
    Pull(half);
  }
}

Relay::Half& Relay::HalfFrom(const Transport& source) {
  return halves_[0].source == &source ? halves_[0] : halves_[1];
}

Relay::Half& Relay::Other(const Half& half) {
  return halves_[At(Opposite(half.from))];
}

// One read for each readiness; more only while the transport holds bytes that no readiness will
// tell.
void Relay::Pull(Half& half) {
  do {
    const TransportResult read = half.source->Read(options_.scratch);
    switch (read.outcome) {
      case TransportOutcome::kDone:
        if (!Forward(half, options_.scratch.first(read.bytes))) {
          return;
        }
        break;
      case TransportOutcome::kWouldBlock:
        UpdateFlow(half);
        return;
      case TransportOutcome::kEnd:
        SourceEnded(half);
        return;
      case TransportOutcome::kFailed:
        Fail(half.from, half.source->failure());
        return;
    }
    UpdateFlow(half);
  } while (half.state == HalfState::kFlowing && half.source->HasBufferedInput());
}

// False when the relay is over.
bool Relay::Forward(Half& half, base::ByteSpan bytes) {
  return Account(half, bytes) && PassOn(half, bytes);
}

bool Relay::Account(Half& half, base::ByteSpan bytes) {
  if (half.bytes == 0 && half.from == base::Side::kDownstream && !owner_.OnFirstBytes(bytes)) {
    return false;
  }
  half.bytes += bytes.size();
  options_.counters[At(half.from)]->Add(bytes.size());
  last_activity_ = loop_.Now();
  return true;
}

bool Relay::PassOn(Half& half, base::ByteSpan bytes) {
  if (half.state == HalfState::kBroken) {
    return true;
  }
  if (half.pending_at < half.pending.size()) {
    KeepRest(half, bytes);
    return true;
  }
  const TransportResult written = half.sink->Write(bytes);
  if (written.outcome == TransportOutcome::kFailed) {
    SinkFailed(half);
    return state_ == State::kRunning;
  }
  if (written.bytes < bytes.size()) {
    KeepRest(half, bytes.subspan(written.bytes));
  }
  return true;
}

// False when the relay is over.
bool Relay::FlushPending(Half& half) {
  if (half.state == HalfState::kBroken || half.state == HalfState::kDone) {
    return true;
  }
  const base::ByteSpan rest = base::ByteSpan(half.pending).subspan(half.pending_at);
  const TransportResult written = half.sink->Write(rest);
  if (written.outcome == TransportOutcome::kFailed) {
    SinkFailed(half);
    return state_ == State::kRunning;
  }
  half.pending_at += written.bytes;
  if (written.bytes > 0) {
    last_activity_ = loop_.Now();
  }
  if (half.pending_at == half.pending.size()) {
    std::vector<uint8_t>().swap(half.pending);  // an idle connection keeps nothing
    half.pending_at = 0;
  }
  return true;
}

void Relay::KeepRest(Half& half, base::ByteSpan rest) {
  if (half.pending_at > 0) {
    half.pending.erase(half.pending.begin(),
                       half.pending.begin() + static_cast<ptrdiff_t>(half.pending_at));
    half.pending_at = 0;
  }
  half.pending.insert(half.pending.end(), rest.begin(), rest.end());
}

void Relay::SourceEnded(Half& half) {
  half.source->WantRead(false);
  half.state = HalfState::kEnding;
  PassOnEnd(half);
}

void Relay::PassOnEnd(Half& half) {
  if (half.pending_at < half.pending.size()) {
    return;  // OnTransportWritable comes back
  }
  half.sink->CloseWrite();
  if (half.sink->WriteFailed()) {
    SinkFailed(half);
    return;
  }
  if (!half.sink->WriteClosed()) {
    return;  // likewise
  }
  half.state = HalfState::kDone;
  last_activity_ = loop_.Now();
  if (Other(half).state == HalfState::kDone) {
    Stop();
    owner_.OnRelayDone();
  }
}

void Relay::UpdateFlow(Half& half) {
  if (half.state != HalfState::kFlowing && half.state != HalfState::kPaused) {
    return;
  }
  const size_t waiting = half.Waiting();
  if (half.state == HalfState::kFlowing && waiting > options_.high_watermark) {
    half.state = HalfState::kPaused;
  } else if (half.state == HalfState::kPaused && waiting <= options_.low_watermark) {
    half.state = HalfState::kFlowing;
  }
  half.source->WantRead(half.state == HalfState::kFlowing);
}

// The sink took no more. What its peer said before it went (a TLS alert that names the reason, the
// last bytes of an answer) may still wait on our side: read that first.
void Relay::SinkFailed(Half& half) {
  base::Failure failure = half.sink->failure();
  half.state = HalfState::kBroken;
  half.source->WantRead(false);
  std::vector<uint8_t>().swap(half.pending);
  half.pending_at = 0;
  Half& reverse = Other(half);
  // The scratch may hold the bytes that could not be written: they are lost in any case.
  while (state_ == State::kRunning && reverse.state == HalfState::kFlowing) {
    const TransportResult read = reverse.source->Read(options_.scratch);
    if (read.outcome == TransportOutcome::kDone) {
      if (!Forward(reverse, options_.scratch.first(read.bytes))) {
        return;
      }
      UpdateFlow(reverse);
      continue;
    }
    if (read.outcome == TransportOutcome::kFailed &&
        reverse.source->failure().reason == base::CloseReason::kRejectedByPeer) {
      failure = reverse.source->failure();
    }
    break;
  }
  Fail(Opposite(half.from), std::move(failure));
}

void Relay::Fail(base::Side side, base::Failure failure) {
  if (state_ != State::kRunning) {
    return;
  }
  Stop();
  failure.side = side;
  owner_.OnRelayFailed(failure);
}

void Relay::CheckLiveness(std::chrono::milliseconds limit) {
  for (Half& half : halves_) {
    if (state_ != State::kRunning) {
      return;
    }
    const std::chrono::milliseconds waited = half.source->Unacknowledged();
    base::Failure failure;
    if (waited > limit) {
      failure.reason = base::CloseReason::kPeerDead;
      failure.detail = absl::DeadlineExceededError(
          absl::StrCat("nothing acknowledged for ", waited.count() / 1000, " s"));
      Fail(half.from, std::move(failure));
    } else if (half.state != HalfState::kFlowing && half.source->PeerHasReset()) {
      failure.reason = base::CloseReason::kReset;
      failure.detail = absl::UnavailableError("reset while it was not being read");
      Fail(half.from, std::move(failure));
    }
  }
}

}  // namespace postern::session
