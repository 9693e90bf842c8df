// SPDX-License-Identifier: Apache-2.0
// What a resumed session says of its peer, as it lies in a ticket.
#include "tests/fuzz/fuzz.h"

#include <string>

#include "proxy/tls/session_facts.h"

using postern::tls::ParseSessionFacts;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto facts = ParseSessionFacts({data, size});
  if (!facts.has_value()) {
    return 0;
  }
  POSTERN_FUZZ_CHECK(size <= postern::tls::kMaxSessionFacts);
  POSTERN_FUZZ_CHECK(!facts->peer.chain_sha256.empty());
  // There is one way to write it.
  const auto again = postern::tls::SerializeSessionFacts(*facts);
  POSTERN_FUZZ_CHECK(again.has_value());
  POSTERN_FUZZ_CHECK(*again == std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
