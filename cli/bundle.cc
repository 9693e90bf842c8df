// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"

namespace postern::cli {
namespace {

using nlohmann::json;

// A root as the issuer told it.
struct Root {
  std::string trust_domain;
  x509::X509Ptr certificate;

  // What --issuer-pin takes.
  std::string Pin() const {
    return base::StrCat("sha256:", base::ToHex(x509::Sha256OfCertificate(certificate.get())));
  }
  std::string NotAfterText() const {
    return TimeText(absl::ToUnixSeconds(x509::NotAfter(certificate.get())));
  }
};

// The flags of the three commands; each has those that it names.
struct BundleOptions {
  std::string socket, trust_domain;
  std::string output = "text";
  bool accept_older = false;
};

absl::StatusOr<std::vector<Root>> ReadRoots(const v1::TrustBundle& bundle) {
  std::vector<Root> roots;
  for (const std::string& der : bundle.root_der()) {
    absl::StatusOr<x509::X509Ptr> root = x509::CertificateFromDer(base::AsBytes(der));
    if (!root.ok()) {
      return absl::InternalError(
          base::StrCat("the issuer sent a root of ", bundle.trust_domain(),
                       " that does not parse: ", base::Message(root.status())));
    }
    roots.push_back({bundle.trust_domain(), *std::move(root)});
  }
  return roots;
}

json AsJson(const v1::Version& version, const std::vector<Root>& roots) {
  json list = json::array();
  for (const Root& root : roots) {
    list.push_back({{"trust_domain", root.trust_domain},
                    {"subject", x509::SubjectText(root.certificate.get())},
                    {"not_after", root.NotAfterText()},
                    {"pin", root.Pin()},
                    {"pem", x509::CertificateToPem(root.certificate.get())}});
  }
  return {{"version", VersionText(version)}, {"roots", std::move(list)}};
}

// A SPIFFE bundle document: what the other side's --federate takes as bundle=FILE.
absl::StatusOr<std::string> AsSpiffe(const v1::TrustBundle& bundle, std::vector<Root> roots) {
  const absl::StatusOr<x509::TrustDomain> trust_domain =
      x509::TrustDomain::Parse(bundle.trust_domain());
  if (!trust_domain.ok()) {
    return absl::InternalError(std::string(base::Message(trust_domain.status())));
  }
  std::vector<x509::X509Ptr> certificates;
  for (Root& root : roots) {
    certificates.push_back(std::move(root.certificate));
  }
  const absl::StatusOr<x509::TrustBundle> made =
      x509::TrustBundle::Create(*trust_domain, std::move(certificates));
  if (!made.ok()) {
    return made.status();
  }
  return x509::SpiffeBundleToJson(*made, std::nullopt, std::nullopt) + "\n";
}

void PrintRoots(const std::vector<Root>& roots, const std::string& output, std::ostream& out) {
  for (const Root& root : roots) {
    if (output == "pem") {
      out << x509::CertificateToPem(root.certificate.get());
    } else if (output == "pin") {
      out << root.Pin() << "\n";
    } else {
      out << root.trust_domain << "\n  subject    " << x509::SubjectText(root.certificate.get())
          << "\n  not after  " << root.NotAfterText() << "\n  pin        " << root.Pin() << "\n";
    }
  }
}

// Of one trust domain alone: what goes into --issuer-bundle must not hold another one's roots.
absl::StatusOr<v1::TrustBundle> Choose(const v1::BundleSet& set, const std::string& wanted) {
  for (const v1::TrustBundle& bundle : set.bundles()) {
    if (wanted.empty() || wanted == bundle.trust_domain()) {
      return bundle;
    }
  }
  return absl::NotFoundError(base::StrCat("the issuer holds no roots of '", base::Printable(wanted),
                                          "'; `postern bundle list` says why"));
}

absl::Status Show(const BundleOptions& options, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::BundleSet> set = (*client)->GetBundles();
  if (!set.ok())
    return set.status();
  const absl::StatusOr<v1::TrustBundle> bundle = Choose(*set, options.trust_domain);
  if (!bundle.ok())
    return bundle.status();
  absl::StatusOr<std::vector<Root>> roots = ReadRoots(*bundle);
  if (!roots.ok())
    return roots.status();
  if (options.output == "json") {
    context.out << AsJson(set->version(), *roots).dump(2) << "\n";
  } else if (options.output == "spiffe") {
    const absl::StatusOr<std::string> text = AsSpiffe(*bundle, *std::move(roots));
    if (!text.ok())
      return text.status();
    context.out << *text;
  } else {
    PrintRoots(*roots, options.output, context.out);
  }
  return absl::OkStatus();
}

std::string AgeText(const v1::BundleList::Bundle& bundle) {
  if (bundle.own())
    return "our own";
  if (bundle.age_seconds() < 0)
    return "never fetched";
  return base::StrCat("confirmed ", absl::FormatDuration(absl::Seconds(bundle.age_seconds())),
                      " ago");
}

json AsJson(const v1::BundleList& list) {
  json bundles = json::array();
  for (const v1::BundleList::Bundle& bundle : list.bundles()) {
    json one = {{"trust_domain", bundle.trust_domain()},
                {"own", bundle.own()},
                {"roots", bundle.root_der_size()}};
    if (!bundle.own()) {
      one["url"] = bundle.url();
      one["profile"] = bundle.profile();
      one["endpoint_id"] = bundle.endpoint_id();
      one["sequence"] = bundle.has_sequence() ? json(bundle.sequence()) : json();
      one["fetched_at"] = bundle.fetched_at() == 0 ? json() : json(TimeText(bundle.fetched_at()));
      one["age_seconds"] = bundle.age_seconds() < 0 ? json() : json(bundle.age_seconds());
      one["refresh_seconds"] = bundle.refresh_seconds();
      one["last_error"] = bundle.last_error();
      one["max_age_seconds"] = bundle.max_age_seconds();
      one["on_stale"] = bundle.on_stale();
      one["stale"] = bundle.stale();
      one["distrusted"] = bundle.distrusted();
    }
    bundles.push_back(std::move(one));
  }
  return {{"version", VersionText(list.version())}, {"bundles", std::move(bundles)}};
}

void PrintList(const v1::BundleList& list, const std::string& output, std::ostream& out) {
  if (output == "json") {
    out << AsJson(list).dump(2) << "\n";
    return;
  }
  for (const v1::BundleList::Bundle& bundle : list.bundles()) {
    out << bundle.trust_domain() << "\n  roots      " << bundle.root_der_size() << "\n  age        "
        << AgeText(bundle) << "\n";
    if (bundle.own())
      continue;
    out << "  endpoint   " << bundle.url() << " (" << bundle.profile()
        << (bundle.endpoint_id().empty() ? "" : ", ") << bundle.endpoint_id() << ")\n"
        << "  sequence   "
        << (bundle.has_sequence() ? std::to_string(bundle.sequence()) : std::string("none"))
        << "\n  refresh    every " << absl::FormatDuration(absl::Seconds(bundle.refresh_seconds()))
        << "\n";
    if (bundle.max_age_seconds() > 0) {
      out << "  max age    " << absl::FormatDuration(absl::Seconds(bundle.max_age_seconds()))
          << ", then " << bundle.on_stale() << "\n";
    }
    if (bundle.stale()) {
      out << "  STALE      "
          << (bundle.distrusted() ? "distrusted until its endpoint confirms it: its workloads are "
                                    "refused"
                                  : "its endpoint has not confirmed it; it goes on")
          << "\n";
    }
    if (!bundle.last_error().empty())
      out << "  error      " << bundle.last_error() << "\n";
  }
}

absl::Status List(const BundleOptions& options, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::BundleList> list = (*client)->ListBundles();
  if (!list.ok())
    return list.status();
  PrintList(*list, options.output, context.out);
  return absl::OkStatus();
}

absl::Status Refresh(const BundleOptions& options, Context& context) {
  if (options.accept_older && options.trust_domain.empty()) {
    return absl::InvalidArgumentError("--accept-older: name the one with --domain");
  }
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  v1::RefreshBundlesRequest request;
  request.set_trust_domain(options.trust_domain);
  request.set_accept_older(options.accept_older);
  absl::StatusOr<v1::BundleList> list = (*client)->RefreshBundles(request);
  if (!list.ok())
    return list.status();
  PrintList(*list, options.output, context.out);
  return absl::OkStatus();
}

using Action = absl::Status (*)(const BundleOptions& options, Context& context);

struct Command {
  CLI::App* app;
  std::shared_ptr<BundleOptions> options;
};

Command AddCommand(CLI::App* noun, Context& context, const char* verb, const char* what,
                   const std::vector<std::string>& outputs, Action action) {
  CLI::App* app = noun->add_subcommand(verb, what);
  auto options = std::make_shared<BundleOptions>();
  AddSocketOption(app, &options->socket);
  AddOutputOption(app, &options->output, outputs);
  OnSelected(app, context, [options, action](Context& c) { return action(*options, c); });
  return {app, options};
}

}  // namespace

void AddBundle(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("bundle", "the roots of trust, our own and federated ones");
  noun->require_subcommand(1);
  const Command show = AddCommand(
      noun, context, "show",
      "the issuer's roots; pem and pin are what --issuer-bundle and --issuer-pin take, spiffe what "
      "another issuer's --federate takes as bundle=FILE",
      {"text", "json", "pem", "pin", "spiffe"}, Show);
  show.app->add_option("--domain", show.options->trust_domain,
                       "of this federated trust domain instead");
  AddCommand(noun, context, "list", "every trust domain: how many roots are held and how old",
             {"text", "json"}, List);
  const Command refresh = AddCommand(noun, context, "refresh", "fetches the federated bundles now",
                                     {"text", "json"}, Refresh);
  refresh.app->add_option("--domain", refresh.options->trust_domain, "only this one");
  refresh.app->add_flag("--accept-older", refresh.options->accept_older,
                        "take a bundle whose sequence went back, this once");
}

}  // namespace postern::cli
