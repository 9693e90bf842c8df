// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "common/base/ip.h"

namespace postern::config {

// What --require-mtls says: the destinations that this workload reaches over mTLS or not at all. A
// value; filled by the reading of the flags.
class PlaintextBans {
 public:
  // "all", "10.0.0.0/8", "2001:db8::/32" or one address; "db.example.org", or "*.example.org" for
  // every name below that one, however deep. InvalidArgument otherwise.
  absl::Status Add(std::string_view text);

  bool Covers(const base::IpAddress& destination) const;
  // By the name that was asked for, in any case and with or without its final dot. What the name
  // stands for is covered by its addresses as well.
  bool CoversName(std::string_view name) const;

  std::vector<std::string> Show() const;  // as it could be given again

 private:
  absl::Status AddName(std::string_view text);

  bool all_ = false;
  std::vector<base::Cidr> ranges_;
  absl::flat_hash_set<std::string> names_;  // in their one spelling
  absl::flat_hash_set<std::string> above_;  // "example.org" of "*.example.org"
  std::vector<std::string> shown_names_;    // both kinds, in the order of the flags
};

}  // namespace postern::config
