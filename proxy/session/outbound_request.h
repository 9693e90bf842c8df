// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proxy/request/request_reader.h"
#include "proxy/session/endpoint_health.h"

namespace postern::session {

// What a client of an outbound proxy port has said, and what was found out about the name that it
// asked for. Owned by its OutboundSession, which has none for other listeners.
struct OutboundRequest {
  request::RequestReader reader;
  std::string refusal;  // of what was no request that is served
  enum class Said : uint8_t { kNothing, kAnswer } said = Said::kNothing;  // to the client, at last
  std::vector<Candidate> addresses;  // of the name; those of the mesh have a record
  size_t classified = 0;             // of these
  absl::Status fault;                // why one of them may not be spoken to in plaintext
  enum class Lookup : uint8_t { kInside, kAwaited } lookup = Lookup::kInside;
};

}  // namespace postern::session
