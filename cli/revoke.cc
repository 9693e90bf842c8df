// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/revocation_set.h"

namespace postern::cli {
namespace {

using nlohmann::json;
using x509::RevokedBy;

constexpr std::string_view kSha256Prefix = "sha256:";

struct RevokeOptions {
  std::string socket, output = "text";
  std::string spiffe_id, serial, key_sha256, issuer, reason;
  uint64_t number = 0;
};

absl::StatusOr<std::string> Canonical(std::string_view flag, RevokedBy by, std::string_view text) {
  if (by != RevokedBy::kSpiffeId && text.starts_with(kSha256Prefix)) {
    text.remove_prefix(kSha256Prefix.size());
  }
  absl::StatusOr<std::string> subject = x509::CanonicalSubject(by, text);
  if (!subject.ok()) {
    return absl::InvalidArgumentError(base::StrCat(flag, ": ", base::Message(subject.status())));
  }
  return subject;
}

// A CA certificate's file, or the SHA-256 over its DER.
absl::StatusOr<std::string> IssuerSubject(const std::string& text) {
  if (absl::StatusOr<std::string> digest = Canonical("--issuer", RevokedBy::kIssuer, text);
      digest.ok()) {
    return digest;
  }
  const absl::StatusOr<std::string> content = base::ReadFile(text);
  if (!content.ok()) {
    return absl::InvalidArgumentError(
        base::StrCat("--issuer: neither a SHA-256 nor a file: ", base::Message(content.status())));
  }
  const bool pem = content->find("-----BEGIN") != std::string::npos;
  absl::StatusOr<x509::X509Ptr> certificate = x509::CertificateFromDer(base::AsBytes(*content));
  if (pem) {
    absl::StatusOr<std::vector<x509::X509Ptr>> all = x509::CertificatesFromPem(*content);
    if (all.ok() && all->size() != 1) {
      return absl::InvalidArgumentError(base::StrCat("--issuer: ", base::Printable(text), " holds ",
                                                     all->size(), " certificates; give one"));
    }
    certificate = all.ok() ? absl::StatusOr<x509::X509Ptr>(std::move(all->front())) : all.status();
  }
  if (!certificate.ok() || !x509::IsCa(certificate->get())) {
    return absl::InvalidArgumentError(
        base::StrCat("--issuer: ", base::Printable(text), ": ",
                     certificate.ok() ? "no CA certificate; for a leaf give --serial"
                                      : base::Message(certificate.status())));
  }
  return base::ToHex(x509::Sha256OfCertificate(certificate->get()));
}

absl::Status SetSubject(const RevokeOptions& options, v1::Revocation& revocation) {
  const int given = (options.spiffe_id.empty() ? 0 : 1) + (options.serial.empty() ? 0 : 1) +
                    (options.key_sha256.empty() ? 0 : 1) + (options.issuer.empty() ? 0 : 1);
  if (given != 1) {
    return absl::InvalidArgumentError(
        "give one of --spiffe-id, --serial, --key-sha256 and --issuer: what is to be revoked");
  }
  if (!options.spiffe_id.empty()) {
    const auto id = Canonical("--spiffe-id", RevokedBy::kSpiffeId, options.spiffe_id);
    revocation.set_spiffe_id(id.value_or(""));
    return id.status();
  }
  if (!options.serial.empty()) {
    const auto serial = Canonical("--serial", RevokedBy::kSerial, options.serial);
    if (serial.ok()) {
      revocation.set_serial(
          base::FromHex(serial->size() % 2 == 0 ? *serial : "0" + *serial).value_or(""));
    }
    return serial.status();
  }
  const auto digest = options.issuer.empty()
                          ? Canonical("--key-sha256", RevokedBy::kKey, options.key_sha256)
                          : IssuerSubject(options.issuer);
  if (!digest.ok()) {
    return digest.status();
  }
  const std::string raw = base::FromHex(*digest).value_or("");
  if (options.issuer.empty()) {
    revocation.set_key_sha256(raw);
  } else {
    revocation.set_issuer_sha256(raw);
  }
  return absl::OkStatus();
}

void SayFollowed(const v1::RevokeResponse& made, Context& context) {
  context.err << made.acknowledged() << " of " << made.connected_proxies()
              << " connected proxies have applied it"
              << (made.acknowledged() < made.connected_proxies()
                      ? "; `postern status --issuer` shows who has not"
                      : "")
              << "\n";
}

json ResponseJson(const v1::RevokeResponse& made) {
  return {{"number", made.version().sequence()},
          {"version", VersionText(made.version())},
          {"connected_proxies", made.connected_proxies()},
          {"acknowledged", made.acknowledged()},
          {"certificates", made.certificates()}};
}

absl::Status Revoke(const RevokeOptions& options, Context& context) {
  v1::RevokeRequest request;
  if (absl::Status set = SetSubject(options, *request.mutable_revocation()); !set.ok()) {
    return set;
  }
  if (options.reason.empty()) {
    return absl::InvalidArgumentError("--reason: needed; every refused peer is told it");
  }
  request.mutable_revocation()->set_reason(options.reason);
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok()) {
    return client.status();
  }
  const absl::StatusOr<v1::RevokeResponse> made = (*client)->Revoke(request);
  if (!made.ok()) {
    return made.status();
  }
  if (options.output == "json") {
    context.out << ResponseJson(*made).dump(2) << "\n";
  } else {
    context.out << made->version().sequence() << "\n";
  }
  context.err << "postern: revoked as number " << made->version().sequence() << "; ";
  SayFollowed(*made, context);
  if (made->certificates() == 0 && options.issuer.empty()) {
    context.err
        << "postern: the issuer knows no unexpired certificate that this names; if it should "
           "name one, look for a mistake in what was given\n";
  }
  return absl::OkStatus();
}

json RevocationJson(const v1::Revocation& revocation) {
  json result = {{"number", revocation.sequence()},
                 {"reason", base::LineSafe(revocation.reason())},
                 {"revoked_at", TimeText(revocation.revoked_at())}};
  switch (revocation.subject_case()) {
    case v1::Revocation::kSpiffeId:
      result["spiffe_id"] = base::Printable(revocation.spiffe_id(), 2048);
      break;
    case v1::Revocation::kSerial:
      result["serial"] = base::ToHex(base::AsBytes(revocation.serial()));
      break;
    case v1::Revocation::kKeySha256:
      result["key_sha256"] = base::ToHex(base::AsBytes(revocation.key_sha256()));
      break;
    case v1::Revocation::kIssuerSha256:
      result["issuer_sha256"] = base::ToHex(base::AsBytes(revocation.issuer_sha256()));
      break;
    case v1::Revocation::SUBJECT_NOT_SET:
      break;
  }
  if (revocation.forget_at() != 0) {
    result["forgotten_at"] = TimeText(revocation.forget_at());
  }
  return result;
}

void PrintRevocation(const json& revocation, std::ostream& out) {
  out << revocation["number"] << "  ";
  for (const char* kind : {"spiffe_id", "serial", "key_sha256", "issuer_sha256"}) {
    if (revocation.contains(kind)) {
      out << kind << " " << revocation[kind].get<std::string>() << "\n";
    }
  }
  out << "  reason   " << revocation["reason"].get<std::string>() << "\n"
      << "  revoked  " << revocation["revoked_at"].get<std::string>() << ", "
      << (revocation.contains("forgotten_at")
              ? "forgotten " + revocation["forgotten_at"].get<std::string>()
              : "until it is lifted")
      << "\n";
}

absl::Status List(const RevokeOptions& options, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok()) {
    return client.status();
  }
  const absl::StatusOr<v1::RevocationList> list = (*client)->ListRevocations();
  if (!list.ok()) {
    return list.status();
  }
  json all = json::array();
  for (const v1::Revocation& revocation : list->revocations()) {
    all.push_back(RevocationJson(revocation));
  }
  if (options.output == "json") {
    const json document = {{"version", VersionText(list->version())},
                           {"trust_domain", list->trust_domain()},
                           {"revocations", std::move(all)}};
    context.out << document.dump(2) << "\n";
    return absl::OkStatus();
  }
  for (const json& revocation : all) {
    PrintRevocation(revocation, context.out);
  }
  if (all.empty()) {
    context.err << "postern: nothing is revoked\n";
  }
  return absl::OkStatus();
}

