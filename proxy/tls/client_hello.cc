// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/client_hello.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "proxy/tls/tls_context.h"
#include "proxy/tls/wire_reader.h"

namespace postern::tls {
namespace {

constexpr uint8_t kMajorVersion = 3;
constexpr size_t kRecordHeader = 5;
constexpr size_t kMaxFragment = 1U << 14U;
constexpr uint8_t kClientHelloMessage = 1;
constexpr size_t kMessageHeader = 4;
constexpr size_t kRandomBytes = 32;
constexpr size_t kMaxSessionId = 32;
constexpr size_t kMaxHostName = 255;
constexpr uint16_t kTls13 = 0x0304;

constexpr uint16_t kServerName = 0;
constexpr uint16_t kAlpn = 16;
constexpr uint16_t kSupportedVersions = 43;

using Reader = WireReader;

// RFC 8701: two equal bytes of the form 0x?A.
bool IsGrease(base::ByteSpan value) {
  return value.size() == 2 && value[0] == value[1] && (value[0] & 0x0FU) == 0x0AU;
}

// RFC 6066 section 3. One host name at most, in printable ASCII.
bool ParseServerName(base::ByteSpan body, ClientHello& hello) {
  Reader extension(body);
  const std::optional<base::ByteSpan> list = extension.Vector(2);
  if (!list.has_value() || list->empty() || !extension.empty()) {
    return false;
  }
  Reader names(*list);
  while (!names.empty()) {
    const std::optional<uint32_t> type = names.Integer(1);
    const std::optional<base::ByteSpan> name = names.Vector(2);
    if (!type.has_value() || !name.has_value() || name->empty()) {
      return false;
    }
    if (*type != 0) {
      continue;
    }
    if (!hello.sni.empty() || name->size() > kMaxHostName) {
      return false;
    }
    for (const uint8_t byte : *name) {
      if (byte <= 0x20 || byte >= 0x7F) {
        return false;
      }
      const bool upper = byte >= 'A' && byte <= 'Z';
      hello.sni.push_back(static_cast<char>(upper ? byte + ('a' - 'A') : byte));
    }
  }
  return true;
}

// RFC 7301 section 3.1.
bool ParseAlpn(base::ByteSpan body, ClientHello& hello) {
  Reader extension(body);
  const std::optional<base::ByteSpan> list = extension.Vector(2);
  if (!list.has_value() || list->empty() || !extension.empty()) {
    return false;
  }
  Reader names(*list);
  while (!names.empty()) {
    const std::optional<base::ByteSpan> name = names.Vector(1);
    if (!name.has_value() || name->empty()) {
      return false;
    }
    if (!IsGrease(*name)) {
      hello.alpn.emplace_back(base::AsText(*name));
    }
  }
  return true;
}

// RFC 8446 section 4.2.1.
bool ParseSupportedVersions(base::ByteSpan body, ClientHello& hello) {
  Reader extension(body);
  const std::optional<base::ByteSpan> list = extension.Vector(1);
  if (!list.has_value() || list->empty() || list->size() % 2 != 0 || !extension.empty()) {
    return false;
  }
  Reader versions(*list);
  while (!versions.empty()) {
    hello.offers_tls13 |= versions.Integer(2) == kTls13;
  }
  return true;
}

// Each extension that is judged here may come once (RFC 8446 section 4.2): two parsers that take
// different ones of a pair would see two different hellos.
bool ParseExtensions(base::ByteSpan block, ClientHello& hello) {
  struct Known {
    uint16_t type;
    bool (*parse)(base::ByteSpan, ClientHello&);
    int seen = 0;
  };
  Known known[] = {{kServerName, &ParseServerName},
                   {kAlpn, &ParseAlpn},
                   {kSupportedVersions, &ParseSupportedVersions}};
  Reader extensions(block);
  while (!extensions.empty()) {
    const std::optional<uint32_t> type = extensions.Integer(2);
    const std::optional<base::ByteSpan> body = extensions.Vector(2);
    if (!type.has_value() || !body.has_value()) {
      return false;
    }
    for (Known& one : known) {
      if (one.type == *type && (++one.seen > 1 || !one.parse(*body, hello))) {
        return false;
      }
    }
  }
  return true;
}

// RFC 8446 section 4.1.2; a hello of an older version may end before the extensions.
bool ParseHello(base::ByteSpan body, ClientHello& hello) {
  Reader reader(body);
  const std::optional<uint32_t> version = reader.Integer(2);
  if (!version.has_value() || (*version >> 8U) != kMajorVersion ||
      !reader.Take(kRandomBytes).has_value()) {
    return false;
  }
  const std::optional<base::ByteSpan> session_id = reader.Vector(1);
  const std::optional<base::ByteSpan> suites = reader.Vector(2);
  const std::optional<base::ByteSpan> compressions = reader.Vector(1);
  if (!session_id.has_value() || session_id->size() > kMaxSessionId || !suites.has_value() ||
      suites->empty() || suites->size() % 2 != 0 || !compressions.has_value() ||
      compressions->empty()) {
    return false;
  }
  if (reader.empty()) {
    return true;
  }
  const std::optional<base::ByteSpan> extensions = reader.Vector(2);
  return extensions.has_value() && reader.empty() && ParseExtensions(*extensions, hello);
}

// The handshake bytes that the records hold so far, and what the records say of themselves.
struct Assembly {
  SniffVerdict verdict = SniffVerdict::kNeedMore;  // kMalformed, or kNeedMore for "go on"
  std::vector<uint8_t> message;
};

// Takes fragments until `wanted` handshake bytes are there; more is of no interest. The record
// version is passed over but for its first byte (RFC 8446 section 5.1).
Assembly Assemble(base::ByteSpan bytes) {
  // A hello that announces more is refused by its header; the rest is not looked at, so that the
  // verdict does not depend on how much has come.
  constexpr size_t kMostWanted = kMessageHeader + kMaxClientHelloBytes;
  Assembly assembly;
  size_t wanted = kMessageHeader;
  while (!bytes.empty() && assembly.message.size() < wanted) {
    if (bytes[0] != kHandshakeRecord || (bytes.size() > 1 && bytes[1] != kMajorVersion)) {
      assembly.verdict = SniffVerdict::kMalformed;
      return assembly;
    }
    if (bytes.size() < kRecordHeader) {
      return assembly;
    }
    const size_t length = (static_cast<size_t>(bytes[3]) << 8U) | bytes[4];
    if (length == 0 || length > kMaxFragment) {
      assembly.verdict = SniffVerdict::kMalformed;
      return assembly;
    }
    const base::ByteSpan rest = bytes.subspan(kRecordHeader);
    const base::ByteSpan fragment = rest.first(std::min(length, rest.size()));
    assembly.message.insert(assembly.message.end(), fragment.begin(), fragment.end());
    bytes = rest.subspan(fragment.size());
    if (assembly.message.size() >= kMessageHeader) {
      wanted =
          kMessageHeader + ((static_cast<size_t>(assembly.message[1]) << 16U) |
                            (static_cast<size_t>(assembly.message[2]) << 8U) | assembly.message[3]);
      if (wanted > kMostWanted) {
        return assembly;
      }
    }
  }
  return assembly;
}

SniffResult Only(SniffVerdict verdict) {
  return {verdict, {}};
}

}  // namespace

SniffResult SniffClientHello(base::ByteSpan bytes) {
  if (bytes.empty()) {
    return Only(SniffVerdict::kNeedMore);
  }
  // A record header of another shape is some other protocol. From here on it is TLS, well or ill.
  if (bytes[0] != kHandshakeRecord || (bytes.size() > 1 && bytes[1] != kMajorVersion)) {
    return Only(SniffVerdict::kNotTls);
  }
  const Assembly assembly = Assemble(bytes.first(std::min(bytes.size(), kMaxClientHelloBytes)));
  const std::vector<uint8_t>& message = assembly.message;
  if (assembly.verdict != SniffVerdict::kNeedMore ||
      (!message.empty() && message[0] != kClientHelloMessage)) {
    return Only(SniffVerdict::kMalformed);
  }
  if (message.size() >= kMessageHeader) {
    Reader reader(base::ByteSpan(message).subspan(1));
    const size_t length = *reader.Integer(3);
    if (length > kMaxClientHelloBytes) {
      return Only(SniffVerdict::kTooLarge);
    }
    const std::optional<base::ByteSpan> body = reader.Take(length);
    if (body.has_value()) {
      SniffResult result = Only(SniffVerdict::kClientHello);
      return ParseHello(*body, result.hello) ? std::move(result) : Only(SniffVerdict::kMalformed);
    }
  }
  return Only(bytes.size() >= kMaxClientHelloBytes ? SniffVerdict::kTooLarge
                                                   : SniffVerdict::kNeedMore);
}

bool IsMeshHello(const ClientHello& hello) {
  return std::find(hello.alpn.begin(), hello.alpn.end(), kMeshAlpn) != hello.alpn.end();
}

}  // namespace postern::tls
