// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/plaintext_bans.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/host_name.h"
#include "common/base/strings.h"

namespace postern::config {
namespace {

constexpr std::string_view kAll = "all";
constexpr std::string_view kBelow = "*.";

// What was meant for an address or a range: a name has neither of these, nor a number at its end.
bool IsMeantForRange(std::string_view text) {
  return text.find('/') != std::string_view::npos || text.find(':') != std::string_view::npos ||
         text.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace

absl::Status PlaintextBans::Add(std::string_view text) {
  if (text == kAll) {
    all_ = true;
    return absl::OkStatus();
  }
  const auto range = base::Cidr::Parse(text);
  if (range.ok()) {
    ranges_.push_back(*range);
    return absl::OkStatus();
  }
  if (!IsMeantForRange(text)) {
    return AddName(text);
  }
  return absl::InvalidArgumentError(base::StrCat(
      "'", base::Printable(text, 128), "' is no range of addresses such as 10.0.0.0/8 (",
      base::Message(range.status()), "), and neither 'all' nor a name, which is without a port"));
}

absl::Status PlaintextBans::AddName(std::string_view text) {
  const bool below = text.starts_with(kBelow);
  std::string name = base::CanonicalHostName(below ? text.substr(kBelow.size()) : text);
  // A host may be called "all", but not here: "ALL" would cover next to nothing.
  if (!base::IsHostName(name) || (!below && name == kAll)) {
    return absl::InvalidArgumentError(
        base::StrCat("'", base::Printable(text, 128),
                     "' is neither 'all', nor a range of addresses such as 10.0.0.0/8, nor a name "
                     "such as db.example.org or *.example.org"));
  }
  if ((below ? above_ : names_).insert(name).second) {
    shown_names_.push_back(base::StrCat(below ? kBelow : "", name));
  }
  return absl::OkStatus();
}

bool PlaintextBans::Covers(const base::IpAddress& destination) const {
  return all_ || std::ranges::any_of(
                     ranges_, [&](const base::Cidr& range) { return range.Contains(destination); });
}

bool PlaintextBans::CoversName(std::string_view name) const {
  if (all_ || shown_names_.empty()) {
    return all_;
  }
  const std::string canonical = base::CanonicalHostName(name);
  if (names_.contains(canonical)) {
    return true;
  }
  std::string_view above = canonical;
  for (size_t dot = above.find('.'); dot != std::string_view::npos; dot = above.find('.')) {
    above.remove_prefix(dot + 1);
    if (above_.contains(base::ToAbsl(above))) {
      return true;
    }
  }
  return false;
}

std::vector<std::string> PlaintextBans::Show() const {
  std::vector<std::string> shown;
  if (all_) {
    shown.emplace_back(kAll);
  }
  for (const base::Cidr& range : ranges_) {
    shown.push_back(range.ToString());
  }
  shown.insert(shown.end(), shown_names_.begin(), shown_names_.end());
  return shown;
}

}  // namespace postern::config
