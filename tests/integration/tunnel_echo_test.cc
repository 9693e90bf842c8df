// SPDX-License-Identifier: Apache-2.0
// A pair of tunnels carries an application's bytes over mutual TLS, and says so.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

using base::CloseReason;

TEST(TunnelEchoTest, CarriesBytesThroughMutualTls) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  ASSERT_TRUE(socket.Send("hello, mesh"));
  EXPECT_EQ(socket.ReadExactly(11), "hello, mesh");
  socket.ShutdownWrite();
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
  EXPECT_TRUE(pair.server.AwaitClosed(CloseReason::kOk)) << pair.server.Reasons();
  EXPECT_TRUE(pair.client.AwaitClosed(CloseReason::kOk)) << pair.client.Reasons();
  EXPECT_EQ(pair.server.Handshakes(), 1U);
  EXPECT_EQ(pair.server.Secured(telemetry::Security::kMutualTls), 1U);
  EXPECT_EQ(pair.client.Secured(telemetry::Security::kMutualTls), 1U);
}

// What the application says at once is taken in before there is a connection to carry it, up to a
// bound; the rest waits in the kernel.
TEST(TunnelEchoTest, CarriesWhatWasSaidBeforeTheHandshakeInOrder) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{5000}, size_t{60'000}}) {
    ProxyPair pair(&Echo);
    pair.Start();
    TestProxy early;  // a client that has no certificate yet
    early.AddTunnel(base::Direction::kOutbound, "127.0.0.1:0",
                    "127.0.0.1:" + std::to_string(pair.server.Port()), {std::string(kDb)});
    early.Start();
    Socket socket = early.Connect();
    const std::string sent = Pattern(size, 3);
    ASSERT_TRUE(socket.Send(sent.substr(0, size / 2)));
    ASSERT_TRUE(Await([&] { return early.Opened() == 1; }));
    ASSERT_TRUE(socket.Send(sent.substr(size / 2)));
    socket.ShutdownWrite();
    early.PublishIdentity(pair.ca, kWeb);
    EXPECT_EQ(socket.ReadExactly(size), sent) << size;
    EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
    EXPECT_TRUE(early.AwaitClosed(CloseReason::kOk)) << early.Reasons();
    const telemetry::WorkerMetrics& metrics = early.worker().metrics();
    EXPECT_EQ(metrics.bytes[1][0].value(), size) << "counted once";
  }
}

TEST(TunnelEchoTest, CountsTheBytesOfTheApplicationOnce) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  const std::string sent = Pattern(100000, 1);
  ASSERT_TRUE(socket.Send(sent));
  EXPECT_EQ(socket.ReadExactly(sent.size()), sent);
  socket.ShutdownWrite();
  socket.DrainToEnd();
  ASSERT_TRUE(pair.server.AwaitIdle());
  const telemetry::WorkerMetrics& metrics = pair.server.worker().metrics();
  EXPECT_EQ(metrics.bytes[0][0].value(), sent.size());
  EXPECT_EQ(metrics.bytes[0][1].value(), sent.size());
}

TEST(TunnelEchoTest, WritesOneRecordWithBothIdentities) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("x");
  socket.ReadExactly(1);
  socket.ShutdownWrite();
  socket.DrainToEnd();
  ASSERT_TRUE(pair.server.AwaitIdle());
  std::istringstream lines(pair.server.AccessLog());
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const nlohmann::json record = nlohmann::json::parse(line);
  EXPECT_NE(line.find(kWeb), std::string::npos) << line;
  EXPECT_NE(line.find(kDb), std::string::npos) << line;
  EXPECT_NE(line.find("TLSv1.3"), std::string::npos) << line;
  EXPECT_NE(line.find("\"ok\""), std::string::npos) << line;
  EXPECT_NE(line.find("mutual_tls"), std::string::npos) << line;
  EXPECT_FALSE(std::getline(lines, line)) << "exactly one record: " << line;
}

TEST(TunnelEchoTest, ListsAnOpenConnection) {
  ProxyPair pair(&Echo);
  pair.Start();
  Socket socket = pair.Connect();
  socket.Send("x");
  socket.ReadExactly(1);
  std::vector<session::ConnectionInfo> open;
  std::atomic<bool> answered = false;
  pair.server.worker().ListConnections(10, [&](std::vector<session::ConnectionInfo> all) {
    open = std::move(all);
    answered = true;
  });
  ASSERT_TRUE(Await([&] { return answered.load(); }));
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(open[0].phase, "relay");
  EXPECT_EQ(open[0].peer_id, kWeb);
  EXPECT_EQ(open[0].bytes_from_downstream, 1U);
  EXPECT_EQ(open[0].security, telemetry::Security::kMutualTls);
}

TEST(TunnelEchoTest, LetsAServerSpeakFirst) {
  ProxyPair pair([](Socket socket) {
    socket.Send("220 ready\r\n");
    Echo(std::move(socket));
  });
  pair.Start();
  Socket socket = pair.Connect();
  EXPECT_EQ(socket.ReadExactly(11), "220 ready\r\n");
}

}  // namespace
}  // namespace postern::testing
