// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "common/base/close_reason.h"

namespace postern::tls {

// Why what a peer sent ends the connection: what is said to the peer, and to whoever reads our log.
// A value.
struct RecordFault {
  uint8_t alert = 0;
  absl::StatusCode code = absl::StatusCode::kUnauthenticated;
  const char* text = "";  // static
  base::CloseReason reason = base::CloseReason::kHandshakeFailed;
};

}  // namespace postern::tls
