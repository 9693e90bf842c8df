// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <sstream>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::config {
namespace {

constexpr std::string_view kApiVersion = "postern.dev/v1";

absl::Status FaultAt(std::string_view file_name, int line, std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat(file_name, ":", line, ": ", what));
}

// Builds the tree from the parser's events. Aliases are never expanded: an event is all they are.
// After the first fault it ignores what follows.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string_view file_name) : file_name_(file_name) {}

  const absl::Status& status() const { return status_; }
  YamlNode TakeRoot() { return std::exchange(root_, YamlNode()); }

  // yaml-cpp reports empty documents for ever where a ',' follows a closed root: no progress is a
  // fault.
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos == document_at_) {
      Fail(mark, "not valid YAML: unexpected text behind the end of a document");
    }
    document_at_ = mark.pos;
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Add(mark, anchor, "", MakeNode(YamlNode::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    Fail(mark, "aliases (*name) are not accepted; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Add(mark, anchor, tag, MakeNode(YamlNode::Kind::kScalar, value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    Open(mark, anchor, tag, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    Open(mark, anchor, tag, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  // A container being filled; in a map a key waits here for its value.
  struct Level {
    YamlNode node;
    std::optional<YamlMember> waiting;
    absl::flat_hash_set<std::string> keys;
  };

  static YamlNode MakeNode(YamlNode::Kind kind, std::string text = "") {
    YamlNode node;
    node.kind = kind;
    node.text = std::move(text);
    return node;
  }

  void Fail(const YAML::Mark& mark, std::string_view what) {
    if (status_.ok()) {
      status_ = FaultAt(file_name_, mark.line + 1, what);
    }
  }

  bool Accept(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag) {
    if (anchor != YAML::NullAnchor) {
      Fail(mark, "anchors (&name) are not accepted; write the value out");
    } else if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(mark, "tags (!name) are not accepted; leave it out");
    }
    return status_.ok();
  }

  void Open(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag,
            YamlNode::Kind kind) {
    if (Accept(mark, anchor, tag) && levels_.size() >= static_cast<size_t>(kMaxYamlDepth)) {
      Fail(mark, base::StrCat("nested deeper than ", kMaxYamlDepth, " levels"));
    }
    if (status_.ok()) {
      levels_.emplace_back().node = MakeNode(kind);
      levels_.back().node.line = mark.line + 1;
    }
  }

  void Close() {
    if (status_.ok()) {
      YamlNode done = std::move(levels_.back().node);
      levels_.pop_back();
      Attach(std::move(done));
    }
  }

  void Add(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag, YamlNode node) {
    if (Accept(mark, anchor, tag)) {
      node.line = mark.line + 1;
      Attach(std::move(node));
    }
  }

  void Attach(YamlNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::kSequence) {
      level.node.items.push_back(std::move(node));
    } else if (level.waiting) {
      level.waiting->value = std::move(node);
      level.node.members.push_back(*std::exchange(level.waiting, std::nullopt));
    } else if (node.kind != YamlNode::Kind::kScalar) {
      status_ = FaultAt(file_name_, node.line, "a field's name must be plain text");
    } else if (!level.keys.insert(node.text).second) {
      status_ = FaultAt(file_name_, node.line,
                        base::StrCat(base::Printable(node.text), ": stands twice in one map"));
    } else {
      level.waiting = YamlMember{std::move(node.text), node.line, YamlNode()};
    }
  }

  std::string_view file_name_;
  absl::Status status_;
  YamlNode root_;
  std::vector<Level> levels_;
  int document_at_ = -1;
};

absl::StatusOr<Document> ReadDocument(YamlNode root, std::string_view file_name) {
  Document document;
  document.root = std::move(root);
  document.file_name = std::string(file_name);
  const YamlField top(document.root, "", document.file_name);
  if (const absl::Status status = top.ExpectOnly({"apiVersion", "kind", "metadata", "spec"});
      !status.ok()) {
    return status;
  }
  const auto text_of = [](const YamlField& map, std::string_view name) {
    const auto field = map.Get(name);
    return field.ok() ? field->Text() : absl::StatusOr<std::string>(field.status());
  };
  const auto version = text_of(top, "apiVersion");
  if (!version.ok()) {
    return version.status();
  }
  if (*version != kApiVersion) {
    return top.Find("apiVersion")
        ->Fault(base::StrCat("is '", base::Printable(*version, 64), "', write ", kApiVersion));
  }
  auto kind = text_of(top, "kind");
  if (!kind.ok()) {
    return kind.status();
  }
  document.kind = *std::move(kind);
  const auto metadata = top.Get("metadata");
  if (!metadata.ok()) {
    return metadata.status();
  }
  if (const absl::Status status = metadata->ExpectOnly({"name"}); !status.ok()) {
    return status;
  }
  auto name = text_of(*metadata, "name");
  if (!name.ok()) {
    return name.status();
  }
  document.name = base::Printable(*name, 253);
  const auto spec = top.Get("spec");
  if (!spec.ok()) {
    return spec.status();
  }
  return document;
}

}  // namespace

