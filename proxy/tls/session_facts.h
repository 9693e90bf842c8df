// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/x509/chain_verifier.h"

namespace postern::tls {

// What a full handshake found out, for the handshakes that resume it: a server seals it into its
// tickets, as nobody presents a certificate again. A value.
struct SessionFacts {
  base::Sha256Digest binding{};  // of the state of trust that the judgement rests on
  absl::Time until;              // absolute: resuming does not move it
  x509::VerifiedPeer peer;
};

inline constexpr size_t kMaxSessionFacts = 4096;

// The facts as bytes: a version, then fields of fixed size and counted ones; times in seconds.
// nullopt when something is too long for its count. Pure.
std::optional<std::string> SerializeSessionFacts(const SessionFacts& facts);

// The reverse. nullopt: another version, cut short, trailing bytes, an identity that is no SPIFFE
// ID. Pure.
std::optional<SessionFacts> ParseSessionFacts(base::ByteSpan bytes);

}  // namespace postern::tls
