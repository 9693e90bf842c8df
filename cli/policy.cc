// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/spiffe_id.h"
#include "proxy/policy/policy_set.h"

namespace postern::cli {
namespace {

using policy::ConnectionFacts;
using policy::Decision;
using policy::NamedYaml;
using policy::PolicySet;

absl::StatusOr<std::vector<NamedYaml>> ReadFiles(const std::vector<std::string>& files) {
  std::vector<NamedYaml> documents;
  for (const std::string& file : files) {
    absl::StatusOr<std::string> yaml = base::ReadFile(file);
    if (!yaml.ok())
      return absl::InvalidArgumentError(yaml.status().message());
    documents.push_back({file, *std::move(yaml)});
  }
  return documents;
}

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
  absl::StatusOr<std::vector<NamedYaml>> documents = ReadFiles(files);
  if (!documents.ok())
    return documents.status();
  if (absl::Status status = CheckGrammar(*documents); !status.ok())
    return status;
  v1::PolicyDocuments request;
  for (NamedYaml& document : *documents) {
    v1::PolicyDocuments::Document* added = request.add_documents();
    added->set_name(document.name);
    added->set_yaml(std::move(document.yaml));
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
  std::string from, to, source_ip, tunnel;
  std::vector<std::string> files;
};

struct Target {
  x509::SpiffeId workload;
  uint16_t port = 0;
};

// "spiffe://td/db:5432": a SPIFFE ID holds no colon behind its scheme.
absl::StatusOr<Target> ParseTarget(const std::string& text) {
  const size_t colon = text.rfind(':');
  const std::string_view digits = std::string_view(text).substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (colon == std::string::npos || error != std::errc() || end != digits.data() + digits.size()) {
    return absl::InvalidArgumentError(base::StrCat("--to '", base::Printable(text),
                                                   "': write WORKLOAD:PORT, as in "
                                                   "spiffe://example.org/db:5432"));
  }
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(text.substr(0, colon));
  if (!id.ok()) {
    return absl::InvalidArgumentError(base::StrCat("--to: ", base::Message(id.status())));
  }
  return Target{*std::move(id), port};
}

absl::StatusOr<ConnectionFacts> ReadFacts(const CheckOptions& options, uint16_t port) {
  ConnectionFacts facts;
  facts.destination_port = port;
  facts.tunnel = options.tunnel;
  if (options.from != "none") {
    absl::StatusOr<x509::SpiffeId> source = x509::SpiffeId::Parse(options.from);
    if (!source.ok()) {
      return absl::InvalidArgumentError(base::StrCat("--from: ", base::Message(source.status())));
    }
    facts.source = *std::move(source);
  }
  if (!options.source_ip.empty()) {
    absl::StatusOr<base::IpAddress> ip = base::IpAddress::Parse(options.source_ip);
    if (!ip.ok()) {
      return absl::InvalidArgumentError(base::StrCat("--source-ip: ", base::Message(ip.status())));
    }
    facts.source_ip = *ip;
  }
  return facts;
}

// Exit status 0: let in; 1: not.
absl::Status Check(const CheckOptions& options, Context& context) {
  absl::StatusOr<Target> target = ParseTarget(options.to);
  if (!target.ok())
    return target.status();
  absl::StatusOr<ConnectionFacts> facts = ReadFacts(options, target->port);
  if (!facts.ok())
    return facts.status();
  absl::StatusOr<std::vector<NamedYaml>> documents = ReadFiles(options.files);
  if (!documents.ok())
    return documents.status();
  absl::StatusOr<std::shared_ptr<const PolicySet>> policy =
      documents->empty() ? PolicySet::SameTrustDomain(target->workload)
                         : PolicySet::Compile(*documents, target->workload, 0);
  if (!policy.ok())
    return policy.status();
  const Decision decision = (*policy)->Authorize(*facts);
  context.out << (decision.allowed ? "allowed: " : "denied: ") << decision.rule << "\n";
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
  check->add_option("--from", o->check.from, "SPIFFE ID of the client, or none")->required();
  check->add_option("--to", o->check.to, "WORKLOAD:PORT, as in spiffe://example.org/db:5432")
      ->required();
  check->add_option("--source-ip", o->check.source_ip,
                    "address of the client, for rules with cidrs");
  check->add_option("--tunnel", o->check.tunnel, "name of the tunnel, for rules with tunnels");
  check->add_option("-f,--file", o->check.files,
                    "YAML file; repeatable; none: what holds without any policy");
  OnSelected(check, context, [o](Context& c) { return Check(o->check, c); });
}

}  // namespace postern::cli
