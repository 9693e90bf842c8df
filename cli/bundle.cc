// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/time/time.h"
#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "common/base/strings.h"
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

absl::StatusOr<std::vector<Root>> ReadRoots(const v1::BundleSet& set) {
  std::vector<Root> roots;
  for (const v1::TrustBundle& bundle : set.bundles()) {
    for (const std::string& der : bundle.root_der()) {
      absl::StatusOr<x509::X509Ptr> root = x509::CertificateFromDer(base::AsBytes(der));
      if (!root.ok()) {
        return absl::InternalError(
            base::StrCat("the issuer sent a root of ", bundle.trust_domain(),
                         " that does not parse: ", base::Message(root.status())));
      }
      roots.push_back({bundle.trust_domain(), *std::move(root)});
    }
  }
  return roots;
}

json AsJson(const v1::BundleSet& set, const std::vector<Root>& roots) {
  json list = json::array();
  for (const Root& root : roots) {
    list.push_back({{"trust_domain", root.trust_domain},
                    {"subject", x509::SubjectText(root.certificate.get())},
                    {"not_after", root.NotAfterText()},
                    {"pin", root.Pin()},
                    {"pem", x509::CertificateToPem(root.certificate.get())}});
  }
  return {{"version", VersionText(set.version())}, {"roots", std::move(list)}};
}

void Print(const v1::BundleSet& set, const std::vector<Root>& roots, const std::string& output,
           std::ostream& out) {
  if (output == "json") {
    out << AsJson(set, roots).dump(2) << "\n";
    return;
  }
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

absl::Status Show(const std::string& socket, const std::string& output, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  absl::StatusOr<v1::BundleSet> set = (*client)->GetBundles();
  if (!set.ok())
    return set.status();
  absl::StatusOr<std::vector<Root>> roots = ReadRoots(*set);
  if (!roots.ok())
    return roots.status();
  Print(*set, *roots, output, context.out);
  return absl::OkStatus();
}

}  // namespace

void AddBundle(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("bundle", "the roots of trust");
  noun->require_subcommand(1);
  CLI::App* show = noun->add_subcommand(
      "show", "the issuer's roots; pem and pin are what --issuer-bundle and --issuer-pin take");
  auto socket = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>("text");
  AddSocketOption(show, socket.get());
  AddOutputOption(show, output.get(), {"text", "json", "pem", "pin"});
  OnSelected(show, context, [socket, output](Context& c) { return Show(*socket, *output, c); });
}

}  // namespace postern::cli
