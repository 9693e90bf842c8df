// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

namespace postern::process {

// Takes CAP_NET_ADMIN and CAP_NET_RAW from the calling thread, for good, and so from the threads
// that it starts from now on: those that have been started keep theirs. OK also where it has none.
absl::Status DropNetworkCapabilities();

}  // namespace postern::process
