// SPDX-License-Identifier: Apache-2.0
// What the application is told of its client in a PROXY protocol header: through tunnels and
// intercepted ports, over mTLS and in plaintext, and nothing where it does not ask.
#include "proxy/session/proxy_protocol.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/fakes/fake_endpoint_directory.h"
#include "tests/testing/proxy_fixture.h"
#include "tests/testing/raw_tls.h"

namespace postern::testing {
namespace {

using config::PeerMode;
using std::chrono::milliseconds;

net::SocketAddress LocalOf(const Socket& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&storage), &length);
  return net::SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length).value();
}

// A header as the application reads it, without its checksum.
struct Seen {
  std::string header;
  std::string first;  // what came in the same read
  size_t Length() const {
    return 16 + (static_cast<size_t>(static_cast<uint8_t>(header[14])) << 8U |
                 static_cast<uint8_t>(header[15]));
  }
  // The value of a TLV; "-" without it.
  std::string Find(char type, size_t addresses = 12) const {
    std::string_view rest = std::string_view(header).substr(16 + addresses);
    while (rest.size() >= 3) {
      const size_t length =
          static_cast<size_t>(static_cast<uint8_t>(rest[1])) << 8U | static_cast<uint8_t>(rest[2]);
      if (rest[0] == type) {
        return std::string(rest.substr(3, length));
      }
      rest.remove_prefix(3 + length);
    }
    return "-";
  }
};

std::string Encoded(const session::ProxyHeader& header) {
  return std::string(base::AsText(header.Encode()));
}

// An application that reads a header, then echoes. With `greeting` it speaks first, after the
// header.
class HeaderApplication {
 public:
  explicit HeaderApplication(std::string greeting = "") : greeting_(std::move(greeting)) {}

  Server::Serve Serve() {
    return [this](Socket socket) {
      Seen seen;
      seen.first = socket.Read(4096);  // all that was written at once
      seen.header = seen.first;
      while (seen.header.size() < 16 || seen.header.size() < seen.Length()) {
        const std::string more = socket.Read(4096);
        if (more.empty()) {
          return;
        }
        seen.header += more;
      }
      const std::string rest = seen.header.substr(seen.Length());
      seen.header.resize(seen.Length());
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        seen_.push_back(seen);
        changed_.notify_all();
      }
      socket.Send(greeting_);
      socket.Send(rest);
      Echo(std::move(socket));
    };
  }
  // The header of the so-manieth connection.
  Seen Header(size_t number = 0) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return seen_.size() > number; });
    return seen_.size() > number ? seen_[number] : Seen();
  }

 private:
  const std::string greeting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Seen> seen_;  // guarded by mutex_
};

class ProxyProtocolTunnelTest : public ::testing::Test {
 protected:
  void Start(const std::string& listen, const std::string& target, bool client_auth = true) {
    proxy_.AddTunnel(
        base::Direction::kInbound, listen, target,
        client_auth ? std::vector<std::string>{std::string(kWeb)} : std::vector<std::string>{},
        client_auth);
    proxy_.config.tunnels.back().proxy_protocol = asks_;
    proxy_.Start();
    proxy_.PublishIdentity(ca_, kDb);
    proxy_.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  }
  ~ProxyProtocolTunnelTest() override { proxy_.Stop(); }

  TestCa ca_;
  const Minted web_ = ca_.Mint(kWeb);
  HeaderApplication app_;
  TempDir directory_;
  TestProxy proxy_;
  bool asks_ = true;
};

TEST_F(ProxyProtocolTunnelTest, TellsTheClientsAddressAndIdentityBeforeItsFirstByte) {
  Server server(app_.Serve());
  Start("127.0.0.1:0", "127.0.0.1:" + std::to_string(server.port()));
  Socket socket = proxy_.Connect();
  const net::SocketAddress client = LocalOf(socket);
  RawTls peer(std::move(socket), {.certificate = &web_});
  ASSERT_TRUE(peer.ok());
  peer.Send("question");
  EXPECT_EQ(peer.ReadExactly(8), "question");
  const Seen seen = app_.Header();
  session::ProxyHeader expected;
  expected.endpoints = {client, {base::IpAddress::Parse("127.0.0.1").value(), proxy_.Port()}};
  session::ClientTls& tls = expected.tls.emplace();
  tls.version = "TLSv1.3";
  // Cipher and group are the TLS library's choice: "TLSv1.3" stands before the one, it before the
  // other.
  const std::string ssl = seen.Find('\x20');
  ASSERT_GT(ssl.size(), 43U);
  tls.cipher = ssl.substr(18, 22);
  EXPECT_EQ(tls.cipher.substr(0, 8), "TLS_AES_");
  tls.group = ssl.substr(43);
  tls.spiffe_id = kWeb;
  EXPECT_EQ(base::ToHex(base::AsBytes(seen.header)), base::ToHex(base::AsBytes(Encoded(expected))));
  EXPECT_EQ(seen.Find('\xD0'), kWeb);
  proxy_.Stop();
  EXPECT_NE(proxy_.AccessLog().find("\"bytes_from_downstream\":8,"), std::string::npos)
      << "the header is nobody's bytes";
}

