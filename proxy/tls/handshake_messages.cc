// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/handshake_messages.h"

#include <openssl/ssl.h>

#include <string>
#include <utility>

#include "common/x509/certificate.h"
#include "proxy/tls/handshake_signature.h"
#include "proxy/tls/wire_reader.h"

namespace postern::tls {
namespace {

constexpr uint32_t kSignatureAlgorithms = 13;

template <typename Message>
Parsed<Message> Refuse(int alert, const char* text) {
  return {std::nullopt,
          {static_cast<uint8_t>(alert), absl::StatusCode::kUnauthenticated, text,
           base::CloseReason::kReauthFailed}};
}

// Writes a message whose length, and whose vectors' lengths, are filled in afterwards.
class Writer {
 public:
  explicit Writer(HandshakeType type) : bytes_{static_cast<uint8_t>(type), 0, 0, 0} {}

  void Put(base::ByteSpan bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void Integer(size_t value, size_t width) {
    for (size_t i = width; i > 0; --i) {
      bytes_.push_back(static_cast<uint8_t>(value >> (8 * (i - 1))));
    }
  }
  void Vector(base::ByteSpan bytes, size_t width) {
    Integer(bytes.size(), width);
    Put(bytes);
  }
  // Where a vector begins whose bytes follow; and its end.
  size_t Begin(size_t width) {
    Integer(0, width);
    return bytes_.size();
  }
  void End(size_t begin, size_t width) {
    const size_t length = bytes_.size() - begin;
    for (size_t i = 0; i < width; ++i) {
      bytes_[begin - 1 - i] = static_cast<uint8_t>(length >> (8 * i));
    }
  }
  std::vector<uint8_t> Finish() {
    End(kHandshakeHeaderBytes, kHandshakeHeaderBytes - 1);
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
};

base::ByteSpan BodyOf(base::ByteSpan message) {
  return message.size() < kHandshakeHeaderBytes ? base::ByteSpan()
                                                : message.subspan(kHandshakeHeaderBytes);
}

}  // namespace

std::vector<uint8_t> MakeCertificateRequest(base::ByteSpan context) {
  Writer writer(HandshakeType::kCertificateRequest);
  writer.Vector(context, 1);
  const size_t extensions = writer.Begin(2);
  writer.Integer(kSignatureAlgorithms, 2);
  const size_t extension = writer.Begin(2);
  const size_t list = writer.Begin(2);
  for (const uint16_t scheme : AcceptedSchemes()) {
    writer.Integer(scheme, 2);
  }
  writer.End(list, 2);
  writer.End(extension, 2);
  writer.End(extensions, 2);
  return writer.Finish();
}

std::vector<uint8_t> MakeCertificate(base::ByteSpan context, std::span<const x509::X509Ptr> chain) {
  Writer writer(HandshakeType::kCertificate);
  writer.Vector(context, 1);
  const size_t list = writer.Begin(3);
  for (const x509::X509Ptr& certificate : chain) {
    const std::string der = x509::CertificateToDer(certificate.get());
    writer.Vector(base::AsBytes(der), 3);
    writer.Integer(0, 2);  // no extensions
  }
  writer.End(list, 3);
  return writer.Finish();
}

std::vector<uint8_t> MakeCertificateVerify(uint16_t scheme, base::ByteSpan signature) {
  Writer writer(HandshakeType::kCertificateVerify);
  writer.Integer(scheme, 2);
  writer.Vector(signature, 2);
  return writer.Finish();
}

std::vector<uint8_t> MakeFinished(base::ByteSpan mac) {
  Writer writer(HandshakeType::kFinished);
  writer.Put(mac);
  return writer.Finish();
}

Parsed<CertificateRequest> ParseCertificateRequest(base::ByteSpan message) {
  constexpr const char* kMalformed = "a malformed CertificateRequest";
  WireReader body(BodyOf(message));
  const auto context = body.Vector(1);
  const auto extensions = body.Vector(2);
  if (!context.has_value() || !extensions.has_value() || !body.empty()) {
    return Refuse<CertificateRequest>(SSL_AD_DECODE_ERROR, kMalformed);
  }
  std::optional<base::ByteSpan> schemes;
  WireReader rest(*extensions);
  while (!rest.empty()) {
    const auto type = rest.Integer(2);
    const auto data = rest.Vector(2);
    if (!type.has_value() || !data.has_value()) {
      return Refuse<CertificateRequest>(SSL_AD_DECODE_ERROR, kMalformed);
    }
    if (*type != kSignatureAlgorithms) {
      continue;  // what the server says of its authorities and filters helps nobody with one leaf
    }
    WireReader field(*data);
    const auto list = field.Vector(2);
    if (schemes.has_value() || !list.has_value() || !field.empty() || list->empty() ||
        list->size() % 2 != 0) {
      return Refuse<CertificateRequest>(SSL_AD_DECODE_ERROR, kMalformed);
    }
    schemes = *list;
  }
  if (!schemes.has_value()) {
    return Refuse<CertificateRequest>(SSL_AD_MISSING_EXTENSION,
                                      "a CertificateRequest without signature_algorithms");
  }
  return {CertificateRequest{*context, *schemes}, {}};
}

Parsed<Certificate> ParseCertificate(base::ByteSpan message) {
  constexpr const char* kMalformed = "a malformed Certificate";
  WireReader body(BodyOf(message));
  const auto context = body.Vector(1);
  const auto list = body.Vector(3);
  if (!context.has_value() || !list.has_value() || !body.empty()) {
    return Refuse<Certificate>(SSL_AD_DECODE_ERROR, kMalformed);
  }
  Certificate certificate{*context, {}};
  WireReader entries(*list);
  while (!entries.empty()) {
    const auto der = entries.Vector(3);
    const auto extensions = entries.Vector(2);
    if (!der.has_value() || !extensions.has_value()) {
      return Refuse<Certificate>(SSL_AD_DECODE_ERROR, kMalformed);
    }
    if (!extensions->empty()) {
      return Refuse<Certificate>(SSL_AD_UNSUPPORTED_EXTENSION,
                                 "an extension in a Certificate that was not asked for");
    }
    if (certificate.chain.size() == kMaxCertificates) {
      return Refuse<Certificate>(SSL_AD_BAD_CERTIFICATE, "too many certificates");
    }
    absl::StatusOr<x509::X509Ptr> one = x509::CertificateFromDer(*der);
    if (!one.ok()) {
      return Refuse<Certificate>(SSL_AD_BAD_CERTIFICATE, "a certificate that does not parse");
    }
    certificate.chain.push_back(*std::move(one));
  }
  return {std::move(certificate), {}};
}

Parsed<CertificateVerify> ParseCertificateVerify(base::ByteSpan message) {
  WireReader body(BodyOf(message));
  const auto scheme = body.Integer(2);
  const auto signature = body.Vector(2);
  if (!scheme.has_value() || !signature.has_value() || !body.empty()) {
    return Refuse<CertificateVerify>(SSL_AD_DECODE_ERROR, "a malformed CertificateVerify");
  }
  return {CertificateVerify{static_cast<uint16_t>(*scheme), *signature}, {}};
}

}  // namespace postern::tls