absl::StatusOr<std::vector<YamlNode>> ParseYaml(std::string_view yaml, std::string_view file_name) {
  if (yaml.size() > kMaxYamlBytes) {
    return FaultAt(file_name, 1,
                   base::StrCat("larger than ", kMaxYamlBytes,
                                " bytes, the most that a file may hold: leave out what this "
                                "workload does not need"));
  }
  std::vector<YamlNode> documents;
  try {
    std::istringstream stream{std::string(yaml)};
    YAML::Parser parser(stream);
    TreeBuilder builder(file_name);
    while (parser.HandleNextDocument(builder)) {
      if (!builder.status().ok()) {
        return builder.status();
      }
      if (documents.size() >= kMaxYamlDocuments) {
        return FaultAt(file_name, 1,
                       base::StrCat("more than ", kMaxYamlDocuments,
                                    " documents, the most that a file may hold: put several rules "
                                    "into one document"));
      }
      documents.push_back(builder.TakeRoot());
    }
  } catch (const YAML::Exception& error) {
    return FaultAt(file_name, error.mark.is_null() ? 1 : error.mark.line + 1,
                   base::StrCat("not valid YAML: ", error.msg));
  } catch (const std::exception& error) {
    return FaultAt(file_name, 1, base::StrCat("not valid YAML: ", error.what()));
  }
  return documents;
}

absl::Status YamlField::Fault(std::string_view what) const {
  return FaultAt(file_name_, node_->line, path_.empty() ? what : base::StrCat(path_, ": ", what));
}

absl::Status YamlField::ExpectOnly(std::initializer_list<std::string_view> names) const {
  std::string known;
  for (const std::string_view name : names) {
    base::StrAppend(known, known.empty() ? "" : ", ", name);
  }
  if (node_->kind != YamlNode::Kind::kMap) {
    return Fault(base::StrCat("must be a map with the fields ", known));
  }
  for (const YamlMember& member : node_->members) {
    if (std::ranges::find(names, member.key) == names.end()) {
      return FaultAt(file_name_, member.line,
                     base::StrCat(path_, path_.empty() ? "" : ".", base::Printable(member.key, 64),
                                  ": unknown field; known here: ", known));
    }
  }
  return absl::OkStatus();
}

std::optional<YamlField> YamlField::Find(std::string_view name) const {
  const auto member = std::ranges::find(node_->members, name, &YamlMember::key);
  if (member == node_->members.end()) {
    return std::nullopt;
  }
  return YamlField(member->value, base::StrCat(path_, path_.empty() ? "" : ".", name), file_name_);
}

absl::StatusOr<YamlField> YamlField::Get(std::string_view name) const {
  if (node_->kind != YamlNode::Kind::kMap) {
    return Fault("must be a map");
  }
  std::optional<YamlField> field = Find(name);
  if (!field) {
    return FaultAt(
        file_name_, node_->line,
        base::StrCat(path_, path_.empty() ? "" : ".", name, ": missing; it is required"));
  }
  return *std::move(field);
}

absl::StatusOr<std::string> YamlField::Text() const {
  if (node_->kind != YamlNode::Kind::kScalar || node_->text.empty()) {
    return Fault("must be a text that is not empty");
  }
  return node_->text;
}

absl::StatusOr<uint16_t> YamlField::Port() const {
  const auto port = node_->kind == YamlNode::Kind::kScalar
                        ? base::ParseNumber<uint16_t>(node_->text)
                        : std::nullopt;
  if (!port || *port == 0) {
    return Fault(base::StrCat("'", base::Printable(node_->text, 64),
                              "' is no port; write a number from 1 to 65535"));
  }
  return *port;
}

absl::StatusOr<std::vector<YamlField>> YamlField::Items() const {
  if (node_->kind != YamlNode::Kind::kSequence) {
    return Fault("must be a list, as in [a, b]");
  }
  if (node_->items.empty()) {
    return Fault("is empty; leave the field out or name at least one");
  }
  std::vector<YamlField> items;
  items.reserve(node_->items.size());
  for (const YamlNode& item : node_->items) {
    items.emplace_back(item, base::StrCat(path_, "[", items.size(), "]"), file_name_);
  }
  return items;
}

absl::StatusOr<base::Cidr> ReadCidr(const YamlField& field) {
  const auto text = field.Text();
  if (!text.ok()) {
    return text.status();
  }
  auto range = base::Cidr::Parse(*text);
  return range.ok() ? std::move(range) : field.Fault(base::Message(range.status()));
}

YamlField Document::Spec() const {
  // ReadDocuments has checked that it is there.
  return *YamlField(root, "", file_name).Find("spec");
}

absl::StatusOr<std::vector<Document>> ReadDocuments(std::string_view yaml,
                                                    std::string_view file_name) {
  auto roots = ParseYaml(yaml, file_name);
  if (!roots.ok()) {
    return roots.status();
  }
  std::vector<Document> documents;
  for (YamlNode& root : *roots) {
    if (root.kind == YamlNode::Kind::kNull) {
      continue;  // "---" at the end of a file
    }
    auto document = ReadDocument(std::move(root), file_name);
    if (!document.ok()) {
      return document.status();
    }
    documents.push_back(*std::move(document));
  }
  if (documents.empty()) {
    return FaultAt(file_name, 1, "holds no document; was the file truncated?");
  }
  return documents;
}

}  // namespace postern::config
