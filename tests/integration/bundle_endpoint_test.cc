// SPDX-License-Identifier: Apache-2.0
// The bundle endpoint and the client that fetches from one, over real sockets: who is believed, who
// is not, and what neither of the two lets a peer do to it.
#include "control/federation/bundle_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "control/federation/certificate_files.h"
#include "control/federation/https_client.h"
#include "tests/testing/raw_tls.h"
#include "tests/testing/sockets.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::federation {
namespace {

using testing::CertificateSpec;
using ::testing::HasSubstr;
using testing::Minted;
using testing::RawTls;
using testing::Server;
using testing::Socket;
using testing::TestCa;

constexpr char kIssuer[] = "spiffe://b.test/postern/identity";

class BundleEndpointTest : public ::testing::Test {
 protected:
  BundleEndpointTest() : endpoint_(*BundleEndpoint::Listen("127.0.0.1", 0)) {
    std::signal(SIGPIPE, SIG_IGN);  // as the programs do (base::HardenProcess)
    Serve(b_.Issue(kIssuer));
    endpoint_->SetDocument("{\"the\":\"document\"}");
  }

  void Serve(const x509::Svid& svid) {
    const absl::Status set = endpoint_->SetIdentity(svid.chain(), svid.key());
    ASSERT_TRUE(set.ok()) << set;
  }
  void Serve(const Minted& minted) {
    const absl::Status set = endpoint_->SetIdentity(minted.chain, minted.key.get());
    ASSERT_TRUE(set.ok()) << set;
  }
  static CertificateSpec WebSpec(const std::string& name) {
    CertificateSpec spec;
    spec.dns_names = {name};
    spec.common_name = name;
    return spec;
  }
  HttpsUrl Url(const std::string& host = "127.0.0.1", const std::string& path = "/") const {
    return {host, endpoint_->port(), path};
  }
  ServerTrust Spiffe(const std::string& id, const TestCa& ca) const {
    return {.id = *x509::SpiffeId::Parse(id),
            .bundles = std::make_shared<const x509::TrustBundleSet>(ca.BundleSet())};
  }
  absl::StatusOr<std::string> Get(const HttpsUrl& url, const ServerTrust& trust) {
    return HttpsGet(url, trust, base::Clock::System());
  }
  void ExpectUntrusted(const HttpsUrl& url, const ServerTrust& trust, std::string_view why) {
    const uint64_t served = endpoint_->served();
    const absl::StatusOr<std::string> got = Get(url, trust);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kUnauthenticated) << got.status();
    EXPECT_THAT(std::string(base::Message(got.status())), HasSubstr(std::string(why)));
    EXPECT_EQ(endpoint_->served(), served) << "it was asked nothing";
  }
  // What a plain TLS client gets for these bytes.
  std::string Raw(const std::string& request) {
    RawTls client(Socket::Connect("127.0.0.1", endpoint_->port()), {});
    EXPECT_TRUE(client.ok());
    client.Send(request);
    std::string reply;
    for (std::string piece = client.Read(4096); !piece.empty(); piece = client.Read(4096)) {
      reply += piece;
    }
    return reply;
  }

  TestCa b_{"b.test"};
  std::unique_ptr<BundleEndpoint> endpoint_;
};

// --- https_spiffe

TEST_F(BundleEndpointTest, ASpiffeEndpointIsKnownByItsExactIdWhateverItsHost) {
  const absl::StatusOr<std::string> got = Get(Url(), Spiffe(kIssuer, b_));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, "{\"the\":\"document\"}");
  EXPECT_TRUE(Get(Url("localhost"), Spiffe(kIssuer, b_)).ok());
  EXPECT_EQ(endpoint_->served(), 2U);
  Serve(b_.Intermediate().Issue(kIssuer));
  EXPECT_TRUE(Get(Url(), Spiffe(kIssuer, b_)).ok()) << "intermediates are sent";
}

TEST_F(BundleEndpointTest, AnotherSpiffeIdIsRefused) {
  Serve(b_.Issue("spiffe://b.test/web"));
  ExpectUntrusted(Url(), Spiffe(kIssuer, b_), "the server is spiffe://b.test/web");
}

TEST_F(BundleEndpointTest, AnotherCaOfTheSameNameIsRefused) {
  ExpectUntrusted(Url(), Spiffe(kIssuer, TestCa("b.test")), "");
}

