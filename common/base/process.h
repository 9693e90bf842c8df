// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace postern::base {

// What every program of ours does first, before threads and secrets: no core dump, not dumpable (no
// ptrace by the same user, /proc/self unreadable), SIGPIPE ignored, umask 077, the file descriptor
// limit raised to its hard limit. Internal when the kernel refuses one of the first two.
absl::Status HardenProcess();

// Tells systemd (sd_notify protocol): "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=...". Does
// nothing without NOTIFY_SOCKET. Any thread.
void NotifyServiceManager(std::string_view state);

}  // namespace postern::base
