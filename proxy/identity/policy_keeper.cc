// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/policy_keeper.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"

namespace postern::identity {
namespace {

// Compiling reads every document and keeps those of one workload, so any identity finds the faults.
x509::SpiffeId Nobody() {
  return x509::SpiffeId::Parse("spiffe://nobody.invalid/nobody").value();
}

}  // namespace

PolicyKeeper::PolicyKeeper(const base::Clock& clock, From from, std::string file, Publish publish)
    : from_(from),
      file_(std::move(file)),
      publish_(std::move(publish)),
      watched_(clock, from == From::kFile ? std::vector<std::string>{file_}
                                          : std::vector<std::string>{}) {}

absl::Status PolicyKeeper::LoadFirst() {
  if (from_ != From::kFile) {
    return absl::OkStatus();
  }
  last_result_ = ReadFile();
  return last_result_;
}

void PolicyKeeper::Start() {
  if (!loaded_) {
    publish_(policy::PolicySet::DenyAll());
  }
}

void PolicyKeeper::SetWorkload(const x509::SpiffeId& workload) {
  if (workload_ == workload) {
    return;
  }
  workload_ = workload;
  if (from_ == From::kSameTrustDomain) {
    Use(policy::PolicySet::SameTrustDomain(workload));
  } else if (has_documents_) {
    Note(Compile(documents_), from_ == From::kFile);
  }
}

absl::Status PolicyKeeper::SetDocuments(std::vector<policy::NamedYaml> documents,
                                        const Version& version) {
  if (from_ == From::kFile) {
    return absl::FailedPreconditionError("this proxy takes its policy from --policy");
  }
  const absl::Status compiled = Compile(documents);
  Note(compiled, /*is_file=*/false);
  if (compiled.ok()) {
    documents_ = std::move(documents);
    has_documents_ = true;
    version_ = version;
  }
  return compiled;
}

void PolicyKeeper::Poll() {
  if (from_ == From::kFile && watched_.Poll()) {
    Reload();
  }
}

void PolicyKeeper::Reload() {
  if (from_ == From::kFile) {
    Note(ReadFile(), /*is_file=*/true);
  }
}

absl::Status PolicyKeeper::ReadFile() {
  auto content = base::ReadFile(file_);
  if (!content.ok()) {
    last_content_.clear();
    return content.status();
  }
  if (has_documents_ && *content == last_content_) {
    return last_result_;  // nothing new
  }
  last_content_ = *content;
  std::vector<policy::NamedYaml> documents{{file_, *std::move(content)}};
  const absl::Status compiled = Compile(documents);
  if (compiled.ok()) {
    documents_ = std::move(documents);
    has_documents_ = true;
  }
  return compiled;
}

absl::Status PolicyKeeper::Compile(const std::vector<policy::NamedYaml>& documents) {
  auto set = policy::PolicySet::Compile(documents, workload_.value_or(Nobody()), revision_ + 1);
  if (set.ok() && workload_.has_value()) {
    Use(*std::move(set));
  }
  return set.status();
}

void PolicyKeeper::Use(std::shared_ptr<const policy::PolicySet> set) {
  ++revision_;
  loaded_ = true;
  publish_(std::move(set));
}

void PolicyKeeper::Note(const absl::Status& status, bool is_file) {
  if (!status.ok() && status != last_result_) {
    spdlog::error("the policy is refused, the last good one goes on: {}", base::Message(status));
    file_failures_ += is_file ? 1 : 0;
  }
  last_result_ = status;
}

void PolicyKeeper::Describe(IdentityStatus& status) const {
  status.policy_source = from_ == From::kFile     ? "file"
                         : from_ == From::kIssuer ? "issuer"
                                                  : "same-trust-domain";
  status.policy_loaded = loaded_;
  status.policy_version = version_;
  status.policy_revision = revision_;
  status.policy_error = std::string(base::Message(last_result_));
  status.reload_failures += file_failures_;
}

}  // namespace postern::identity
