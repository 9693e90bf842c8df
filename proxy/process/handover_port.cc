// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/handover_port.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <utility>

#include "common/base/strings.h"

namespace postern::process {
namespace {

// Only until the certificate and the policy have come; the command waits for them.
constexpr std::chrono::milliseconds kReadinessPeriod{10};
// At one turn of the main loop, which has other things to do as well.
constexpr int kTakenPerTurn = 64;

}  // namespace

HandoverPort::HandoverPort(net::Loop& loop, int fd, Callbacks callbacks)
    : channel_(fd),
      callbacks_(std::move(callbacks)),
      readiness_(loop, [this] { TellWhenReady(); }) {}

absl::StatusOr<std::unique_ptr<HandoverPort>> HandoverPort::Open(net::Loop& loop, int fd,
                                                                 Callbacks callbacks) {
  if (absl::Status adopted = handover::AdoptChannel(fd); !adopted.ok()) {
    return adopted;
  }
  std::unique_ptr<HandoverPort> port(new HandoverPort(loop, fd, std::move(callbacks)));
  auto readable = net::Readable::Watch(loop, fd, [raw = port.get()] { raw->OnReadable(); });
  if (!readable.ok()) {
    return readable.status();
  }
  port->readable_ = *std::move(readable);
  port->readiness_.StartRepeating(kReadinessPeriod);
  return port;
}

void HandoverPort::TellWhenReady() {
  if (!callbacks_.is_ready()) {
    return;
  }
  readiness_.Stop();
  if (const absl::Status sent = handover::Send(channel_.get(), handover::Message(), {});
      !sent.ok()) {
    spdlog::error("`postern run` cannot be told that the proxy is ready: {}", base::Message(sent));
  }
}

void HandoverPort::OnReadable() {
  for (int i = 0; i < kTakenPerTurn && readable_ != nullptr; ++i) {
    absl::StatusOr<std::optional<handover::Received>> received = handover::Receive(channel_.get());
    if (!received.ok()) {
      spdlog::info("`postern run` has ended: {}", base::Message(received.status()));
      Gone();
      return;
    }
    if (!received->has_value()) {
      return;
    }
    Take(**std::move(received));
  }
}

void HandoverPort::Take(handover::Received received) {
  const net::SocketAddress address(received.message.ip, received.message.port);
  std::vector<base::UniqueFd>& descriptors = received.descriptors;
  if (received.message.kind == handover::Kind::kOutbound && !descriptors.empty()) {
    session::HandedConnection handed;
    handed.connection = std::move(descriptors[0]);
    handed.destination = address;
    if (descriptors.size() > 1) {
      handed.outcome = std::move(descriptors[1]);
    }
    callbacks_.on_connection(std::move(handed));
  } else if (received.message.kind == handover::Kind::kListener && descriptors.size() == 1) {
    callbacks_.on_listener(std::make_shared<const base::UniqueFd>(std::move(descriptors[0])),
                           address);
  } else {
    // The kernel drops descriptors that find no room in this process.
    spdlog::error("what was handed over came without its descriptors: is their limit reached?");
  }
}

void HandoverPort::Gone() {
  readiness_.Stop();
  readable_.reset();
  if (const auto gone = std::exchange(callbacks_.on_gone, nullptr)) {
    gone();
  }
}

}  // namespace postern::process
