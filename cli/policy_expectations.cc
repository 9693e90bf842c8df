// SPDX-License-Identifier: Apache-2.0
#include "cli/policy_expectations.h"

#include <filesystem>
#include <optional>
#include <utility>

#include "cli/policy_book.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "proxy/config/yaml_tree.h"

namespace postern::cli {
namespace {

using config::YamlField;

struct Expectation {
  PolicyQuestion question;
  std::string expect;  // allow, audit or deny
  std::string rule;    // that must decide; empty: any
  std::string place;   // FILE:LINE
};

struct ExpectationFile {
  std::vector<std::string> policies;
  std::vector<Expectation> expectations;
};

absl::StatusOr<std::string> TextOf(const YamlField& item, std::string_view name) {
  const auto field = item.Get(name);
  return field.ok() ? field->Text() : field.status();
}

// Fills `target` in if the field is there.
absl::Status TextIfThere(const YamlField& item, std::string_view name, std::string& target) {
  const auto field = item.Find(name);
  if (!field) {
    return absl::OkStatus();
  }
  auto text = field->Text();
  if (text.ok()) {
    target = *std::move(text);
  }
  return text.status();
}

absl::Status ReadMode(const YamlField& item, PolicyQuestion& question) {
  const auto field = item.Find("mode");
  if (!field) {
    return absl::OkStatus();
  }
  const auto text = field->Text();
  if (!text.ok()) {
    return text.status();
  }
  const auto mode = config::ParsePeerMode(*text);
  if (!mode.ok()) {
    return field->Fault(base::Message(mode.status()));
  }
  question.peer_mode = *mode;
  return absl::OkStatus();
}

absl::StatusOr<Expectation> ReadExpectation(const YamlField& item) {
  absl::Status status =
      item.ExpectOnly({"from", "to", "sourceIp", "tunnel", "mode", "expect", "rule"});
  if (!status.ok()) {
    return status;
  }
  Expectation made;
  made.place = base::StrCat(item.file_name(), ":", item.node().line);
  for (const auto& [name, target] :
       {std::pair("from", &made.question.from), std::pair("to", &made.question.to),
        std::pair("expect", &made.expect)}) {
    auto text = TextOf(item, name);
    if (!text.ok()) {
      return text.status();
    }
    *target = *std::move(text);
  }
  if (made.expect != "allow" && made.expect != "audit" && made.expect != "deny") {
    return item.Find("expect")->Fault(
        base::StrCat("'", base::Printable(made.expect, 64), "' is not one of: allow, audit, deny"));
  }
  for (const auto& [name, target] :
       {std::pair("sourceIp", &made.question.source_ip), std::pair("tunnel", &made.question.tunnel),
        std::pair("rule", &made.rule)}) {
    if (status = TextIfThere(item, name, *target); !status.ok()) {
      return status;
    }
  }
  if (status = ReadMode(item, made.question); !status.ok()) {
    return status;
  }
  return made;
}

absl::Status ReadTest(const config::Document& document, const std::string& file,
                      ExpectationFile& into) {
  if (document.kind != "PolicyTest") {
    return YamlField(document.root, "", document.file_name)
        .Find("kind")
        ->Fault(base::StrCat("is '", base::Printable(document.kind, 64),
                             "'; expectations stand in documents of kind PolicyTest"));
  }
  const YamlField spec = document.Spec();
  if (absl::Status status = spec.ExpectOnly({"policies", "expectations"}); !status.ok()) {
    return status;
  }
  if (const auto policies = spec.Find("policies")) {
    auto names =
        config::ReadList<std::string>(*policies, [](const YamlField& name) { return name.Text(); });
    if (!names.ok()) {
      return names.status();
    }
    for (const std::string& name : *names) {
      // An absolute one stays as it is.
      into.policies.push_back((std::filesystem::path(file).parent_path() / name).string());
    }
  }
  const auto field = spec.Get("expectations");
  if (!field.ok()) {
    return field.status();
  }
  auto expectations = config::ReadList<Expectation>(*field, ReadExpectation);
  if (!expectations.ok()) {
    return expectations.status();
  }
  for (Expectation& expectation : *expectations) {
    into.expectations.push_back(std::move(expectation));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExpectationFile> ReadExpectationFile(const std::string& file) {
  absl::StatusOr<std::string> yaml = base::ReadFile(file);
  if (!yaml.ok()) {
    return absl::InvalidArgumentError(yaml.status().message());
  }
  const auto documents = config::ReadDocuments(*yaml, file);
  if (!documents.ok()) {
    return documents.status();
  }
  ExpectationFile made;
  for (const config::Document& document : *documents) {
    if (absl::Status status = ReadTest(document, file, made); !status.ok()) {
      return status;
    }
  }
  return made;
}

// "denied by no-web / rule 1 (policy.yaml:9)"
std::string Told(const PolicyBook& book, std::string_view verdict, const std::string& rule) {
  const std::string place = book.PlaceOf(rule);
  return base::StrCat(verdict, " by ", rule, place.empty() ? "" : " (", place,
                      place.empty() ? "" : ")");
}

// What is wrong with the answer; empty: it is as expected.
std::string Mismatch(const PolicyBook& book, const Expectation& wanted,
                     const policy::Decision& got) {
  const std::string_view verdict = !got.allowed ? "deny" : !got.audit.empty() ? "audit" : "allow";
  const std::string& rule = verdict == "audit" ? got.audit : got.rule;
  const std::string told = Told(book,
                                verdict == "deny"    ? "denied"
                                : verdict == "audit" ? "let in, though it would be refused"
                                                     : "allowed",
                                rule);
  if (verdict != wanted.expect) {
    return base::StrCat("expected ", wanted.expect, ", but it is ", told);
  }
  if (!wanted.rule.empty() && wanted.rule != rule) {
    return base::StrCat("expected ", wanted.rule, " to decide, but it is ", told);
  }
  return "";
}

struct Count {
  size_t all = 0, failed = 0;
};

absl::Status TestFile(const std::string& file, const std::vector<std::string>& policy_files,
                      Count& count, Context& context) {
  const absl::StatusOr<ExpectationFile> expected = ReadExpectationFile(file);
  if (!expected.ok()) {
    return expected.status();
  }
  std::vector<std::string> policies = policy_files;
  policies.insert(policies.end(), expected->policies.begin(), expected->policies.end());
  absl::StatusOr<PolicyBook> book = PolicyBook::Read(policies);
  if (!book.ok()) {
    return book.status();
  }
  for (const Expectation& wanted : expected->expectations) {
    const absl::StatusOr<PolicyAnswer> answer = book->Answer(wanted.question);
    if (!answer.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat(wanted.place, ": ", base::Message(answer.status())));
    }
    ++count.all;
    const std::string mismatch = Mismatch(*book, wanted, answer->decision);
    if (!mismatch.empty()) {
      ++count.failed;
      context.out << wanted.place << ": " << wanted.question.from << " to " << wanted.question.to
                  << ": " << mismatch << "\n";
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TestPolicy(const std::vector<std::string>& expectation_files,
                        const std::vector<std::string>& policy_files, Context& context) {
  Count count;
  for (const std::string& file : expectation_files) {
    if (absl::Status status = TestFile(file, policy_files, count, context); !status.ok()) {
      return status;
    }
  }
  context.err << "postern: " << count.all << " expectations, " << count.failed << " failed\n";
  return count.failed == 0 ? absl::OkStatus() : AlreadySaid();
}

}  // namespace postern::cli
