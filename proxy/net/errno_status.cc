// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/errno_status.h"

#include <cerrno>
#include <system_error>

#include "absl/strings/cord.h"
#include "absl/types/optional.h"
#include "common/base/strings.h"

namespace postern::net {

std::string ErrnoText(int error) {
  return std::generic_category().message(error);
}

bool IsExhaustion(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

namespace {

constexpr char kErrnoPayload[] = "postern/errno";

absl::StatusCode CodeOf(int error) {
  if (IsExhaustion(error) || error == EADDRNOTAVAIL) {
    return absl::StatusCode::kResourceExhausted;
  }
  if (error == EACCES || error == EPERM) {
    return absl::StatusCode::kPermissionDenied;
  }
  return absl::StatusCode::kUnavailable;
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view what) {
  absl::Status status(CodeOf(error), base::StrCat(what, ": ", ErrnoText(error)));
  status.SetPayload(kErrnoPayload, absl::Cord(base::StrCat(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrnoPayload);
  return payload.has_value() ? base::ParseNumber<int>(std::string(*payload)).value_or(0) : 0;
}

absl::Status Reworded(const absl::Status& status, absl::StatusCode code, std::string_view message) {
  absl::Status changed(code, base::ToAbsl(message));
  status.ForEachPayload([&changed](absl::string_view url, const absl::Cord& payload) {
    changed.SetPayload(url, payload);
  });
  return changed;
}

}  // namespace postern::net
