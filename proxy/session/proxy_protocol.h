// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "proxy/net/socket_address.h"

namespace postern::session {

// The types of the PROXY protocol's TLVs, version 2 (HAProxy, doc/proxy-protocol.txt section 2.2).
inline constexpr uint8_t kTlvAlpn = 0x01;
inline constexpr uint8_t kTlvAuthority = 0x02;
inline constexpr uint8_t kTlvCrc32c = 0x03;
inline constexpr uint8_t kTlvSsl = 0x20;
inline constexpr uint8_t kTlvSslVersion = 0x21;  // inside kTlvSsl, as the next ones
inline constexpr uint8_t kTlvSslCipher = 0x23;
inline constexpr uint8_t kTlvSslGroup = 0x26;
// Istio's number for the SPIFFE ID of the client, which other meshes' applications read already.
inline constexpr uint8_t kTlvSpiffeId = 0xD0;

// Bits of the SSL TLV's first byte.
inline constexpr uint8_t kClientSsl = 0x01;
inline constexpr uint8_t kClientCertConnection = 0x02;  // shown on this very connection
inline constexpr uint8_t kClientCertSession = 0x04;     // or when the session that it resumes began

// What our TLS knows of a client. A value.
struct ClientTls {
  std::string version, cipher, group;
  std::string alpn;       // what was agreed on for the application; empty: nothing
  std::string authority;  // the server name that the client asked for; empty: none
  std::string spiffe_id;  // of the verified client; empty: it showed no certificate
  bool resumed = false;
};

// What an application is told of a client. A value.
struct ProxyHeader {
  struct Endpoints {
    net::SocketAddress source;       // who connected
    net::SocketAddress destination;  // to what
  };

  // None: nobody is behind the connection but the proxy itself (the command LOCAL).
  std::optional<Endpoints> endpoints;
  std::optional<ClientTls> tls;  // none: plaintext, or TLS that is not ours

  // The bytes: signature, addresses (IPv4, IPv6 or unix; IPv4 as ::ffff:a.b.c.d beside an IPv6
  // one), TLVs, and last their CRC32C.
  std::vector<uint8_t> Encode() const;
};

// The frame of Encode, for whatever TLVs.
std::vector<uint8_t> EncodeProxyHeader(const std::optional<ProxyHeader::Endpoints>& endpoints,
                                       std::string_view tlvs);
// One TLV. A value that is longer than its length can tell is cut.
std::string Tlv(uint8_t type, std::string_view value);
// The value of an SSL TLV; `verify`: 0 when a certificate was shown and is good.
std::string SslValue(uint8_t client, uint32_t verify, std::string_view parts);

// CRC-32C (Castagnoli), as the protocol's checksum and RFC 3720 appendix B.4 have it.
uint32_t Crc32c(base::ByteSpan bytes);

}  // namespace postern::session
