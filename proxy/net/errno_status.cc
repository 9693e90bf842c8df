// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/errno_status.h"

#include <cerrno>
#include <system_error>

#include "common/base/strings.h"

namespace postern::net {
namespace {

constexpr char kErrnoPayload[] = "postern/errno";

absl::Status MakeStatus(int error, const std::string& message) {
  if (IsExhaustion(error) || error == EADDRNOTAVAIL) {
    return absl::ResourceExhaustedError(message);
  }
  if (error == EACCES || error == EPERM) {
    return absl::PermissionDeniedError(message);
  }
  return absl::UnavailableError(message);
}

}  // namespace

std::string ErrnoText(int error) {
  return std::generic_category().message(error);
}

bool IsExhaustion(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  absl::Status status = MakeStatus(error, base::StrCat(what, ": ", ErrnoText(error)));
  status.SetPayload(kErrnoPayload, absl::Cord(std::to_string(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrnoPayload);
  return payload.has_value() ? base::ParseNumber<int>(std::string(*payload)).value_or(0) : 0;
}

void CarryErrno(const absl::Status& from, absl::Status& to) {
  if (const auto payload = from.GetPayload(kErrnoPayload); payload.has_value()) {
    to.SetPayload(kErrnoPayload, *payload);
  }
}

}  // namespace postern::net