absl::Status Lift(const RevokeOptions& options, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok()) {
    return client.status();
  }
  v1::LiftRevocationRequest request;
  request.set_sequence(options.number);
  const absl::StatusOr<v1::RevokeResponse> made = (*client)->LiftRevocation(request);
  if (!made.ok()) {
    return made.status();
  }
  if (options.output == "json") {
    context.out << ResponseJson(*made).dump(2) << "\n";
  }
  context.err << "postern: revocation " << options.number << " is lifted; ";
  SayFollowed(*made, context);
  return absl::OkStatus();
}

}  // namespace

void AddRevoke(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand(
      "revoke", "refuse an identity, a certificate, a key or a CA everywhere, at once");
  noun->require_subcommand(0, 1);
  auto o = std::make_shared<RevokeOptions>();
  const auto add = [noun](const char* flag, std::string& target, const char* help) {
    noun->add_option(flag, target, help)->group(kNotFromEnvironment);
  };
  add("--spiffe-id", o->spiffe_id,
      "every certificate of this identity, and none is issued until it is lifted");
  add("--serial", o->serial, "one certificate, by its serial number in hex");
  add("--key-sha256", o->key_sha256,
      "every certificate of this key: SHA-256 over its SubjectPublicKeyInfo, hex");
  add("--issuer", o->issuer,
      "every certificate below this CA: its certificate's file, or the SHA-256 over it");
  add("--reason", o->reason, "why; shown wherever a peer is refused for it");
  AddSocketOption(noun, &o->socket);
  AddOutputOption(noun, &o->output, {"text", "json"});
  // A subcommand's action would be overwritten: its callback runs before this one.
  noun->final_callback([noun, o, &context] {
    if (noun->get_subcommands().empty()) {
      context.action = [o](Context& c) { return Revoke(*o, c); };
    }
  });

  CLI::App* list = noun->add_subcommand("list", "what is revoked");
  AddSocketOption(list, &o->socket);
  AddOutputOption(list, &o->output, {"text", "json"});
  OnSelected(list, context, [o](Context& c) { return List(*o, c); });

  CLI::App* lift = noun->add_subcommand("lift", "take a revocation back");
  lift->add_option("number", o->number, "its number, as `revoke list` shows it")->required();
  AddSocketOption(lift, &o->socket);
  AddOutputOption(lift, &o->output, {"text", "json"});
  OnSelected(lift, context, [o](Context& c) { return Lift(*o, c); });
}

}  // namespace postern::cli
