// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "cli/policy_book.h"
#include "cli/policy_expectations.h"
#include "common/base/strings.h"
#include "common/x509/spiffe_id.h"
#include "proxy/policy/policy_set.h"

namespace postern::cli {
namespace {

using policy::NamedYaml;
using policy::PolicySet;

// Says what the proxies would say, before any of them has to. No workload is special to the
// grammar.
absl::Status CheckGrammar(const std::vector<NamedYaml>& documents) {
  absl::StatusOr<x509::SpiffeId> anybody = x509::SpiffeId::Parse("spiffe://grammar.check/anybody");
  if (!anybody.ok())
    return anybody.status();
  return PolicySet::Compile(documents, *anybody, 0).status();
}

absl::Status Put(const std::string& socket, const std::vector<std::string>& files, bool none,
                 Context& context) {
  if (files.empty() != none) {
    return absl::InvalidArgumentError(
        none ? "--none withdraws every document: give no files with it"
             : "give the YAML files that shall be in force, or --none to withdraw every document");
  }
  const absl::StatusOr<PolicyBook> book = PolicyBook::Read(files);
  if (!book.ok())
    return book.status();
  if (absl::Status status = CheckGrammar(book->documents()); !status.ok())
    return status;
  v1::PolicyDocuments request;
  for (const NamedYaml& document : book->documents()) {
    v1::PolicyDocuments::Document* added = request.add_documents();
    added->set_name(document.name);
    added->set_yaml(document.yaml);
  }
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::PolicyDocuments> stored = (*client)->PutPolicy(request);
  if (!stored.ok())
    return stored.status();
  context.err << "postern: " << stored->documents_size() << " document"
              << (stored->documents_size() == 1 ? "" : "s") << " in force as policy version "
              << VersionText(stored->version()) << "\n";
  return absl::OkStatus();
}

absl::Status Show(const std::string& socket, const std::string& output, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::PolicyDocuments> policy = (*client)->GetPolicy();
  if (!policy.ok())
    return policy.status();
  if (output == "json") {
    nlohmann::json documents = nlohmann::json::array();
    for (const auto& document : policy->documents()) {
      documents.push_back({{"name", document.name()}, {"yaml", document.yaml()}});
    }
    context.out << nlohmann::json({{"version", VersionText(policy->version())},
                                   {"documents", std::move(documents)}})
                       .dump(2)
                << "\n";
    return absl::OkStatus();
  }
  context.err << "postern: policy version " << VersionText(policy->version()) << ", "
              << policy->documents_size() << " documents\n";
  for (const auto& document : policy->documents()) {
    context.out << "---\n# " << document.name() << "\n" << document.yaml();
    if (!document.yaml().ends_with('\n'))
      context.out << "\n";
  }
  return absl::OkStatus();
}

struct CheckOptions {
  PolicyQuestion question;
  std::string peer_mode;
  std::vector<std::string> files;
};

// "db-clients / rule 1, policy.yaml:9"
std::string WithPlace(const PolicyBook& book, const std::string& rule) {
  const std::string place = book.PlaceOf(rule);
  return place.empty() ? rule : base::StrCat(rule, ", ", place);
}

// A part of the question is a flag here; a fault of the documents has its place already.
absl::Status NamingTheFlag(const absl::Status& status) {
  const std::string_view message = base::Message(status);
  for (const std::string_view part : {"from: ", "to: ", "source-ip: "}) {
    if (message.starts_with(part))
      return absl::InvalidArgumentError(base::StrCat("--", message));
  }
  return status;
}

// Exit status 0: let in; 1: not.
absl::Status Check(const CheckOptions& options, Context& context) {
  PolicyQuestion question = options.question;
  if (!options.peer_mode.empty()) {
    absl::StatusOr<config::PeerMode> mode = config::ParsePeerMode(options.peer_mode);
    if (!mode.ok())
      return absl::InvalidArgumentError(
          base::StrCat("--peer-mode: ", base::Message(mode.status())));
    question.peer_mode = *mode;
  }
  absl::StatusOr<PolicyBook> book = PolicyBook::Read(options.files);
  if (!book.ok())
    return book.status();
  const absl::StatusOr<PolicyAnswer> answer = book->Answer(question);
  if (!answer.ok())
    return NamingTheFlag(answer.status());
  const policy::Decision& decision = answer->decision;
  context.out << (decision.allowed ? "allowed: " : "denied: ") << WithPlace(*book, decision.rule)
              << "\n";
  if (!decision.audit.empty()) {
    context.out << "audit: would be denied: " << WithPlace(*book, decision.audit) << "\n";
  }
  if (answer->mode) {
    context.out << "mode of the port: " << config::Token(*answer->mode) << "\n";
  }
  return decision.allowed ? absl::OkStatus() : AlreadySaid();
}

}  // namespace

void AddPolicy(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("policy", "who may reach what");
  noun->require_subcommand(1);
  struct Options {
    std::string socket, output = "text";
    std::vector<std::string> files;
    bool none = false;
    CheckOptions check;
    std::vector<std::string> expectations, tested;
  };
  auto o = std::make_shared<Options>();

  CLI::App* put = noun->add_subcommand("put", "replace the issuer's whole set of documents");
  put->add_option("files", o->files, "YAML files");
  put->add_flag("--none", o->none, "withdraw every document");
  AddSocketOption(put, &o->socket);
  OnSelected(put, context, [o](Context& c) { return Put(o->socket, o->files, o->none, c); });

  CLI::App* show = noun->add_subcommand("show", "the documents that the issuer gives out");
  AddSocketOption(show, &o->socket);
  AddOutputOption(show, &o->output, {"text", "json"});
  OnSelected(show, context, [o](Context& c) { return Show(o->socket, o->output, c); });

  CLI::App* check = noun->add_subcommand(
      "check", "judge one connection with the proxy's own code; exit status 0 allowed, 1 denied");
  check->add_option("--from", o->check.question.from, "SPIFFE ID of the client, or none")
      ->required();
  check
      ->add_option("--to", o->check.question.to,
                   "WORKLOAD:PORT, as in spiffe://example.org/db:5432")
      ->required();
  check->add_option("--source-ip", o->check.question.source_ip,
                    "address of the client, for rules with cidrs");
  check->add_option("--tunnel", o->check.question.tunnel,
                    "name of the tunnel, for rules with tunnels");
  check->add_option("-f,--file", o->check.files,
                    "YAML file; repeatable; none: what holds without any policy");
  check
      ->add_option("--peer-mode", o->check.peer_mode,
                   "mode of the port where no document says one: strict, permissive, disabled, "
                   "opaque, skip; without it the mode is left out of the answer")
      ->group(kNotFromEnvironment);
  OnSelected(check, context, [o](Context& c) { return Check(o->check, c); });

  CLI::App* test = noun->add_subcommand(
      "test", "judge what files of expectations say; exit status 0 all hold, 1 one does not");
  test->add_option("expectations", o->expectations, "YAML files of kind PolicyTest")->required();
  test->add_option("-f,--file", o->tested,
                   "YAML file of policy, beside those that the expectations name; repeatable");
  OnSelected(test, context, [o](Context& c) { return TestPolicy(o->expectations, o->tested, c); });
}

}  // namespace postern::cli