TEST_F(BundleEndpointTest, ARootThatSpeaksForAnotherTrustDomainIsRefused) {
  // c.test's root signs a leaf that says it is b.test's issuer; c.test's bundle is held, b's is
  // not.
  const TestCa c("c.test");
  Serve(c.Mint(kIssuer));
  ServerTrust trust = Spiffe(kIssuer, c);
  ExpectUntrusted(Url(), trust, "no trust bundle for 'b.test'");
  trust.bundles = std::make_shared<const x509::TrustBundleSet>(testing::BundleSetOf({&b_, &c}));
  ExpectUntrusted(Url(), trust, "");
}

TEST_F(BundleEndpointTest, AnExpiredEndpointIsRefused) {
  CertificateSpec spec = testing::LeafSpec(kIssuer);
  spec.not_before = absl::Now() - absl::Hours(2);
  spec.not_after = absl::Now() - absl::Minutes(5);
  Serve(b_.Mint(spec));
  ExpectUntrusted(Url(), Spiffe(kIssuer, b_), "expired");
}

TEST_F(BundleEndpointTest, AWebCertificateIsNoSpiffeEndpoint) {
  Serve(b_.Mint(WebSpec("localhost")));
  ExpectUntrusted(Url("localhost"), Spiffe(kIssuer, b_), "");
}

TEST_F(BundleEndpointTest, WithoutABundleNobodyIsBelieved) {
  ServerTrust trust = Spiffe(kIssuer, b_);
  trust.bundles.reset();
  ExpectUntrusted(Url(), trust, "no bundle is held of 'b.test'");
}

// --- https_web

TEST_F(BundleEndpointTest, AWebEndpointIsKnownByItsHostName) {
  const TestCa web_ca("web.test");
  const ServerTrust trust{.ca_pem = web_ca.RootPem()};
  Serve(web_ca.Mint(WebSpec("localhost")));
  EXPECT_TRUE(Get(Url("localhost"), trust).ok());
  ExpectUntrusted(Url("127.0.0.1"), trust, "IP address mismatch");
  Serve(web_ca.Mint(WebSpec("elsewhere.test")));
  ExpectUntrusted(Url("localhost"), trust, "hostname mismatch");
  // A common name is no name of a host.
  CertificateSpec common = WebSpec("other.test");
  common.common_name = "localhost";
  Serve(web_ca.Mint(common));
  ExpectUntrusted(Url("localhost"), trust, "hostname mismatch");
  Serve(TestCa("web.test").Mint(WebSpec("localhost")));
  ExpectUntrusted(Url("localhost"), trust, "");
  CertificateSpec expired = WebSpec("localhost");
  expired.not_before = absl::Now() - absl::Hours(2);
  expired.not_after = absl::Now() - absl::Minutes(5);
  Serve(web_ca.Mint(expired));
  ExpectUntrusted(Url("localhost"), trust, "expired");
  CertificateSpec client_only = WebSpec("localhost");
  client_only.extended_key_usage = "clientAuth";
  Serve(web_ca.Mint(client_only));
  ExpectUntrusted(Url("localhost"), trust, "");
}

TEST_F(BundleEndpointTest, WithoutACaFileTheSystemsRootsCount) {
  Serve(b_.Mint(WebSpec("localhost")));
  ExpectUntrusted(Url("localhost"), {}, "issuer certificate");
}

// --- what the endpoint answers

