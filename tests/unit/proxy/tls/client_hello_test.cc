// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/client_hello.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/proxy/tls/engine_pair.h"
#include "tests/unit/proxy/tls/plain_peer.h"

namespace postern::tls {
namespace {

SniffVerdict Sniff(std::string_view bytes) {
  return SniffClientHello(base::AsBytes(bytes)).verdict;
}

std::string U16(size_t value) {
  return {static_cast<char>(value >> 8U), static_cast<char>(value & 0xFFU)};
}
std::string Vector16(const std::string& body) {
  return U16(body.size()) + body;
}
std::string Vector8(const std::string& body) {
  return std::string(1, static_cast<char>(body.size())) + body;
}
std::string Extension(size_t type, const std::string& body) {
  return U16(type) + Vector16(body);
}
std::string HostName(const std::string& name) {
  return Extension(0, Vector16(std::string(1, '\0') + Vector16(name)));
}
std::string Alpn(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) {
    list += Vector8(name);
  }
  return Extension(16, Vector16(list));
}
std::string Versions(const std::vector<size_t>& versions) {
  std::string list;
  for (const size_t version : versions) {
    list += U16(version);
  }
  return Extension(43, Vector8(list));
}

// A handshake message that is a hello with these extensions.
std::string Message(const std::string& extensions) {
  const std::string body = U16(0x0303) + std::string(32, 'r') + Vector8(std::string(32, 's')) +
                           Vector16(U16(0x1301) + U16(0x0A0A)) + Vector8(std::string(1, '\0')) +
                           Vector16(extensions);
  return std::string(1, 1) + std::string(1, static_cast<char>(body.size() >> 16U)) +
         U16(body.size() & 0xFFFFU) + body;
}
std::string Record(const std::string& fragment) {
  return std::string("\x16\x03\x01", 3) + Vector16(fragment);
}
std::string Records(const std::string& message, size_t each) {
  std::string bytes;
  for (size_t at = 0; at < message.size(); at += each) {
    bytes += Record(message.substr(at, each));
  }
  return bytes;
}
std::string GoodExtensions() {
  return Extension(0x1A1A, "") + HostName("Web.Example.ORG") + Alpn({"postern/1", "h2"}) +
         Versions({0x2A2A, 0x0304, 0x0303});
}

std::string RealHello() {
  PlainPeer client = PlainPeer::Client(nullptr);
  SSL_set_tlsext_host_name(client.ssl(), "app.example.org");
  client.Turn();
  return client.TakeOutput();
}

TEST(ClientHelloTest, ReadsNameProtocolsAndVersion) {
  const SniffResult result = SniffClientHello(base::AsBytes(Record(Message(GoodExtensions()))));
  ASSERT_EQ(result.verdict, SniffVerdict::kClientHello);
  EXPECT_EQ(result.hello.sni, "web.example.org");
  EXPECT_EQ(result.hello.alpn, (std::vector<std::string>{"postern/1", "h2"}));
  EXPECT_TRUE(result.hello.offers_tls13);
  EXPECT_TRUE(IsMeshHello(result.hello));
}

TEST(ClientHelloTest, PassesOverGrease) {
  const std::string grease(2, '\x3A');
  const SniffResult result =
      SniffClientHello(base::AsBytes(Record(Message(Alpn({grease, "h2"}) + Versions({0x0303})))));
  ASSERT_EQ(result.verdict, SniffVerdict::kClientHello);
  EXPECT_EQ(result.hello.alpn, std::vector<std::string>{"h2"});
  EXPECT_FALSE(result.hello.offers_tls13);
  EXPECT_FALSE(IsMeshHello(result.hello));
}

TEST(ClientHelloTest, TakesAnOldHelloWithoutExtensions) {
  const std::string body = U16(0x0303) + std::string(32, 'r') + Vector8("") +
                           Vector16(U16(0x002F)) + Vector8(std::string(1, '\0'));
  const std::string message = std::string("\x01\x00", 2) + U16(body.size()) + body;
  const SniffResult result = SniffClientHello(base::AsBytes(Record(message)));
  EXPECT_EQ(result.verdict, SniffVerdict::kClientHello);
  EXPECT_FALSE(result.hello.offers_tls13);
}

TEST(ClientHelloTest, NeedsMoreForEveryTruncationOfARealHello) {
  const std::string hello = RealHello();
  ASSERT_GT(hello.size(), 200U);
  for (size_t size = 0; size < hello.size(); ++size) {
    ASSERT_EQ(Sniff(std::string_view(hello).substr(0, size)), SniffVerdict::kNeedMore) << size;
  }
  const SniffResult result = SniffClientHello(base::AsBytes(hello));
  ASSERT_EQ(result.verdict, SniffVerdict::kClientHello);
  EXPECT_EQ(result.hello.sni, "app.example.org");
  EXPECT_TRUE(result.hello.offers_tls13);
}

TEST(ClientHelloTest, ReadsAHelloSpreadOverRecordsOfAnySize) {
  const std::string message = Message(GoodExtensions());
  for (const size_t each : {1, 2, 3, 4, 5, 7, 50}) {
    const std::string bytes = Records(message, each);
    for (size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_EQ(Sniff(std::string_view(bytes).substr(0, size)), SniffVerdict::kNeedMore);
    }
    const SniffResult result = SniffClientHello(base::AsBytes(bytes));
    ASSERT_EQ(result.verdict, SniffVerdict::kClientHello);
    EXPECT_TRUE(IsMeshHello(result.hello));
  }
}

TEST(ClientHelloTest, TakesALargeHelloAndRefusesATooLargeOne) {
  const std::string large = Message(GoodExtensions() + Extension(21, std::string(60'000, '\0')));
  EXPECT_EQ(Sniff(Records(large, 16384)), SniffVerdict::kClientHello);
  EXPECT_EQ(Sniff(Records(large, 16384).substr(0, 50'000)), SniffVerdict::kNeedMore);
  const std::string claims_too_much = Record(std::string("\x01\x01\x00\x01", 4));
  EXPECT_EQ(Sniff(claims_too_much), SniffVerdict::kTooLarge);
  // Tiny records blow a hello up past the limit of what is kept.
  const std::string blown_up = Records(large, 1);
  EXPECT_EQ(Sniff(std::string_view(blown_up).substr(0, kMaxClientHelloBytes - 1)),
            SniffVerdict::kNeedMore);
  EXPECT_EQ(Sniff(std::string_view(blown_up).substr(0, kMaxClientHelloBytes)),
            SniffVerdict::kTooLarge);
}

TEST(ClientHelloTest, TellsPlaintextFromTheFirstByteOrTwo) {
  for (const std::string_view text :
       {std::string_view("G"), std::string_view("GET / HTTP/1.1\r\n\r\n"),
        std::string_view("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), std::string_view("SSH-2.0-x\r\n"),
        std::string_view("\0", 1), std::string_view("\x16\x04", 2), std::string_view("\x16GET"),
        std::string_view("\x80\x2e\x01\x00\x02", 5),             // SSLv2
        std::string_view("\x15\x03\x01\x00\x02\x02\x28", 7)}) {  // an alert
    EXPECT_EQ(Sniff(text), SniffVerdict::kNotTls) << base::ToHex(base::AsBytes(text));
  }
  EXPECT_EQ(Sniff(""), SniffVerdict::kNeedMore);
  EXPECT_EQ(Sniff("\x16"), SniffVerdict::kNeedMore);
  EXPECT_EQ(Sniff("\x16\x03"), SniffVerdict::kNeedMore);
}

TEST(ClientHelloTest, RefusesWhatBeginsAsTlsAndBreaksItsRules) {
  const std::string good = Message(GoodExtensions());
  std::string server_hello = good;
  server_hello[0] = 2;
  std::string long_session = good;
  long_session[4 + 2 + 32] = 33;
  std::string old_major = good;
  old_major[4] = 2;
  const std::vector<std::string> bad = {
      std::string("\x16\x03\x01\x00\x00", 5),  // an empty record
      std::string("\x16\x03\x01\x40\x01", 5),  // over 2^14
      Record(server_hello),
      Record(long_session),
      Record(old_major),
      Record(good.substr(0, 10)) + std::string("\x17\x03\x03\x00\x01x", 6),  // another type inside
      Record(Message(HostName("a.example") + HostName("b.example"))),
      Record(Message(Alpn({"h2"}) + Alpn({"postern/1"}))),
      Record(Message(Versions({0x0304}) + Versions({0x0303}))),
      Record(Message(HostName(std::string("evil\0.example", 13)))),
      Record(Message(HostName("new\nline"))),
      Record(Message(HostName(std::string(256, 'a')))),
      Record(Message(HostName(""))),
      Record(Message(Alpn({""}))),
      Record(Message(Extension(16, Vector16("")))),
      Record(Message(Extension(16, U16(50) + "\x02h2"))),
      Record(Message(Extension(43, ""))),
      Record(Message(Extension(43, Vector8("odd")))),
      Record(Message("\x01")),
      Record(Message(U16(7) + U16(100) + "short")),
  };
  for (const std::string& bytes : bad) {
    EXPECT_EQ(Sniff(bytes), SniffVerdict::kMalformed) << base::ToHex(base::AsBytes(bytes));
  }
}

TEST(ClientHelloTest, SurvivesEveryByteFlippedInARealHello) {
  const std::string hello = RealHello();
  for (size_t at = 0; at < hello.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string changed = hello;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      SniffClientHello(base::AsBytes(changed));  // whatever it says: no fault
    }
  }
}

class OwnHelloTest : public EngineTest {};

TEST_F(OwnHelloTest, MarksOurHelloAsTheMeshsAndNamesNobody) {
  EnginePair pair = MakePair();
  pair.client.Handshake();
  const SniffResult result = SniffClientHello(base::AsBytes(pair.client.outbox));
  ASSERT_EQ(result.verdict, SniffVerdict::kClientHello);
  EXPECT_TRUE(IsMeshHello(result.hello));
  EXPECT_TRUE(result.hello.offers_tls13);
  EXPECT_EQ(result.hello.sni, "");
}

}  // namespace
}  // namespace postern::tls
