// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "proxy/tls/record_fault.h"

namespace postern::tls {

// The handshake messages that we read and write ourselves (RFC 8446 sections 4.3.2 and 4.4): those
// of an authentication inside the connection. A message is whole, its header of four bytes
// included. All pure; what is read from a message lives as long as its bytes.

enum class HandshakeType : uint8_t {
  kClientHello = 1,
  kServerHello = 2,
  kNewSessionTicket = 4,
  kCertificate = 11,
  kCertificateRequest = 13,
  kCertificateVerify = 15,
  kFinished = 20,
  kKeyUpdate = 24,
};

inline constexpr size_t kHandshakeHeaderBytes = 4;
inline constexpr size_t kMaxCertificates = 16;  // of one Certificate message

// What reading came to: the message, or what to say against it.
template <typename Message>
struct Parsed {
  std::optional<Message> message;
  RecordFault fault;
};

struct CertificateRequest {
  base::ByteSpan context;
  base::ByteSpan schemes;  // signature_algorithms, two bytes each
};
struct Certificate {
  base::ByteSpan context;
  std::vector<x509::X509Ptr> chain;  // leaf first; empty: the client has none
};
struct CertificateVerify {
  uint16_t scheme = 0;
  base::ByteSpan signature;
};

// Asks for any certificate that a handshake of ours would take. `context`: 255 bytes at most.
std::vector<uint8_t> MakeCertificateRequest(base::ByteSpan context);
std::vector<uint8_t> MakeCertificate(base::ByteSpan context, std::span<const x509::X509Ptr> chain);
std::vector<uint8_t> MakeCertificateVerify(uint16_t scheme, base::ByteSpan signature);
std::vector<uint8_t> MakeFinished(base::ByteSpan mac);

Parsed<CertificateRequest> ParseCertificateRequest(base::ByteSpan message);
// As an answer to a request of ours: without extensions, as none was asked for.
Parsed<Certificate> ParseCertificate(base::ByteSpan message);
Parsed<CertificateVerify> ParseCertificateVerify(base::ByteSpan message);

}  // namespace postern::tls
