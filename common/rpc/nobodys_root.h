// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace postern::rpc {

// A root certificate, PEM, that has signed nothing and never will: its key is gone when this
// returns. For gRPC, which wants a list of roots also where it verifies nothing, and without one
// reads the system's: some hundred certificates, a megabyte of memory and milliseconds of every
// start. Made once for each process. Any thread. Internal when OpenSSL cannot make it.
absl::StatusOr<std::string> NobodysRoot();

}  // namespace postern::rpc
