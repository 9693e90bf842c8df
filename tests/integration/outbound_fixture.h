// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <string_view>

#include "tests/fakes/fake_endpoint_directory.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {

inline config::MeshDestination Expecting(std::string_view id) {
  config::MeshDestination destination;
  destination.expected.push_back(x509::SpiffeIdPattern::Parse(id).value());
  return destination;
}

// A proxy with interception in front of a test's connections, and what they were going to.
class OutboundInterceptionTest : public ::testing::Test {
 protected:
  OutboundInterceptionTest()
      : db_(ca_.Mint(kDb)), app_(&Echo), destination_(Loopback(app_.port())) {
    proxy_.config.intercept = config::InterceptMode::kRedirect;
    proxy_.config.inbound_port = 0;
    proxy_.config.outbound_port = 0;
    proxy_.shared.endpoints = &directory_;
    proxy_.shared.original_destination = [this](const net::Stream&,
                                                bool) -> absl::StatusOr<net::SocketAddress> {
      const std::lock_guard<std::mutex> lock(mutex_);
      return destination_;
    };
  }
  ~OutboundInterceptionTest() override { proxy_.Stop(); }
  void Start() {
    proxy_.Start();
    proxy_.PublishIdentity(ca_, kWeb);
  }
  Socket Connect() { return Socket::Connect("127.0.0.1", proxy_.PortOf("outbound")); }

  TestCa ca_;
  const Minted db_;
  fakes::FakeEndpointDirectory directory_;
  Server app_;
  std::mutex mutex_;
  net::SocketAddress destination_;  // guarded by mutex_ once the proxy runs
  TestProxy proxy_;
};

}  // namespace postern::testing
