// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/plaintext_bans.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::config {

absl::Status PlaintextBans::Add(std::string_view text) {
  if (text == "all") {
    all_ = true;
    return absl::OkStatus();
  }
  const auto range = base::Cidr::Parse(text);
  if (!range.ok()) {
    return absl::InvalidArgumentError(base::StrCat("'", base::Printable(text, 128),
                                                   "' is neither 'all' nor a range of addresses "
                                                   "such as 10.0.0.0/8 (",
                                                   base::Message(range.status()), ")"));
  }
  ranges_.push_back(*range);
  return absl::OkStatus();
}

bool PlaintextBans::Covers(const base::IpAddress& destination) const {
  return all_ || std::ranges::any_of(
                     ranges_, [&](const base::Cidr& range) { return range.Contains(destination); });
}

std::vector<std::string> PlaintextBans::Show() const {
  std::vector<std::string> shown;
  if (all_) {
    shown.emplace_back("all");
  }
  for (const base::Cidr& range : ranges_) {
    shown.push_back(range.ToString());
  }
  return shown;
}

}  // namespace postern::config
