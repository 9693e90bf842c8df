// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ip.h"

namespace postern::config {

// What --require-mtls says: the destinations that this workload reaches over mTLS or not at all. A
// value; filled by the reading of the flags.
class PlaintextBans {
 public:
  // "all", "10.0.0.0/8", "2001:db8::/32" or one address. InvalidArgument otherwise.
  absl::Status Add(std::string_view text);

  bool Covers(const base::IpAddress& destination) const;
  // Whether a name that was asked for is covered, where one is seen. Without names in the list that
  // is "all" alone; what the name stands for is covered by its addresses.
  bool CoversEveryName() const { return all_; }

  std::vector<std::string> Show() const;  // as it could be given again

 private:
  bool all_ = false;
  std::vector<base::Cidr> ranges_;
};

}  // namespace postern::config
