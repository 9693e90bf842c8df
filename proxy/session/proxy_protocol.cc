// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/proxy_protocol.h"

#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace postern::session {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr std::array<uint8_t, 12> kSignature = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D,
                                                0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};
constexpr uint8_t kLocal = 0x20;
constexpr uint8_t kProxy = 0x21;
constexpr uint8_t kUnspecified = 0x00;
constexpr uint8_t kTcp4 = 0x11;
constexpr uint8_t kTcp6 = 0x21;
constexpr uint8_t kUnixStream = 0x31;
constexpr size_t kLengthAt = 14;
constexpr size_t kUnixPath = 108;
constexpr size_t kCrcTlv = 7;
constexpr size_t kLongest = 0xFFFF;
// SPIFFE IDs are as long at most, other names shorter: all of them fit into one header.
constexpr size_t kLongestName = 2048;

void Put16(Bytes& out, size_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8U));
  out.push_back(static_cast<uint8_t>(value));
}

void Put(Bytes& out, base::ByteSpan bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void PutIp6(Bytes& out, const base::IpAddress& ip) {
  if (ip.is_v4()) {
    constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    Put(out, kMapped);
  }
  Put(out, ip.bytes());
}

void PutUnix(Bytes& out, const net::SocketAddress& address) {
  sockaddr_storage storage{};
  address.ToSockaddr(&storage);
  const auto& un = reinterpret_cast<const sockaddr_un&>(storage);
  static_assert(sizeof(un.sun_path) == kUnixPath);
  Put(out, base::AsBytes({un.sun_path, kUnixPath}));
}

uint8_t FamilyOf(const ProxyHeader::Endpoints& ends) {
  if (ends.source.is_unix() != ends.destination.is_unix()) {
    return kUnspecified;
  }
  if (ends.source.is_unix()) {
    return kUnixStream;
  }
  return ends.source.ip().is_v4() && ends.destination.ip().is_v4() ? kTcp4 : kTcp6;
}

void PutAddresses(Bytes& out, const ProxyHeader::Endpoints& ends, uint8_t family) {
  switch (family) {
    case kTcp4:
      Put(out, ends.source.ip().bytes());
      Put(out, ends.destination.ip().bytes());
      break;
    case kTcp6:
      PutIp6(out, ends.source.ip());
      PutIp6(out, ends.destination.ip());
      break;
    case kUnixStream:
      PutUnix(out, ends.source);
      PutUnix(out, ends.destination);
      return;
    default:
      return;
  }
  Put16(out, ends.source.port());
  Put16(out, ends.destination.port());
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  constexpr uint32_t kReversedPolynomial = 0x82F63B78;
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kReversedPolynomial : 0);
    }
    table[i] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

}  // namespace

uint32_t Crc32c(base::ByteSpan bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const uint8_t byte : bytes) {
    crc = (crc >> 8U) ^ kCrcTable[(crc ^ byte) & 0xFFU];
  }
  return ~crc;
}

std::string Tlv(uint8_t type, std::string_view value) {
  value = value.substr(0, kLongest);
  std::string tlv;
  tlv += static_cast<char>(type);
  tlv += static_cast<char>(value.size() >> 8U);
  tlv += static_cast<char>(value.size() & 0xFFU);
  tlv += value;
  return tlv;
}

std::string SslValue(uint8_t client, uint32_t verify, std::string_view parts) {
  std::string value(1, static_cast<char>(client));
  for (const unsigned shift : {24U, 16U, 8U, 0U}) {
    value += static_cast<char>((verify >> shift) & 0xFFU);
  }
  value += parts;
  return value;
}

// The checksum covers all bytes with its own four as zeros, and is written over them.
std::vector<uint8_t> EncodeProxyHeader(const std::optional<ProxyHeader::Endpoints>& endpoints,
                                       std::string_view tlvs) {
  Bytes out(kSignature.begin(), kSignature.end());
  const uint8_t family = endpoints.has_value() ? FamilyOf(*endpoints) : kUnspecified;
  out.push_back(endpoints.has_value() ? kProxy : kLocal);
  out.push_back(family);
  Put16(out, 0);  // the length
  if (endpoints.has_value()) {
    PutAddresses(out, *endpoints, family);
  }
  Put(out, base::AsBytes(tlvs.substr(0, kLongest - 2 * kUnixPath - kCrcTlv)));
  Put(out, base::AsBytes(Tlv(kTlvCrc32c, std::string_view("\0\0\0\0", 4))));
  const size_t length = out.size() - kLengthAt - 2;
  out[kLengthAt] = static_cast<uint8_t>(length >> 8U);
  out[kLengthAt + 1] = static_cast<uint8_t>(length);
  const uint32_t crc = Crc32c(out);
  for (size_t i = 0; i < 4; ++i) {
    out[out.size() - 4 + i] = static_cast<uint8_t>(crc >> (24 - 8 * i));
  }
  return out;
}

std::vector<uint8_t> ProxyHeader::Encode() const {
  std::string tlvs;
  if (tls.has_value()) {
    const auto add = [](std::string& to, uint8_t type, std::string_view value) {
      if (!value.empty()) {
        to += Tlv(type, value.substr(0, kLongestName));
      }
    };
    add(tlvs, kTlvAlpn, tls->alpn);
    add(tlvs, kTlvAuthority, tls->authority);
    std::string parts;
    add(parts, kTlvSslVersion, tls->version);
    add(parts, kTlvSslCipher, tls->cipher);
    add(parts, kTlvSslGroup, tls->group);
    const bool certified = !tls->spiffe_id.empty();
    const unsigned shown =
        tls->resumed ? kClientCertSession : unsigned{kClientCertConnection} | kClientCertSession;
    const unsigned client = kClientSsl | (certified ? shown : 0);
    tlvs += Tlv(kTlvSsl, SslValue(static_cast<uint8_t>(client), certified ? 0 : 1, parts));
    add(tlvs, kTlvSpiffeId, tls->spiffe_id);
  }
  return EncodeProxyHeader(endpoints, tlvs);
}

}  // namespace postern::session