TEST_F(ProxyProtocolTunnelTest, TellsAnApplicationThatSpeaksFirst) {
  HeaderApplication greeter("220 ready\r\n");
  Server server(greeter.Serve());
  Start("127.0.0.1:0", "127.0.0.1:" + std::to_string(server.port()));
  RawTls peer(proxy_.Connect(), {.certificate = &web_});
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer.ReadExactly(11), "220 ready\r\n");
  EXPECT_EQ(greeter.Header().Find('\xD0'), kWeb);
}

TEST_F(ProxyProtocolTunnelTest, AClientWithoutACertificateHasNoName) {
  Server server(app_.Serve());
  Start("127.0.0.1:0", "127.0.0.1:" + std::to_string(server.port()), false);
  RawTls peer(proxy_.Connect(), {});
  ASSERT_TRUE(peer.ok());
  peer.Send("x");
  EXPECT_EQ(peer.ReadExactly(1), "x");
  const Seen seen = app_.Header();
  EXPECT_EQ(seen.Find('\xD0'), "-");
  EXPECT_EQ(seen.Find('\x20').substr(0, 5), std::string("\x01\x00\x00\x00\x01", 5));
}

TEST_F(ProxyProtocolTunnelTest, TellsOfUnixSocketsToAnApplicationOnOne) {
  Server server(directory_.Path("app.sock"), app_.Serve());
  Start("unix:" + directory_.Path("in.sock"), "unix:" + directory_.Path("app.sock"));
  RawTls peer(Socket::ConnectUnix(directory_.Path("in.sock")), {.certificate = &web_});
  ASSERT_TRUE(peer.ok());
  peer.Send("x");
  EXPECT_EQ(peer.ReadExactly(1), "x");
  const Seen seen = app_.Header();
  EXPECT_EQ(seen.header.substr(12, 2), "\x21\x31");
  EXPECT_EQ(seen.header.substr(16, 108), std::string(108, '\0')) << "a client without a name";
  EXPECT_EQ(seen.header.substr(124, directory_.Path("in.sock").size()), directory_.Path("in.sock"));
  EXPECT_EQ(seen.Find('\xD0', 216), kWeb);
}

TEST_F(ProxyProtocolTunnelTest, SaysNothingToAnApplicationThatDoesNotAsk) {
  asks_ = false;
  Server server(&Echo);
  Start("127.0.0.1:0", "127.0.0.1:" + std::to_string(server.port()));
  RawTls peer(proxy_.Connect(), {.certificate = &web_});
  peer.Send("only this");
  EXPECT_EQ(peer.ReadExactly(9), "only this");
  peer.CloseNotify();
  EXPECT_TRUE(peer.DrainToCleanEnd());
}

// A header that the client sends is the client's bytes, behind ours.
TEST_F(ProxyProtocolTunnelTest, AHeaderOfTheClientIsNotTakenForOurs) {
  Server server(app_.Serve());
  Start("127.0.0.1:0", "127.0.0.1:" + std::to_string(server.port()));
  Socket socket = proxy_.Connect();
  const net::SocketAddress client = LocalOf(socket);
  RawTls peer(std::move(socket), {.certificate = &web_});
  ASSERT_TRUE(peer.ok());
  session::ProxyHeader forged;
  forged.endpoints = {net::SocketAddress::Parse("192.0.2.1:1").value(),
                      net::SocketAddress::Parse("192.0.2.2:2").value()};
  peer.Send(Encoded(forged));
  EXPECT_EQ(peer.ReadExactly(Encoded(forged).size()), Encoded(forged));
  EXPECT_EQ(app_.Header().header.substr(16, 4), base::AsText(client.ip().bytes()));
}

class ProxyProtocolInterceptionTest : public ::testing::Test {
 protected:
  ProxyProtocolInterceptionTest() {
    proxy_.config.sniff_timeout = std::chrono::seconds(10);  // a busy machine makes nobody silent
  }
  void Start(PeerMode mode, const std::string& greeting = "") {
    app_ = std::make_unique<HeaderApplication>(greeting);
    server_ = std::make_unique<Server>(app_->Serve());
    destination_ = {base::IpAddress::Parse("127.0.0.1").value(), server_->port()};
    proxy_.config.proxy_protocol_ports.insert(server_->port());
    proxy_.config.intercept = config::InterceptMode::kRedirect;
    proxy_.config.inbound_port = 0;
    proxy_.config.outbound_port = 0;
    proxy_.config.peer_mode = mode;
    proxy_.shared.endpoints = &endpoints_;
    proxy_.shared.original_destination = [this](const net::Stream&,
                                                bool) -> absl::StatusOr<net::SocketAddress> {
      return destination_;
    };
    proxy_.Start();
    proxy_.PublishIdentity(ca_, kDb);
    proxy_.PublishPolicy(policy::PolicySet::SameTrustDomain(x509::SpiffeId::Parse(kDb).value()));
  }
  ~ProxyProtocolInterceptionTest() override { proxy_.Stop(); }
  Socket Connect() { return Socket::Connect("127.0.0.1", proxy_.PortOf("inbound")); }
  std::string Plain(const net::SocketAddress& client) const {
    return Encoded({.endpoints = {{client, destination_}}, .tls = {}});
  }

