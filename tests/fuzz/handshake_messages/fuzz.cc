// SPDX-License-Identifier: Apache-2.0
// Handshake messages of a peer, one behind the other: read as each kind of message, and taken into
// a transcript. What is read can be written again to the same end.
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <vector>

#include "common/base/bytes.h"
#include "proxy/tls/handshake_messages.h"
#include "proxy/tls/handshake_transcript.h"
#include "proxy/tls/running_hash.h"

using postern::base::ByteSpan;

namespace {

void CheckFault(const postern::tls::RecordFault& fault) {
  POSTERN_FUZZ_CHECK(fault.alert != 0 && fault.text[0] != '\0');
}

void Read(ByteSpan message) {
  const auto request = postern::tls::ParseCertificateRequest(message);
  if (request.message.has_value()) {
    POSTERN_FUZZ_CHECK(!request.message->schemes.empty());
    POSTERN_FUZZ_CHECK(request.message->schemes.size() % 2 == 0);
  } else {
    CheckFault(request.fault);
  }
  const auto certificate = postern::tls::ParseCertificate(message);
  if (certificate.message.has_value()) {
    POSTERN_FUZZ_CHECK(certificate.message->chain.size() <= postern::tls::kMaxCertificates);
    const auto again = postern::tls::ParseCertificate(
        postern::tls::MakeCertificate(certificate.message->context, certificate.message->chain));
    POSTERN_FUZZ_CHECK(again.message.has_value());
    POSTERN_FUZZ_CHECK(again.message->chain.size() == certificate.message->chain.size());
  } else {
    CheckFault(certificate.fault);
  }
  const auto verify = postern::tls::ParseCertificateVerify(message);
  if (verify.message.has_value()) {
    const std::vector<uint8_t> again =
        postern::tls::MakeCertificateVerify(verify.message->scheme, verify.message->signature);
    POSTERN_FUZZ_CHECK(
        std::equal(again.begin() + 4, again.end(), message.begin() + 4, message.end()));
  } else {
    CheckFault(verify.fault);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteSpan rest(data, size);
  postern::tls::HandshakeTranscript transcript;
  while (!rest.empty()) {
    size_t length = rest.size();
    if (length >= 4) {
      const size_t body =
          static_cast<size_t>(rest[1]) << 16U | static_cast<size_t>(rest[2]) << 8U | rest[3];
      length = std::min(length, 4 + body);
    }
    const std::vector<uint8_t> message(rest.begin(),
                                       rest.begin() + static_cast<std::ptrdiff_t>(length));
    Read(message);
    transcript.Add(message);
    rest = rest.subspan(length);
  }
  const std::vector<uint8_t> saved = transcript.Save();
  if (!saved.empty()) {
    POSTERN_FUZZ_CHECK(postern::tls::RunningHash::Restore(saved).Save() == saved);
  }
  return 0;
}
