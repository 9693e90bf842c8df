// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/dialer.h"

#include <utility>

#include "common/base/ip.h"

namespace postern::session {

Dialer::Dialer(net::Loop& loop, const net::ConnectOptions& options, Done done)
    : loop_(loop), options_(options), done_(std::move(done)) {}

Dialer::~Dialer() = default;

std::unique_ptr<net::Stream> Dialer::Dial(const net::SocketAddress& address) {
  connector_.emplace(loop_, address, options_,
                     [this](absl::StatusOr<std::unique_ptr<net::Stream>> stream) {
                       const Done call = std::move(done_);
                       call(std::move(stream));
                     });
  return options_.near ? connector_->TakeAtOnce() : nullptr;
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
