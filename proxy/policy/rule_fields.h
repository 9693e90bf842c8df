// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/spiffe_id.h"
#include "proxy/config/yaml_tree.h"
#include "proxy/policy/policy_document.h"

namespace postern::policy {

// Reading the fields of policy documents. Errors name FILE:LINE and the field. Pure.

absl::StatusOr<x509::SpiffeIdPattern> ReadPattern(const config::YamlField& field);

// One rule of an AuthorizationPolicy, with what bounds its size.
absl::StatusOr<Rule> ReadRule(const config::YamlField& field);

// Reads the list field `name` of `map` into `values` if it is there.
template <typename T, typename Read>
absl::Status ReadListInto(const config::YamlField& map, std::string_view name, Read read,
                          std::vector<T>& values) {
  const auto field = map.Find(name);
  if (!field) {
    return absl::OkStatus();
  }
  auto list = config::ReadList<T>(*field, read);
  if (!list.ok()) {
    return list.status();
  }
  values = *std::move(list);
  return absl::OkStatus();
}

}  // namespace postern::policy