TEST_F(BundleEndpointTest, AnswersGetOfTheRootAlone) {
  const std::string good = Raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(good, HasSubstr("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(good, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(good, HasSubstr("\r\n\r\n{\"the\":\"document\"}"));
  EXPECT_THAT(Raw("GET /?x HTTP/1.0\r\n\r\n"), HasSubstr("200 OK"));
  EXPECT_THAT(Raw("POST / HTTP/1.1\r\nHost: x\r\n\r\n"), HasSubstr("405 Method Not Allowed"));
  EXPECT_THAT(Raw("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), HasSubstr("404 Not Found"));
  EXPECT_THAT(Raw("hello\r\n\r\n"), HasSubstr("400 Bad Request"));
  EXPECT_THAT(Raw("GET / HTTP/2.0\r\n\r\n"), HasSubstr("400 Bad Request"));
  EXPECT_EQ(endpoint_->served(), 2U);
}

TEST_F(BundleEndpointTest, WithoutADocumentOrAnIdentityItServesNothing) {
  endpoint_ = *BundleEndpoint::Listen("127.0.0.1", 0);
  EXPECT_FALSE(Get(Url(), Spiffe(kIssuer, b_)).ok());
  Serve(b_.Issue(kIssuer));
  const absl::StatusOr<std::string> got = Get(Url(), Spiffe(kIssuer, b_));
  EXPECT_THAT(std::string(base::Message(got.status())), HasSubstr("503"));
}

TEST_F(BundleEndpointTest, AKeyThatDoesNotFitLeavesTheOldIdentity) {
  const x509::Svid other = b_.Issue(kIssuer);
  const absl::Status set = endpoint_->SetIdentity(other.chain(), b_.key());
  EXPECT_EQ(set.code(), absl::StatusCode::kInvalidArgument) << set;
  EXPECT_TRUE(Get(Url(), Spiffe(kIssuer, b_)).ok());
}

TEST_F(BundleEndpointTest, AnOccupiedPortIsNamed) {
  const auto second = BundleEndpoint::Listen("127.0.0.1", endpoint_->port());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(base::Message(second.status())),
              HasSubstr(std::to_string(endpoint_->port())));
}

// Clients that say nothing, or never stop, hold their places for the deadline and no longer, and
// hold up nobody.
TEST_F(BundleEndpointTest, SlowAndEndlessClientsHoldUpNobody) {
  std::vector<Socket> silent;
  for (int i = 0; i < 50; ++i) {
    silent.push_back(Socket::Connect("127.0.0.1", endpoint_->port()));
  }
  RawTls endless(Socket::Connect("127.0.0.1", endpoint_->port()), {});
  ASSERT_TRUE(endless.ok());
  EXPECT_TRUE(Get(Url(), Spiffe(kIssuer, b_)).ok());
  endless.Send("GET / HTTP/1.1\r\nX: " + std::string(9000, 'x'));
  EXPECT_EQ(endless.Read(100), "") << "a request has its bound";
  for (Socket& socket : silent) {
    EXPECT_EQ(socket.Read(1), "");  // ends by itself; the socket would wait for 20 s
  }
}

TEST_F(BundleEndpointTest, MoreClientsThanPlacesWaitForTheirTurn) {
  std::vector<Socket> silent;
  for (size_t i = 0; i < kMaxEndpointConnections; ++i) {
    silent.push_back(Socket::Connect("127.0.0.1", endpoint_->port()));
  }
  // All places are taken; they are free again after the deadline. The first try may be too short.
  EXPECT_TRUE(testing::Await([this] { return Get(Url(), Spiffe(kIssuer, b_)).ok(); }));
}

// --- certificate files

TEST_F(BundleEndpointTest, CertificateFilesAreReadAgainAndBadOnesLeaveTheOld) {
  const testing::TempDir dir;
  const TestCa web_ca("web.test");
  const ServerTrust trust{.ca_pem = web_ca.RootPem()};
  const auto write = [&dir](const Minted& minted) {
    dir.Write("tls.crt", minted.ChainPem());
    dir.Write("tls.key", minted.KeyPem());
  };
  CertificateFiles files(dir.Path("tls.crt"), dir.Path("tls.key"));
  EXPECT_FALSE(files.Reload(*endpoint_).ok());
  write(web_ca.Intermediate().Mint(WebSpec("localhost")));
  ASSERT_TRUE(files.Reload(*endpoint_).ok());
  EXPECT_TRUE(Get(Url("localhost"), trust).ok());
  dir.Write("tls.key", testing::KeyPem(web_ca.key()));
  const absl::Status mismatch = files.Reload(*endpoint_);
  EXPECT_EQ(mismatch.code(), absl::StatusCode::kInvalidArgument) << mismatch;
  EXPECT_THAT(std::string(base::Message(mismatch)), HasSubstr("tls.crt"));
  EXPECT_TRUE(Get(Url("localhost"), trust).ok());
  write(web_ca.Mint(WebSpec("elsewhere.test")));
  ASSERT_TRUE(files.Reload(*endpoint_).ok());
  EXPECT_FALSE(Get(Url("localhost"), trust).ok()) << "the new one is served";
  dir.Write("tls.key", web_ca.Mint(WebSpec("x")).KeyPem(), 0644);
  EXPECT_EQ(files.Reload(*endpoint_).code(), absl::StatusCode::kPermissionDenied);
}

// --- the client against servers that misbehave

class FetchTest : public BundleEndpointTest {
 protected:
  // What the client makes of a server that answers so, once it was asked.
  absl::StatusOr<std::string> Against(const std::function<void(RawTls&)>& answer) {
    const Minted identity = b_.Mint(kIssuer);
    Server server([&](Socket socket) {
      RawTls tls(std::move(socket), {.certificate = &identity, .server = true});
      std::string request;
      while (tls.ok() && request.find("\r\n\r\n") == std::string::npos) {
        const std::string piece = tls.Read(1000);
        if (piece.empty()) {
          return;
        }
        request += piece;
      }
      last_request_ = request;
      answer(tls);
    });
    const HttpsUrl url{"127.0.0.1", server.port(), "/bundle?x=1"};
    const absl::StatusOr<std::string> got = Get(url, Spiffe(kIssuer, b_));
    server.StopAccepting();
    return got;
  }

  std::string last_request_;
};

TEST_F(FetchTest, AsksForThePathOfTheUrlAndReadsChunks) {
  const absl::StatusOr<std::string> got = Against([](RawTls& tls) {
    tls.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    tls.CloseNotify();
  });
  EXPECT_EQ(*got, "abc");
  EXPECT_THAT(last_request_, HasSubstr("GET /bundle?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
  EXPECT_THAT(last_request_, HasSubstr("Connection: close\r\n"));
}

TEST_F(FetchTest, DoesNotFollowARedirect) {
  const absl::StatusOr<std::string> got = Against([](RawTls& tls) {
    tls.Send("HTTP/1.1 301 Moved\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n");
  });
  EXPECT_EQ(got.status().code(), absl::StatusCode::kFailedPrecondition) << got.status();
}

TEST_F(FetchTest, StopsReadingAtItsBound) {
  const absl::StatusOr<std::string> got = Against([](RawTls& tls) {
    tls.Send("HTTP/1.1 200 OK\r\n\r\n");
    while (tls.Send(std::string(16'384, 'x'))) {
    }
  });
  EXPECT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted) << got.status();
}

TEST_F(FetchTest, ABodyThatTcpCutsIsNoDocument) {
  const absl::StatusOr<std::string> got = Against([](RawTls& tls) {
    tls.Send("HTTP/1.1 200 OK\r\n\r\n{\"keys\":[]}");
    tls.socket().ShutdownWrite();  // without close_notify
    tls.Read(1);
  });
  EXPECT_EQ(got.status().code(), absl::StatusCode::kDataLoss) << got.status();
}

TEST_F(FetchTest, GivesUpOnAServerThatDripsOrSaysNothing) {
  const absl::Time begun = absl::Now();
  const absl::StatusOr<std::string> got = Against([](RawTls& tls) {
    tls.Send("HTTP/1.1 200 OK\r\n");
    while (tls.Send("X: y\r\n")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  EXPECT_EQ(got.status().code(), absl::StatusCode::kDeadlineExceeded) << got.status();
  EXPECT_LT(absl::Now() - begun, absl::Seconds(15));
}

TEST_F(FetchTest, AStopOfTheIssuerEndsAFetch) {
  std::atomic<bool> cancelled = true;
  const absl::StatusOr<std::string> got =
      HttpsGet(Url(), Spiffe(kIssuer, b_), base::Clock::System(), &cancelled);
  EXPECT_EQ(got.status().code(), absl::StatusCode::kCancelled) << got.status();
}

TEST_F(FetchTest, NobodyThereIsUnavailable) {
  const HttpsUrl url = Url();
  endpoint_.reset();
  const absl::StatusOr<std::string> got = Get(url, Spiffe(kIssuer, b_));
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable) << got.status();
  EXPECT_THAT(std::string(base::Message(got.status())), HasSubstr(url.Authority()));
}

TEST_F(FetchTest, AServerWithoutTlsIsNotBelieved) {
  Server plain([](Socket socket) {
    socket.Read(1);
    socket.Send("HTTP/1.1 200 OK\r\n\r\n{}");
    socket.DrainToEnd();
  });
  const absl::StatusOr<std::string> got =
      Get({"127.0.0.1", plain.port(), "/"}, Spiffe(kIssuer, b_));
  EXPECT_EQ(got.status().code(), absl::StatusCode::kUnauthenticated) << got.status();
}

}  // namespace
}  // namespace postern::federation