  TestCa ca_;
  const Minted web_ = ca_.Mint(kWeb);
  fakes::FakeEndpointDirectory endpoints_;
  net::SocketAddress destination_;
  std::unique_ptr<HeaderApplication> app_;
  std::unique_ptr<Server> server_;
  TestProxy proxy_;
};

TEST_F(ProxyProtocolInterceptionTest, TellsTheOriginalDestinationAndTheIdentity) {
  Start(PeerMode::kStrict);
  RawTls peer(Connect(), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  peer.Send("x");
  EXPECT_EQ(peer.ReadExactly(1), "x");
  const Seen seen = app_->Header();
  EXPECT_EQ(seen.header.substr(20, 4), base::AsText(destination_.ip().bytes()));
  EXPECT_EQ(seen.Find('\xD0'), kWeb);
  EXPECT_EQ(seen.Find('\x01'), "-") << "the mesh's own ALPN is not the application's";
}

TEST_F(ProxyProtocolInterceptionTest, APlaintextClientHasAddressesAloneInOneWriteWithItsBytes) {
  Start(PeerMode::kPermissive);
  Socket socket = Connect();
  const std::string expected = Plain(LocalOf(socket));
  socket.Send("GET /");
  EXPECT_EQ(socket.ReadExactly(5), "GET /");
  EXPECT_EQ(app_->Header().first, expected + "GET /");
}

TEST_F(ProxyProtocolInterceptionTest, ADisabledPortIsToldToo) {
  Start(PeerMode::kDisabled);
  Socket socket = Connect();
  const std::string expected = Plain(LocalOf(socket));
  socket.Send("raw");
  EXPECT_EQ(socket.ReadExactly(3), "raw");
  EXPECT_EQ(app_->Header().header, expected);
}

TEST_F(ProxyProtocolInterceptionTest, AServerThatSpeaksFirstIsToldOfASilentClient) {
  proxy_.config.sniff_timeout = milliseconds(20);
  Start(PeerMode::kPermissive, "220 ready\r\n");
  Socket socket = Connect();
  EXPECT_EQ(socket.ReadExactly(11), "220 ready\r\n");
  EXPECT_EQ(app_->Header().header, Plain(LocalOf(socket)));
  socket.Send("EHLO");
  EXPECT_EQ(socket.ReadExactly(4), "EHLO");
}

TEST_F(ProxyProtocolInterceptionTest, ASilentClientThatSpeaksPlaintextAtLastIsToldOfOnce) {
  proxy_.config.sniff_timeout = milliseconds(20);
  Start(PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(app_->Header().header, Plain(LocalOf(socket)));
  socket.Send("at last");
  EXPECT_EQ(socket.ReadExactly(7), "at last");
}

// What was told of the silent client is not true any more: the application gets a connection anew.
TEST_F(ProxyProtocolInterceptionTest, AMeshClientThatWasLateIsToldOfByItsName) {
  proxy_.config.sniff_timeout = milliseconds(20);
  Start(PeerMode::kPermissive);
  Socket socket = Connect();
  EXPECT_EQ(app_->Header().Find('\xD0'), "-");
  RawTls peer(std::move(socket), {.certificate = &web_, .alpn = "postern/1"});
  ASSERT_TRUE(peer.ok());
  peer.Send("late");
  EXPECT_EQ(peer.ReadExactly(4), "late");
  EXPECT_EQ(app_->Header(1).Find('\xD0'), kWeb);
  EXPECT_EQ(server_->accepted(), 2);
}

TEST_F(ProxyProtocolInterceptionTest, AnotherPortIsNotTold) {
  Start(PeerMode::kPermissive);
  Server other(&Echo);
  destination_ = {base::IpAddress::Parse("127.0.0.1").value(), other.port()};
  Socket socket = Connect();
  socket.Send("only this");
  EXPECT_EQ(socket.ReadExactly(9), "only this");
  socket.ShutdownWrite();
  EXPECT_EQ(socket.ReadToEnd(), "");
}

}  // namespace
}  // namespace postern::testing
