// SPDX-License-Identifier: Apache-2.0
#include "cli/run/notifier.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace postern::run {
namespace {

size_t NotificationBytes() {
  seccomp_notif_sizes sizes{};
  const bool known = syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0;
  return std::max(known ? size_t{sizes.seccomp_notif} : 0, sizeof(seccomp_notif));
}

}  // namespace

Notifier::Notifier(base::UniqueFd fd) : fd_(std::move(fd)), buffer_(NotificationBytes()) {}

std::optional<Call> Notifier::Receive() {
  std::fill(buffer_.begin(), buffer_.end(), std::byte{0});  // the kernel insists
  if (ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, buffer_.data()) != 0) {
    return std::nullopt;
  }
  seccomp_notif notification{};
  std::memcpy(&notification, buffer_.data(), sizeof(notification));
  Call call;
  call.id = notification.id;
  call.thread = static_cast<pid_t>(notification.pid);
  call.number = notification.data.nr;
  std::copy(std::begin(notification.data.args), std::end(notification.data.args),
            call.arguments.begin());
  return call;
}

bool Notifier::IsWaiting(uint64_t id) const {
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

bool Notifier::Answer(uint64_t id, int error) const {
  seccomp_notif_resp answer{};
  answer.id = id;
  answer.error = -error;
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer) == 0;
}

void Notifier::Pass(uint64_t id) const {
  seccomp_notif_resp answer{};
  answer.id = id;
  answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  // It fails only where nobody waits any more.
  static_cast<void>(ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer));
}

}  // namespace postern::run
