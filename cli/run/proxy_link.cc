// SPDX-License-Identifier: Apache-2.0
#include "cli/run/proxy_link.h"

#include <sys/epoll.h>

#include <optional>
#include <utility>

namespace postern::run {

ProxyLink::ProxyLink(EventLoop& loop, base::UniqueFd channel, Callbacks callbacks)
    : loop_(loop), channel_(std::move(channel)), callbacks_(std::move(callbacks)) {
  Watch();
}

ProxyLink::~ProxyLink() {
  callbacks_.gone = nullptr;
  Close();
}

void ProxyLink::Watch() {
  loop_.Watch(channel_.get(), awaits_room_ ? EPOLLIN | EPOLLOUT : EPOLLIN, [this] { OnEvent(); });
}

void ProxyLink::Hand(const handover::Message& message, std::vector<base::UniqueFd> descriptors) {
  if (!is_open()) {
    return;
  }
  waiting_.push_back({message, std::move(descriptors)});
  if (waiting_.size() == 1) {
    Flush();
  }
}

void ProxyLink::Flush() {
  while (is_open() && !waiting_.empty()) {
    const Waiting& first = waiting_.front();
    std::vector<int> numbers;
    for (const base::UniqueFd& descriptor : first.descriptors) {
      numbers.push_back(descriptor.get());
    }
    const absl::Status sent = handover::Send(channel_.get(), first.message, numbers);
    if (absl::IsResourceExhausted(sent)) {
      break;
    }
    if (!sent.ok()) {
      Close();
      return;
    }
    waiting_.pop_front();
  }
  if (awaits_room_ == waiting_.empty()) {
    awaits_room_ = !waiting_.empty();
    Watch();
  }
}

void ProxyLink::OnEvent() {
  while (is_open()) {
    const absl::StatusOr<std::optional<handover::Received>> received =
        handover::Receive(channel_.get());
    if (!received.ok()) {
      Close();
      return;
    }
    if (!received->has_value()) {
      break;
    }
    if ((*received)->message.kind == handover::Kind::kReady && callbacks_.ready) {
      callbacks_.ready();
    }
  }
  if (!waiting_.empty()) {
    Flush();
  }
}

void ProxyLink::Close() {
  if (!is_open()) {
    return;
  }
  loop_.Forget(channel_.get());
  channel_.Reset();
  waiting_.clear();
  if (const auto gone = std::exchange(callbacks_.gone, nullptr)) {
    gone();
  }
}

}  // namespace postern::run
