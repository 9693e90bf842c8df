// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {

inline constexpr size_t kMaxClientHelloBytes = 64U << 10U;
inline constexpr uint8_t kHandshakeRecord = 0x16;  // the first byte of a ClientHello

enum class SniffVerdict : uint8_t {
  kNeedMore,     // could still be a ClientHello
  kClientHello,  // complete; `hello` is filled in
  kNotTls,       // plaintext
  kMalformed,    // began as TLS but breaks RFC 8446
  kTooLarge,     // over kMaxClientHelloBytes
};

struct ClientHello {
  std::string sni;                // lower case; empty without one
  std::vector<std::string> alpn;  // as offered, in order
  bool offers_tls13 = false;
};

struct SniffResult {
  SniffVerdict verdict = SniffVerdict::kNeedMore;
  ClientHello hello;
};

// Judges the first bytes of a connection, as many as have come (RFC 8446 sections 4.1.2, 5.1; a
// hello may be spread over several records and any number of segments). Pure; call again with all
// the bytes when more have come. GREASE values are passed over.
SniffResult SniffClientHello(base::ByteSpan bytes);

// Whether these first bytes begin as a ClientHello does, however few have come: RFC 8446 section
// 5.1, a record of type handshake and its legacy version.
inline bool BeginsAsTls(base::ByteSpan bytes) {
  return bytes.size() >= 2 && bytes[0] == kHandshakeRecord && bytes[1] == 0x03;
}

// Whether the hello offers the mesh's ALPN protocol.
bool IsMeshHello(const ClientHello& hello);

}  // namespace postern::tls
