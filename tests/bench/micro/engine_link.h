// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "proxy/tls/tls_context.h"
#include "proxy/tls/tls_engine.h"

namespace postern::bench {

// What two workers hold: the identities of two workloads of one trust domain, and the contexts made
// of them. Copies share the identities. A value, one thread.
struct TlsMesh {
  // So many intermediates (0 or 1) stand between the root and both leaves.
  explicit TlsMesh(int intermediates);
  // New contexts, which have never seen a peer.
  void RenewContexts();

  std::shared_ptr<const x509::Svid> client_svid, server_svid;
  std::shared_ptr<const x509::TrustBundleSet> bundles;
  std::shared_ptr<const tls::TlsContext> client, server;
};

// Two connected engines without sockets between them: what one puts out is copied into the other's
// scratch, as recv would. Each has a scratch of its own, for in life they are two processes. Ends
// the program when an engine fails. One thread.
class EngineLink {
 public:
  explicit EngineLink(const TlsMesh& mesh);

  // The whole handshake, as often as the engines want bytes from each other.
  void Shake();

  // Carries `bytes` from one end to the other, decrypted again there; `from_client` says which way.
  void Carry(bool from_client, base::ByteSpan bytes);

  // The server asks the client to prove itself again, and has its answer.
  void Reauthenticate();

  // The processor's time that the engine of each end took in Shake, its making (and Free) included.
  std::chrono::nanoseconds client_time() const { return client_.spent; }
  std::chrono::nanoseconds server_time() const { return server_.spent; }
  std::chrono::nanoseconds whole_time() const { return client_.spent + server_.spent; }
  // Frees both engines; their time is counted too. Nothing else may be called afterwards.
  void Free();
  // What the client has to say first.
  std::vector<uint8_t> FirstFlight();

 private:
  struct End {
    std::unique_ptr<tls::EngineScratch> scratch;
    std::unique_ptr<tls::TlsEngine> engine;
    std::chrono::nanoseconds spent{0};
    bool open = false;
  };

  static void Step(End& end, base::ByteSpan fed);
  // One piece of output; empty when there is none. It lies in the receiver's scratch.
  static base::ByteSpan Move(End& from, End& to);
  size_t Decrypt(End& to, base::ByteSpan fed);

  End client_, server_;
  std::vector<uint8_t> plaintext_;
};

}  // namespace postern::bench
