// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/x509/chain_verifier.h"
#include "proxy/tls/handshake_messages.h"
#include "proxy/tls/record_layer.h"
#include "proxy/tls/running_hash.h"
#include "proxy/tls/tls_engine.h"

namespace postern::tls {

// Authentication of the client inside the connection (RFC 8446 section 4.6.2), in both roles: a
// server asks, and takes a certificate that proves the same identity for longer; a client answers
// with its newest one. Made when the client has offered it; owned by its engine, on whose records
// it works.
class Reauth final : public AuthMessages {
 public:
  // `transcript`: RunningHash::Save of the handshake up to the client's Finished.
  Reauth(TlsEngine::Impl& engine, std::vector<uint8_t> transcript);
  ~Reauth();
  Reauth(const Reauth&) = delete;
  Reauth& operator=(const Reauth&) = delete;

  // Server: appends a request to the engine's output. False: one is under way, or it cannot be
  // made.
  bool Ask();
  bool is_under_way() const { return exchange_ != nullptr; }

  std::optional<size_t> MostBytes(uint8_t type) const override;
  std::optional<RecordFault> Take(base::ByteSpan message) override;
  bool IsInside() const override;

 private:
  static constexpr size_t kContextBytes = 32;

  // A server's request, until its answer is complete.
  struct Exchange {
    explicit Exchange(base::ByteSpan transcript) : hash(RunningHash::Restore(transcript)) {}

    HandshakeType awaited = HandshakeType::kCertificate;
    std::array<uint8_t, kContextBytes> context{};
    RunningHash hash;
    x509::X509Ptr leaf;                      // that has been shown
    std::optional<x509::VerifiedPeer> news;  // what it proves beyond what is known; or nothing
  };

  std::optional<RecordFault> TakeAnswer(base::ByteSpan message);
  std::optional<RecordFault> OnCertificate(base::ByteSpan message);
  std::optional<RecordFault> Judge(const Certificate& shown);
  std::optional<RecordFault> OnVerify(base::ByteSpan message);
  std::optional<RecordFault> OnFinished(base::ByteSpan message);
  std::optional<RecordFault> Answer(base::ByteSpan message);
  std::optional<std::vector<uint8_t>> MakeAnswer(const CertificateRequest& request,
                                                 RunningHash& hash) const;

  TlsEngine::Impl& engine_;
  std::vector<uint8_t> transcript_;
  std::unique_ptr<Exchange> exchange_;
  RequestBudget budget_;  // client
};

}  // namespace postern::tls
