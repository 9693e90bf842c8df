// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/dialer.h"

#include <utility>

#include "common/base/ip.h"

namespace postern::session {

Dialer::Dialer(net::Loop& loop, const net::ConnectOptions& options, Done done)
    : loop_(loop), options_(options), done_(std::move(done)) {}

Dialer::~Dialer() = default;

std::optional<Dialer::Dialled> Dialer::Dial(const net::SocketAddress& address) {
  addresses_.push_back(address);
  TryNext();
  std::unique_ptr<net::Stream> stream = options_.near ? connector_->TakeAtOnce() : nullptr;
  if (stream == nullptr) {
    return std::nullopt;
  }
  return Dialled{std::move(stream), address};
}

void Dialer::DialName(const std::string& host, uint16_t port) {
  options_.near = false;
  resolver_.emplace(loop_, host, port,
                    [this](absl::StatusOr<std::vector<net::SocketAddress>> addresses) {
                      OnResolved(std::move(addresses));
                    });
}

void Dialer::OnResolved(absl::StatusOr<std::vector<net::SocketAddress>> addresses) {
  if (!addresses.ok()) {
    const Done call = std::move(done_);
    call(addresses.status());
    return;
  }
  addresses_ = *std::move(addresses);
  TryNext();
}

void Dialer::TryNext() {
  const net::SocketAddress& address = addresses_[next_++];
  connector_.emplace(loop_, address, options_,
                     [this](absl::StatusOr<std::unique_ptr<net::Stream>> stream) {
                       OnConnected(std::move(stream));
                     });
}

void Dialer::OnConnected(absl::StatusOr<std::unique_ptr<net::Stream>> stream) {
  if (!stream.ok() && next_ < addresses_.size()) {
    TryNext();
    return;
  }
  const Done call = std::move(done_);
  if (!stream.ok()) {
    call(stream.status());
    return;
  }
  call(Dialled{*std::move(stream), addresses_[next_ - 1]});
}

std::optional<net::SocketAddress> FixedAddress(const config::AddressSpec& spec) {
  if (spec.is_unix()) {
    return net::SocketAddress::Unix(spec.unix_path);
  }
  const absl::StatusOr<base::IpAddress> ip = base::IpAddress::Parse(spec.host);
  if (!ip.ok()) {
    return std::nullopt;
  }
  return net::SocketAddress(*ip, spec.port);
}

}  // namespace postern::session
