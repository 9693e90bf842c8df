// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace postern::tls {

// The groups of the key exchange, and for which of them a client makes its one key share: the first
// (X25519MLKEM768 where the library has it), or the one that this destination took last time. A
// share that the peer does not take costs its arithmetic; a missing one costs a second round
// (HelloRetryRequest), once. What is remembered shortens the way to a peer's choice and never makes
// it: all groups are named in the same order, and a server of ours insists on the first one where
// both have it.
//
// Bounded, the destinations not used for longest leave in halves. Belongs to one TlsContext, whose
// thread it is confined to.
class KeyShares {
 public:
  static constexpr size_t kGeneration = 512;  // destinations; two generations are kept

  // Internal: OpenSSL refused every list.
  absl::Status Configure(SSL_CTX* ctx);
  // Before the client's hello. What OpenSSL refuses leaves the first group's share.
  void Offer(SSL* ssl, std::string_view destination);
  // After a handshake, which has proved that nobody changed what the peer took: `group` as
  // SSL_get_negotiated_group says it.
  void Learn(std::string_view destination, int group);

  size_t size() const { return young_.size() + old_.size(); }

 private:
  using Generation = absl::flat_hash_map<std::string, size_t>;  // places in the table of groups

  size_t First() const;
  size_t Find(std::string_view destination);
  void Remember(std::string_view destination, size_t place);

  enum class Library : uint8_t { kFirstIsShared, kMarksShares };  // before OpenSSL 3.5; since
  Library library_ = Library::kFirstIsShared;
  Generation young_, old_;
};

}  // namespace postern::tls
