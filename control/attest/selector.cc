// SPDX-License-Identifier: Apache-2.0
#include "control/attest/selector.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/member_key.h"

namespace postern::attest {
namespace {

constexpr std::string_view kJoinToken = "join-token:";
constexpr std::string_view kUnixUid = "unix:uid:";
constexpr std::string_view kUnixGid = "unix:gid:";
constexpr std::string_view kUnixPath = "unix:path:";

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(base::StrCat("selector \"", base::Printable(text), "\" ", why));
}

// uid_t and gid_t are 32 bits; the last value means "none" to the kernel.
absl::StatusOr<uint32_t> ParseId(std::string_view selector, std::string_view digits) {
  uint32_t id = 0;
  const bool only_digits = !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  if (!only_digits || !absl::SimpleAtoi(base::ToAbsl(digits), &id) || id == UINT32_MAX) {
    return Bad(selector, "needs a number from 0 to 4294967294 at its end");
  }
  return id;
}

bool HasControlBytes(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

std::string JoinTokenSelector(std::string_view token_id) {
  return base::StrCat(kJoinToken, token_id);
}
std::string UnixUidSelector(uid_t uid) {
  return base::StrCat(kUnixUid, uid);
}
std::string UnixGidSelector(gid_t gid) {
  return base::StrCat(kUnixGid, gid);
}
std::string UnixPathSelector(std::string_view path) {
  return base::StrCat(kUnixPath, path);
}

absl::StatusOr<std::string> ParseSelector(std::string_view text) {
  if (text.size() > kMaxSelectorBytes) {
    return Bad(text.substr(0, 64), "is too long");
  }
  if (HasControlBytes(text)) {
    return Bad(text, "holds a control character");
  }
  if (text.starts_with(kJoinToken)) {
    if (text.size() == kJoinToken.size()) {
      return Bad(text, "names no token");
    }
    return std::string(text);
  }
  if (text.starts_with(kUnixUid)) {
    const absl::StatusOr<uint32_t> uid = ParseId(text, text.substr(kUnixUid.size()));
    return uid.ok() ? absl::StatusOr<std::string>(UnixUidSelector(*uid)) : uid.status();
  }
  if (text.starts_with(kUnixGid)) {
    const absl::StatusOr<uint32_t> gid = ParseId(text, text.substr(kUnixGid.size()));
    return gid.ok() ? absl::StatusOr<std::string>(UnixGidSelector(*gid)) : gid.status();
  }
  if (text.starts_with(kUnixPath)) {
    if (text.size() <= kUnixPath.size() + 1 || text[kUnixPath.size()] != '/') {
      return Bad(text, "needs an absolute path");
    }
    return std::string(text);
  }
  if (text.starts_with(x509::kMemberKeySelector)) {
    const auto digest = base::FromHex(text.substr(x509::kMemberKeySelector.size()));
    if (!digest.ok() || digest->size() != sizeof(base::Sha256Digest)) {
      return Bad(text, "needs the 64 hexadecimal digits of a SHA-256 at its end");
    }
    return base::StrCat(x509::kMemberKeySelector, base::ToHex(base::AsBytes(*digest)));
  }
  return Bad(text, "is of no known kind (unix:uid:N, unix:gid:N, unix:path:/PATH, key:sha256:HEX)");
}

}  // namespace postern::attest
