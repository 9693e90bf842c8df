// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/capabilities.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace postern::process {
namespace {

// Both are in the first of the two words.
constexpr uint32_t kNetwork = 1U << CAP_NET_ADMIN | 1U << CAP_NET_RAW;

}  // namespace

absl::Status DropNetworkCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (syscall(SYS_capget, &header, sets.data()) != 0) {
    return absl::ErrnoToStatus(errno, "capget");
  }
  sets[0].effective &= ~kNetwork;
  sets[0].permitted &= ~kNetwork;
  sets[0].inheritable &= ~kNetwork;  // and with it what is ambient
  if (syscall(SYS_capset, &header, sets.data()) != 0) {
    return absl::ErrnoToStatus(errno, "capset");
  }
  return absl::OkStatus();
}

}  // namespace postern::process
