// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/config/proxy_config.h"

namespace postern::config {
namespace {

template <typename Enum>
struct Word {
  Enum value;
  std::string_view text;
};

constexpr auto kPeerModes = std::to_array<Word<PeerMode>>({
    {PeerMode::kStrict, "strict"},
    {PeerMode::kPermissive, "permissive"},
    {PeerMode::kDisabled, "disabled"},
    {PeerMode::kOpaque, "opaque"},
    {PeerMode::kSkip, "skip"},
});
constexpr auto kInterceptModes = std::to_array<Word<InterceptMode>>({
    {InterceptMode::kRedirect, "redirect"},
    {InterceptMode::kTproxy, "tproxy"},
    {InterceptMode::kNone, "none"},
});
constexpr auto kOutboundDefaults = std::to_array<Word<OutboundDefault>>({
    {OutboundDefault::kPassthrough, "passthrough"},
    {OutboundDefault::kDeny, "deny"},
});

constexpr auto kOnPeerExpiries = std::to_array<Word<OnPeerExpiry>>({
    {OnPeerExpiry::kAuto, "auto"},
    {OnPeerExpiry::kAllow, "allow"},
    {OnPeerExpiry::kClose, "close"},
});

constexpr auto kApplicationTls = std::to_array<Word<ApplicationTls>>({
    {ApplicationTls::kWrap, "wrap"},
    {ApplicationTls::kPass, "pass"},
});

template <typename Words, typename Enum>
constexpr std::string_view TextOf(const Words& words, Enum value) {
  for (const auto& word : words) {
    if (word.value == value) {
      return word.text;
    }
  }
  return "";
}

template <typename Enum, typename Words>
absl::StatusOr<Enum> Parse(const Words& words, std::string_view text) {
  std::string known;
  for (const auto& word : words) {
    if (word.text == text) {
      return word.value;
    }
    base::StrAppend(known, known.empty() ? "" : ", ", word.text);
  }
  return absl::InvalidArgumentError(
      base::StrCat("'", base::Printable(text, 64), "' is not one of: ", known));
}

}  // namespace

std::string_view Token(PeerMode mode) noexcept {
  return TextOf(kPeerModes, mode);
}
std::string_view Token(InterceptMode mode) noexcept {
  return TextOf(kInterceptModes, mode);
}
std::string_view Token(OutboundDefault value) noexcept {
  return TextOf(kOutboundDefaults, value);
}
std::string_view Token(OnPeerExpiry value) noexcept {
  return TextOf(kOnPeerExpiries, value);
}
std::string_view Token(ApplicationTls value) noexcept {
  return TextOf(kApplicationTls, value);
}

absl::StatusOr<PeerMode> ParsePeerMode(std::string_view text) {
  return Parse<PeerMode>(kPeerModes, text);
}
absl::StatusOr<InterceptMode> ParseInterceptMode(std::string_view text) {
  return Parse<InterceptMode>(kInterceptModes, text);
}
absl::StatusOr<OutboundDefault> ParseOutboundDefault(std::string_view text) {
  return Parse<OutboundDefault>(kOutboundDefaults, text);
}
absl::StatusOr<OnPeerExpiry> ParseOnPeerExpiry(std::string_view text) {
  return Parse<OnPeerExpiry>(kOnPeerExpiries, text);
}

absl::StatusOr<ApplicationTls> ParseApplicationTls(std::string_view text) {
  return Parse<ApplicationTls>(kApplicationTls, text);
}

}  // namespace postern::config
