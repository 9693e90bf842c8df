// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"

namespace postern::config {

struct YamlMember;

// One node of a YAML document, with the line it stands on. A value that owns all below it.
struct YamlNode {
  enum class Kind : uint8_t { kNull, kScalar, kSequence, kMap };

  Kind kind = Kind::kNull;
  int line = 0;
  std::string text;                 // of a scalar
  std::vector<YamlNode> items;      // of a sequence
  std::vector<YamlMember> members;  // of a map, in the order of the file, keys unique
};

struct YamlMember {
  std::string key;
  int line = 0;
  YamlNode value;
};

inline constexpr size_t kMaxYamlBytes = 1U << 20U;
inline constexpr int kMaxYamlDepth = 32;
inline constexpr size_t kMaxYamlDocuments = 10'000;

// Reads the documents of a YAML text (JSON is YAML too). InvalidArgument "FILE:LINE: what": no
// YAML, larger than kMaxYamlBytes, deeper than kMaxYamlDepth, more documents than
// kMaxYamlDocuments, an anchor or alias, a tag, a key twice in one map. Pure; never throws.
absl::StatusOr<std::vector<YamlNode>> ParseYaml(std::string_view yaml, std::string_view file_name);

// A node together with its place, so that every fault names FILE:LINE and the field. A view: the
// node outlives it. Errors are InvalidArgument.
class YamlField {
 public:
  YamlField(const YamlNode& node, std::string path, std::string_view file_name)
      : node_(&node), path_(std::move(path)), file_name_(file_name) {}

  // "FILE:LINE: field: what".
  absl::Status Fault(std::string_view what) const;

  // That this is a map and holds no other field than these.
  absl::Status ExpectOnly(std::initializer_list<std::string_view> names) const;
  std::optional<YamlField> Find(std::string_view name) const;
  absl::StatusOr<YamlField> Get(std::string_view name) const;  // a missing one is a fault

  absl::StatusOr<std::string> Text() const;  // a scalar that is not empty
  absl::StatusOr<uint16_t> Port() const;     // 1 to 65535
  // A sequence that is not empty.
  absl::StatusOr<std::vector<YamlField>> Items() const;
  const YamlNode& node() const { return *node_; }
  const std::string& path() const { return path_; }
  std::string_view file_name() const { return file_name_; }

 private:
  const YamlNode* node_;
  std::string path_;
  std::string_view file_name_;
};

// Each item of a list, read with `read` (YamlField -> StatusOr<T>); the first fault ends it.
template <typename T, typename Read>
absl::StatusOr<std::vector<T>> ReadList(const YamlField& list, Read read) {
  const absl::StatusOr<std::vector<YamlField>> items = list.Items();
  if (!items.ok()) {
    return items.status();
  }
  std::vector<T> values;
  for (const YamlField& item : *items) {
    absl::StatusOr<T> value = read(item);
    if (!value.ok()) {
      return value.status();
    }
    values.push_back(*std::move(value));
  }
  return values;
}

// "10.0.0.0/8" or one address.
absl::StatusOr<base::Cidr> ReadCidr(const YamlField& field);

// One document in the envelope that all of Postern's have: apiVersion, kind, metadata.name, spec.
struct Document {
  YamlNode root;
  std::string file_name;
  std::string kind;
  std::string name;

  YamlField Spec() const;
};

// The documents of a file, envelope checked, `spec` not. InvalidArgument as ParseYaml; also for a
// text without any document, as that is rather a truncated file than a wish.
absl::StatusOr<std::vector<Document>> ReadDocuments(std::string_view yaml,
                                                    std::string_view file_name);

}  // namespace postern::config
