// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/errno_status.h"

#include <cerrno>
#include <system_error>

#include "common/base/strings.h"

namespace postern::net {

std::string ErrnoText(int error) {
  return std::generic_category().message(error);
}

bool IsExhaustion(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  const std::string message = base::StrCat(what, ": ", ErrnoText(error));
  if (IsExhaustion(error) || error == EADDRNOTAVAIL) {
    return absl::ResourceExhaustedError(message);
  }
  if (error == EACCES || error == EPERM) {
    return absl::PermissionDeniedError(message);
  }
  return absl::UnavailableError(message);
}

}  // namespace postern::net
