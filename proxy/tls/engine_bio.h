// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"

namespace postern::tls {

// Where an engine's SSL reads and writes. Owned by the engine, which outlives its SSL.
class EngineIo {
 public:
  // Takes up to buffer.size() bytes that came from the peer; 0 when there are none now.
  virtual size_t TakeInput(base::MutableByteSpan buffer) noexcept = 0;
  // Takes all of `bytes` for the peer.
  virtual void PutOutput(base::ByteSpan bytes) noexcept = 0;

 protected:
  ~EngineIo() = default;
};

// A BIO that asks `io`; null when OpenSSL is out of memory.
x509::BioPtr NewEngineBio(EngineIo& io);

}  // namespace postern::tls
