// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "tests/fakes/fake_endpoint_directory.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {

// A proxy with interception before an application of the test, which also says where connections
// were going.
class InboundInterceptionTest : public ::testing::Test {
 protected:
  InboundInterceptionTest() : web_(ca_.Mint(kWeb)) {
    // A busy machine makes no client a silent one; where that is what is tested, it is set
    // otherwise.
    proxy_.config.sniff_timeout = std::chrono::seconds(10);
  }

  void Start(const Server::Serve& serve, config::PeerMode mode) {
    Serve(serve);
    Run(mode);
  }
  void Serve(const Server::Serve& serve) {
    serve_ = serve;
    app_ = std::make_unique<Server>(serve);
    GoesTo(Loopback(app_->port()));
  }
  // The system may give the proxy, in the other address family, the number that the application
  // has: a connection there would be one to the proxy itself.
  void LeaveTheProxysPorts() {
    const auto is_proxys = [this](const session::Worker::BoundListener& listener) {
      return listener.address.port() == app_->port();
    };
    while (std::any_of(proxy_.worker().listeners().begin(), proxy_.worker().listeners().end(),
                       is_proxys)) {
      Serve(serve_);
    }
  }
  // Where connections were going from now on.
  void GoesTo(const net::SocketAddress& destination) {
    const std::lock_guard<std::mutex> lock(mutex_);
    destination_ = destination;
  }
  void Run(config::PeerMode mode) {
    proxy_.config.intercept = config::InterceptMode::kRedirect;
    proxy_.config.inbound_port = 0;
    proxy_.config.outbound_port = 0;
    proxy_.config.peer_mode = mode;
    proxy_.shared.endpoints = &directory_;
    proxy_.shared.original_destination = [this](const net::Stream&,
                                                bool) -> absl::StatusOr<net::SocketAddress> {
      const std::lock_guard<std::mutex> lock(mutex_);
      return destination_;
    };
    proxy_.Start();
    LeaveTheProxysPorts();
    proxy_.PublishIdentity(ca_, kDb);
    proxy_.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  }
  ~InboundInterceptionTest() override { proxy_.Stop(); }
  Socket Connect() { return Socket::Connect("127.0.0.1", proxy_.PortOf("inbound")); }

  TestCa ca_;
  const Minted web_;
  fakes::FakeEndpointDirectory directory_;
  std::mutex mutex_;
  net::SocketAddress destination_;  // guarded by mutex_
  Server::Serve serve_;
  std::unique_ptr<Server> app_;
  TestProxy proxy_;
};

}  // namespace postern::testing
