// SPDX-License-Identifier: Apache-2.0
#include "control/service/connection_ledger.h"

#include <algorithm>
#include <array>
#include <vector>

namespace postern::service {
namespace {

constexpr size_t kPrefixBytes = 8;  // a host has a whole IPv6 /64 to itself

base::IpAddress SourceOf(const base::IpAddress& ip) {
  if (ip.is_v4()) {
    return ip;
  }
  std::array<uint8_t, 16> prefix{};
  std::copy_n(ip.bytes().begin(), kPrefixBytes, prefix.begin());
  return *base::IpAddress::FromBytes(prefix);
}

}  // namespace

ConnectionLedger::Verdict ConnectionLedger::Admit(int fd, ino_t inode,
                                                  const base::IpAddress& source) {
  Forget(fd);  // the number is given again: what had it has ended
  if (connections_.size() >= limits_.total) {
    return Verdict::kTooMany;
  }
  const base::IpAddress key = SourceOf(source);
  const auto found = of_source_.find(key);
  if (found != of_source_.end() && found->second >= limits_.per_source) {
    return Verdict::kTooManyOfSource;
  }
  ++of_source_[key];
  connections_.insert_or_assign(fd, Connection{inode, key});
  return Verdict::kAdmitted;
}

void ConnectionLedger::Sweep() {
  std::vector<int> ended;
  for (const auto& [fd, connection] : connections_) {
    if (!is_open_(fd, connection.inode)) {
      ended.push_back(fd);
    }
  }
  for (const int fd : ended) {
    Forget(fd);
  }
}

void ConnectionLedger::Forget(int fd) {
  const auto known = connections_.find(fd);
  if (known == connections_.end()) {
    return;
  }
  const auto source = of_source_.find(known->second.source);
  if (--source->second == 0) {
    of_source_.erase(source);
  }
  connections_.erase(known);
}

}  // namespace postern::service
