// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/bytes.h"
#include "proxy/tls/running_hash.h"

namespace postern::tls {

// The hash over the messages of a TLS 1.3 handshake, from ClientHello on (RFC 8446 section 4.4.1),
// of which an authentication inside the connection goes on. Fed with each whole message, sent and
// received, in their order. Owned by its engine until the handshake is done.
class HandshakeTranscript {
 public:
  void Add(base::ByteSpan message);

  // Whether the client's hello has the extension post_handshake_auth (section 4.2.6).
  bool client_offers() const { return client_offers_; }
  // Both sides' Finished are in it.
  bool complete() const { return finished_ == 2; }
  // RunningHash::Save of it; empty before the server's hello.
  std::vector<uint8_t> Save() const;

 private:
  void OnServerHello(base::ByteSpan message);

  std::vector<uint8_t> first_hello_;  // until the suite, and so the hash, is known
  std::optional<RunningHash> hash_;
  unsigned finished_ = 0;
  bool client_offers_ = false;
};

}  // namespace postern::tls
