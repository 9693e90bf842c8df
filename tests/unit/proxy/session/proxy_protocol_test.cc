// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/proxy_protocol.h"

#include <gtest/gtest.h>

#include <string>

namespace postern::session {
namespace {

std::string Hex(const std::vector<uint8_t>& bytes) {
  return base::ToHex(bytes);
}

net::SocketAddress At(std::string_view text) {
  return net::SocketAddress::Parse(text).value();
}

constexpr std::string_view kSignature = "0d0a0d0a000d0a515549540a";

// The header without its last seven bytes, after these were found to be the right checksum.
std::string WithoutChecksum(std::vector<uint8_t> bytes) {
  const size_t at = bytes.size() - 4;
  uint32_t told = 0;
  for (size_t i = at; i < bytes.size(); ++i) {
    told = told << 8U | bytes[i];
    bytes[i] = 0;
  }
  EXPECT_EQ(told, Crc32c(bytes));
  std::string hex = Hex(bytes);
  EXPECT_EQ(hex.substr(hex.size() - 14), "03000400000000");
  return hex.substr(0, hex.size() - 14);
}

TEST(ProxyProtocolTest, ChecksumsAsRfc3720Does) {
  EXPECT_EQ(Crc32c(base::AsBytes("123456789")), 0xe3069283U);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0)), 0x8a9136aaU);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0xff)), 0x62a8ab43U);
  EXPECT_EQ(Crc32c({}), 0U);
}

// Made by another implementation: ALPN, AUTHORITY, SSL with VERSION and CN, CRC32C.
TEST(ProxyProtocolTest, MakesTheHeaderThatOthersMake) {
  const std::string tlvs =
      Tlv(kTlvAlpn, "h2") + Tlv(kTlvAuthority, "a.b") +
      Tlv(kTlvSsl, SslValue(7, 0, Tlv(kTlvSslVersion, "TLSv1.3") + Tlv(0x22, "c")));
  const ProxyHeader::Endpoints ends{At("10.0.0.1:40000"), At("10.0.0.2:8443")};
  EXPECT_EQ(Hex(EncodeProxyHeader(ends, tlvs)),
            "0d0a0d0a000d0a515549540a211100340a0000010a0000029c4020fb0100026832020003612e6220001307"
            "00000000210007544c5376312e3322000163030004e093f981");
}

TEST(ProxyProtocolTest, TellsIpv4Addresses) {
  const ProxyHeader header{.endpoints = {{At("192.0.2.1:1025"), At("198.18.0.7:443")}}, .tls = {}};
  EXPECT_EQ(WithoutChecksum(header.Encode()),
            std::string(kSignature) + "21110013" + "c0000201" + "c6120007" + "0401" + "01bb");
}

TEST(ProxyProtocolTest, TellsIpv6Addresses) {
  const ProxyHeader header{.endpoints = {{At("[2001:db8::1]:1"), At("[fd00:5b::2]:65535")}},
                           .tls = {}};
  EXPECT_EQ(WithoutChecksum(header.Encode()),
            std::string(kSignature) + "2121002b" + "20010db8000000000000000000000001" +
                "fd00005b000000000000000000000002" + "0001" + "ffff");
}

TEST(ProxyProtocolTest, TellsAnIpv4AddressBesideAnIpv6OneAsMapped) {
  const ProxyHeader header{.endpoints = {{At("192.0.2.1:1"), At("[fd00:5b::2]:2")}}, .tls = {}};
  EXPECT_EQ(WithoutChecksum(header.Encode()),
            std::string(kSignature) + "2121002b" + "00000000000000000000ffffc0000201" +
                "fd00005b000000000000000000000002" + "0001" + "0002");
}

TEST(ProxyProtocolTest, TellsUnixSocketsAndLeavesAClientWithoutANameEmpty) {
  const ProxyHeader header{
      .endpoints = {{net::SocketAddress::Unix("@"), net::SocketAddress::Unix("/run/a.sock")}},
      .tls = {}};
  EXPECT_EQ(WithoutChecksum(header.Encode()),
            std::string(kSignature) + "213100df" + std::string(216, '0') +
                base::ToHex(base::AsBytes("/run/a.sock")) + std::string(216 - 22, '0'));
}

