// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/command.h"
#include "cli/http_client.h"
#include "cli/issuer_nouns.h"
#include "cli/json_text.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::cli {
namespace {

using nlohmann::json;

json Describe(const X509* certificate, absl::Time now) {
  const absl::Time not_before = x509::NotBefore(certificate);
  const absl::Time not_after = x509::NotAfter(certificate);
  json result = {{"uri_sans", json::array()},
                 {"subject", x509::SubjectText(certificate)},
                 {"serial", x509::SerialHex(certificate)},
                 {"not_before", TimeText(absl::ToUnixSeconds(not_before))},
                 {"not_after", TimeText(absl::ToUnixSeconds(not_after))},
                 {"seconds_left", absl::ToInt64Seconds(not_after - now)},
                 {"ca", x509::IsCa(certificate)},
                 {"sha256", base::ToHex(x509::Sha256OfCertificate(certificate))},
                 {"key_sha256", base::ToHex(x509::Sha256OfKey(certificate))}};
  for (const std::string& uri : x509::UriSans(certificate)) {
    result["uri_sans"].push_back(base::Printable(uri, 2048));
  }
  if (now < not_before)
    result["problem"] = "not valid yet";
  if (now > not_after)
    result["problem"] = "expired";
  if (!x509::IsCa(certificate)) {
    const absl::StatusOr<x509::SpiffeId> id = x509::LeafSpiffeId(certificate);
    if (id.ok()) {
      result["spiffe_id"] = id->uri();
    } else {
      result["problem"] = std::string(base::Message(id.status()));
    }
  }
  return result;
}

void PrintText(const json& certificate, std::ostream& out) {
  const bool ca = certificate["ca"].get<bool>();
  const std::string identity = certificate.value("spiffe_id", "");
  out << (ca                 ? "CA " + certificate["subject"].get<std::string>()
          : identity.empty() ? "no SPIFFE ID"
                             : identity)
      << "\n";
  const int64_t left = certificate["seconds_left"].get<int64_t>();
  out << "  valid   " << certificate["not_before"].get<std::string>() << " to "
      << certificate["not_after"].get<std::string>();
  if (left >= 0)
    out << " (" << absl::FormatDuration(absl::Seconds(left)) << " left)";
  out << "\n  serial  " << certificate["serial"].get<std::string>() << "\n  sha256  "
      << certificate["sha256"].get<std::string>() << "\n";
  if (certificate.contains("problem")) {
    out << "  PROBLEM " << certificate["problem"].get<std::string>() << "\n";
  }
}

// Exit status 1 when a certificate has a problem, so that a script notices.
absl::Status ShowFile(const std::string& file, const std::string& output, Context& context) {
  absl::StatusOr<std::string> pem = base::ReadFile(file);
  if (!pem.ok())
    return pem.status();
  absl::StatusOr<std::vector<x509::X509Ptr>> certificates = x509::CertificatesFromPem(*pem);
  if (!certificates.ok()) {
    return absl::FailedPreconditionError(
        base::StrCat(base::Printable(file), ": ", base::Message(certificates.status())));
  }
  const absl::Time now = absl::Now();
  json list = json::array();
  bool sound = true;
  for (const x509::X509Ptr& certificate : *certificates) {
    list.push_back(Describe(certificate.get(), now));
    sound = sound && !list.back().contains("problem");
  }
  if (output == "json") {
    context.out << list.dump(2) << "\n";
  } else {
    for (const json& certificate : list)
      PrintText(certificate, context.out);
  }
  return sound ? absl::OkStatus() : AlreadySaid();
}

absl::Status ShowProxy(const std::string& admin, const std::string& output, Context& context) {
  absl::StatusOr<std::string> page = HttpPage("--admin", admin, "/certs");
  if (!page.ok())
    return page.status();
  return PrintJsonPage(*page, output, context.out);
}

}  // namespace

void AddCert(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("cert", "certificates in use");
  noun->require_subcommand(1);
  struct Options {
    std::string file, admin, output = "text";
  };
  auto o = std::make_shared<Options>();
  CLI::App* show = noun->add_subcommand("show", "whose certificate, valid until when");
  CLI::Option* file = show->add_option("file", o->file, "PEM file");
  show->add_option("--admin", o->admin, "a running proxy's --admin address instead of a file")
      ->excludes(file);
  AddOutputOption(show, &o->output, {"text", "json"});
  OnSelected(show, context, [o](Context& c) {
    if (!o->file.empty())
      return ShowFile(o->file, o->output, c);
    return ShowProxy(o->admin.empty() ? kDefaultProxyAdmin : o->admin, o->output, c);
  });
}

}  // namespace postern::cli
