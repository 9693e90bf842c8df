// SPDX-License-Identifier: Apache-2.0
#include "common/http/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "common/http/request_head.h"

namespace postern::http {
namespace {

constexpr auto kRequestLimit = std::chrono::seconds(5);
constexpr auto kReplyLimit = std::chrono::seconds(10);
constexpr auto kEndLimit = std::chrono::seconds(1);
constexpr int kMostReadsAtOnce = 8;              // so that nobody holds up the others
constexpr size_t kMostThrownAway = 256U << 10U;  // more than that is a flood: it may be reset

bool WouldBlock() {
  return errno == EAGAIN || errno == EINTR;
}

}  // namespace

Connection::Connection(uint64_t id, base::UniqueFd fd, Time now)
    : id_(id), fd_(std::move(fd)), since_(now) {}

void Connection::Enter(Phase phase, Time now) {
  phase_ = phase;
  since_ = now;
}

Connection::Time Connection::until() const {
  switch (phase_) {
    case Phase::kRequest:
      return since_ + kRequestLimit;
    case Phase::kReply:
      return since_ + kReplyLimit;
    case Phase::kEnding:
      return since_ + kEndLimit;
    case Phase::kPage:
      return Time::max();
    case Phase::kOver:
      break;
  }
  return since_;
}

bool Connection::Receive() {
  std::array<char, 2048> buffer{};
  while (phase_ == Phase::kRequest) {
    const ssize_t got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) {
      if (got == 0 || !WouldBlock()) {
        phase_ = Phase::kOver;
      }
      return false;
    }
    const size_t searched = head_.size();
    head_.append(buffer.data(), static_cast<size_t>(got));
    const size_t end = FindHeadEnd(head_, searched);
    if (end > kMaxRequestHead || (end == 0 && head_.size() > kMaxRequestHead)) {
      head_.clear();
      return true;
    }
    if (end != 0) {
      head_.resize(end);
      return true;
    }
  }
  return false;
}

void Connection::AwaitPage(Time now) {
  head_ = {};
  Enter(Phase::kPage, now);
}

void Connection::Answer(const Reply& reply, Time now) {
  head_ = {};
  reply_ = Serialize(reply, head_only_);
  Enter(Phase::kReply, now);
  Send(now);
}

void Connection::Send(Time now) {
  while (sent_ < reply_.size()) {
    const ssize_t sent =
        send(fd_.get(), reply_.data() + sent_, reply_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (!WouldBlock()) {
        phase_ = Phase::kOver;
      }
      return;
    }
    sent_ += static_cast<size_t>(sent);
  }
  reply_ = {};
  shutdown(fd_.get(), SHUT_WR);
  Enter(Phase::kEnding, now);
  AwaitEnd();
}

void Connection::AwaitEnd() {
  std::array<char, 2048> buffer{};
  for (int i = 0; i < kMostReadsAtOnce; ++i) {
    const ssize_t got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && WouldBlock()) {
      return;
    }
    thrown_away_ += static_cast<size_t>(std::max<ssize_t>(got, 0));
    if (got <= 0 || thrown_away_ > kMostThrownAway) {
      phase_ = Phase::kOver;
      return;
    }
  }
}

}  // namespace postern::http