TEST(ProxyProtocolTest, TellsAnAbstractNameAsTheKernelDoes) {
  const ProxyHeader header{
      .endpoints = {{net::SocketAddress::Unix("@a"), net::SocketAddress::Unix("/b")}}, .tls = {}};
  const std::string text = WithoutChecksum(header.Encode());
  EXPECT_EQ(text.substr(kSignature.size() + 8, 6), "006100");
}

TEST(ProxyProtocolTest, SaysNothingOfAddressesThatDoNotGoTogether) {
  const ProxyHeader header{.endpoints = {{At("192.0.2.1:1"), net::SocketAddress::Unix("/b")}},
                           .tls = {}};
  EXPECT_EQ(WithoutChecksum(header.Encode()), std::string(kSignature) + "21000007");
}

TEST(ProxyProtocolTest, IsLocalWhereNobodyIsBehindIt) {
  EXPECT_EQ(WithoutChecksum(ProxyHeader().Encode()), std::string(kSignature) + "20000007");
}

class ProxyProtocolTlsTest : public ::testing::Test {
 protected:
  // What follows the addresses.
  std::string Tlvs() const {
    return WithoutChecksum(header_.Encode()).substr(kSignature.size() + 8 + 24);
  }
  static std::string Text(std::string_view text) { return base::ToHex(base::AsBytes(text)); }

  ProxyHeader header_{.endpoints = {{At("192.0.2.1:1"), At("192.0.2.2:2")}},
                      .tls = ClientTls{.version = "TLSv1.3",
                                       .cipher = "TLS_AES_128_GCM_SHA256",
                                       .group = "X25519",
                                       .alpn = "",
                                       .authority = "",
                                       .spiffe_id = "spiffe://td/a"}};
  const std::string parts_ = "210007" + Text("TLSv1.3") + "230016" +
                             Text("TLS_AES_128_GCM_SHA256") + "260006" + Text("X25519");
};

TEST_F(ProxyProtocolTlsTest, TellsTheSpiffeIdOfAClientWhoseCertificateIsGood) {
  EXPECT_EQ(Tlvs(),
            "200031"
            "07"
            "00000000" +
                parts_ + "d0000d" + Text("spiffe://td/a"));
}

TEST_F(ProxyProtocolTlsTest, ACertificateOfAnEarlierConnectionIsOneOfTheSession) {
  header_.tls->resumed = true;
  EXPECT_EQ(Tlvs(),
            "200031"
            "05"
            "00000000" +
                parts_ + "d0000d" + Text("spiffe://td/a"));
}

TEST_F(ProxyProtocolTlsTest, AClientWithoutACertificateIsNotVerified) {
  header_.tls->spiffe_id = "";
  EXPECT_EQ(Tlvs(),
            "200031"
            "01"
            "00000001" +
                parts_);
}

TEST_F(ProxyProtocolTlsTest, TellsTheProtocolAndTheNameThatWereAskedFor) {
  header_.tls->alpn = "h2";
  header_.tls->authority = "a.b";
  EXPECT_EQ(Tlvs().substr(0, 22), "010002" + Text("h2") + "020003" + Text("a.b"));
}

TEST_F(ProxyProtocolTlsTest, KeepsToItsLengthWhateverItIsTold) {
  header_.tls->authority = std::string(100'000, 'a');
  header_.tls->cipher = std::string(100'000, 'b');
  const std::vector<uint8_t> bytes = header_.Encode();
  EXPECT_EQ(bytes.size(), 16U + (size_t{bytes[14]} << 8U | bytes[15]));
  EXPECT_EQ(WithoutChecksum(bytes).size(), 2 * bytes.size() - 14);
}

}  // namespace
}  // namespace postern::session
