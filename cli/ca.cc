// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::cli {
namespace {

using nlohmann::ordered_json;
using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::chrono::seconds kInterval{1};
constexpr size_t kShownIdDigits = 16;  // as in the names of the key files

struct CaCommandOptions {
  std::string socket, kind, timeout, output = "text";
  bool force = false;
  bool json = false;
};

std::string_view KindText(v1::CaKind kind) {
  return kind == v1::CA_KIND_ROOT ? "root" : "intermediate";
}

v1::CaKind KindOf(const CaCommandOptions& options) {
  return options.kind == "root" ? v1::CA_KIND_ROOT : v1::CA_KIND_INTERMEDIATE;
}

std::string NotAfterText(const v1::CaStatus::Ca& ca) {
  const auto certificate = x509::CertificateFromDer(base::AsBytes(ca.certificate_der()));
  return certificate.ok() ? TimeText(absl::ToUnixSeconds(x509::NotAfter(certificate->get())))
                          : std::string("unknown");
}

std::string StatusAsJson(const v1::CaStatus& status) {
  ordered_json cas = ordered_json::array();
  for (const v1::CaStatus::Ca& ca : status.cas()) {
    cas.push_back({{"id", ca.id()},
                   {"role", ca.role()},
                   {"state", ca.state()},
                   {"not_after", NotAfterText(ca)},
                   {"key_present", ca.key_present()}});
  }
  ordered_json document = {{"phase", status.phase()}};
  if (status.kind() != v1::CA_KIND_UNSPECIFIED)
    document["kind"] = KindText(status.kind());
  document["bundle_version"] = VersionText(status.bundle_version());
  document["not_followed"] =
      std::vector<std::string>(status.not_followed().begin(), status.not_followed().end());
  if (status.old_certificates_until() != 0)
    document["old_certificates_until"] = TimeText(status.old_certificates_until());
  if (!status.blocked().empty())
    document["blocked"] = status.blocked();
  document["warnings"] =
      std::vector<std::string>(status.warnings().begin(), status.warnings().end());
  document["cas"] = std::move(cas);
  return document.dump(2);
}

void PrintStatus(const v1::CaStatus& status, const CaCommandOptions& options, std::ostream& out) {
  if (options.json || options.output == "json") {
    out << StatusAsJson(status) << "\n";
    return;
  }
  out << "rotation         " << status.phase();
  if (status.kind() != v1::CA_KIND_UNSPECIFIED)
    out << ", of the " << KindText(status.kind());
  out << "\nbundle version   " << VersionText(status.bundle_version()) << ", not acknowledged by "
      << status.not_followed_size() << " connected proxies\n";
  for (const std::string& proxy : status.not_followed()) {
    out << "  " << proxy << "\n";
  }
  if (status.old_certificates_until() != 0)
    out << "old certificates in use until " << TimeText(status.old_certificates_until())
        << " or until they are renewed\n";
  if (!status.blocked().empty())
    out << "the automatic rotation is held up: " << status.blocked() << "\n";
  for (const std::string& warning : status.warnings()) {
    out << "WARNING: " << warning << "\n";
  }
  for (const v1::CaStatus::Ca& ca : status.cas()) {
    out << ca.role() << " " << ca.id().substr(0, kShownIdDigits) << "\n  state      " << ca.state()
        << "\n  not after  " << NotAfterText(ca) << "\n  key        "
        << (ca.key_present() ? "in the issuer's state directory" : "elsewhere") << "\n";
  }
}

absl::StatusOr<v1::CaStatus> Step(const CaCommandOptions& options, v1::RotationStep step) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  v1::RotateCaRequest request;
  request.set_kind(KindOf(options));
  request.set_step(step);
  request.set_force(options.force);
  return (*client)->RotateCa(request);
}

absl::StatusOr<v1::CaStatus> Ask(const CaCommandOptions& options) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(options.socket);
  if (!client.ok())
    return client.status();
  return (*client)->GetCaStatus();
}

absl::Status StepAlone(const CaCommandOptions& options, v1::RotationStep step, Context& context) {
  const absl::StatusOr<v1::CaStatus> status = Step(options, step);
  if (!status.ok())
    return status.status();
  PrintStatus(*status, options, context.out);
  return absl::OkStatus();
}

absl::Status Show(const CaCommandOptions& options, Context& context) {
  const absl::StatusOr<v1::CaStatus> status = Ask(options);
  if (!status.ok())
    return status.status();
  PrintStatus(*status, options, context.out);
  return absl::OkStatus();
}

// The whole rotation. What has been done is the issuer's to know, so this can be interrupted at any
// time, and run again goes on; an issuer that restarts meanwhile is waited for.
class WholeRotation {
 public:
  WholeRotation(const CaCommandOptions& options, Context& context)
      : options_(options), context_(context) {}

  absl::Status Run();

 private:
  enum class Wait : uint8_t { kForProxies, kForCertificates };

  absl::StatusOr<v1::CaStatus> AskPatiently();
  absl::Status StepWhenDue(v1::RotationStep step, const std::vector<Wait>& waits);
  absl::StatusOr<bool> IsDue(const std::vector<Wait>& waits);
  void TellMissing(const v1::CaStatus& status);
  void TellCertificates(const v1::CaStatus& status);
  absl::Status CheckTime() const;
  void Say(std::string_view text) {
    context_.out << text << "\n";
    context_.out.flush();
  }

  const CaCommandOptions& options_;
  Context& context_;
  std::optional<SteadyTime> deadline_;
  std::string waits_for_ = "the issuer";
  std::vector<std::string> told_missing_;
  int64_t told_until_ = 0;
};

absl::Status WholeRotation::CheckTime() const {
  if (!deadline_.has_value() || std::chrono::steady_clock::now() < *deadline_)
    return absl::OkStatus();
  return absl::DeadlineExceededError(
      base::StrCat("not finished within ", options_.timeout, ", waiting for ", waits_for_,
                   "; the rotation stays where it is, and this command run again goes on"));
}

// An issuer that restarts is away for a moment; one that refuses is not asked again.
absl::StatusOr<v1::CaStatus> WholeRotation::AskPatiently() {
  bool told = false;
  while (true) {
    absl::StatusOr<v1::CaStatus> status = Ask(options_);
    const bool away = absl::IsUnavailable(status.status()) || absl::IsNotFound(status.status()) ||
                      absl::IsDeadlineExceeded(status.status());
    if (!away)
      return status;
    if (!std::exchange(told, true))
      Say(base::StrCat("waiting for the issuer: ", base::Message(status.status())));
    if (absl::Status in_time = CheckTime(); !in_time.ok())
      return in_time;
    std::this_thread::sleep_for(kInterval);
  }
}

void WholeRotation::TellMissing(const v1::CaStatus& status) {
  std::vector<std::string> missing(status.not_followed().begin(), status.not_followed().end());
  if (missing == told_missing_)
    return;
  if (!missing.empty()) {
    Say(base::StrCat("waiting for ", missing.size(), " connected proxies to acknowledge bundle ",
                     VersionText(status.bundle_version()), ":"));
  }
  for (const std::string& proxy : missing) {
    Say(base::StrCat("  ", proxy));
  }
  told_missing_ = std::move(missing);
}

void WholeRotation::TellCertificates(const v1::CaStatus& status) {
  if (status.old_certificates_until() == told_until_)
    return;
  told_until_ = status.old_certificates_until();
  if (told_until_ != 0) {
    Say(
        base::StrCat("waiting for the certificates of the old CA to be renewed or to expire, the "
                     "last at ",
                     TimeText(told_until_)));
  }
}

absl::StatusOr<bool> WholeRotation::IsDue(const std::vector<Wait>& waits) {
  const absl::StatusOr<v1::CaStatus> status = AskPatiently();
  if (!status.ok())
    return status.status();
  for (const Wait wait : waits) {
    if (wait == Wait::kForProxies && status->not_followed_size() > 0) {
      waits_for_ = base::StrCat(status->not_followed_size(), " proxies: ", status->not_followed(0),
                                " and others");
      TellMissing(*status);
      return false;
    }
    if (wait == Wait::kForCertificates && status->old_certificates_until() != 0) {
      waits_for_ = "the certificates of the old CA";
      TellCertificates(*status);
      return false;
    }
  }
  return true;
}

// Due twice in succession: a proxy acknowledges when it has handed the bundle to its workers, and a
// second later they have it.
absl::Status WholeRotation::StepWhenDue(v1::RotationStep step, const std::vector<Wait>& waits) {
  int due = 0;
  while (true) {
    const absl::StatusOr<bool> is_due = IsDue(waits);
    if (!is_due.ok())
      return is_due.status();
    due = *is_due ? due + 1 : 0;
    if (due >= 2) {
      const absl::StatusOr<v1::CaStatus> made = Step(options_, step);
      if (made.ok())
        return absl::OkStatus();
      // Between the question and the step a proxy may have come, or the issuer gone.
      const absl::StatusOr<bool> still_due = IsDue(waits);
      const bool again = (still_due.ok() && !*still_due) || absl::IsUnavailable(made.status());
      if (!again)
        return made.status();
      due = 0;
    }
    if (absl::Status in_time = CheckTime(); !in_time.ok())
      return in_time;
    std::this_thread::sleep_for(kInterval);
  }
}

absl::Status WholeRotation::Run() {
  if (!options_.timeout.empty()) {
    const auto limit = ParseDuration("--timeout", options_.timeout);
    if (!limit.ok())
      return limit.status();
    deadline_ = std::chrono::steady_clock::now() + *limit;
  }
  absl::StatusOr<v1::CaStatus> status = Ask(options_);
  if (!status.ok())
    return status.status();
  if (status->phase() != "none") {
    if (status->kind() != KindOf(options_))
      return absl::FailedPreconditionError(base::StrCat(
          "a rotation of the ", KindText(status->kind()), " is under way (", status->phase(),
          "): finish it first, or abort it while it is only prepared"));
    Say(base::StrCat("going on with the rotation that is ", status->phase()));
  }
  if (status->phase() != "active") {
    status = Step(options_, v1::ROTATION_STEP_PREPARE);
    if (!status.ok())
      return status.status();
    Say(base::StrCat("prepared: the next ", options_.kind, " is there, the bundle is ",
                     VersionText(status->bundle_version())));
    if (absl::Status done = StepWhenDue(v1::ROTATION_STEP_ACTIVATE, {Wait::kForProxies});
        !done.ok())
      return done;
    Say(base::StrCat("activated: the new ", options_.kind, " signs"));
  }
  if (absl::Status done =
          StepWhenDue(v1::ROTATION_STEP_RETIRE, {Wait::kForCertificates, Wait::kForProxies});
      !done.ok())
    return done;
  Say(base::StrCat("retired: the old ", options_.kind, " is withdrawn and its key deleted"));
  return absl::OkStatus();
}

void AddKind(CLI::App* command, CaCommandOptions* options) {
  command
      ->add_option("--kind", options->kind, "root (and an intermediate below it) or intermediate")
      ->required()
      ->check(CLI::IsMember({"root", "intermediate"}));
}

void AddPrinted(CLI::App* command, CaCommandOptions* options) {
  AddOutputOption(command, &options->output, {"text", "json"});
  command->add_flag("--json", options->json, "the same as --output json");
}

void AddStep(CLI::App* noun, Context& context, const std::string& name, const std::string& help,
             v1::RotationStep step) {
  auto options = std::make_shared<CaCommandOptions>();
  CLI::App* command = noun->add_subcommand(name, help);
  AddKind(command, options.get());
  AddSocketOption(command, &options->socket);
  AddPrinted(command, options.get());
  if (step == v1::ROTATION_STEP_ACTIVATE || step == v1::ROTATION_STEP_RETIRE) {
    command->add_flag("--force", options->force,
                      step == v1::ROTATION_STEP_ACTIVATE
                          ? "though connected proxies have not followed"
                          : "though proxies have not followed or old certificates are in use; "
                            "connections that stand on the root are ended");
  }
  OnSelected(command, context,
             [options, step](Context& c) { return StepAlone(*options, step, c); });
}

}  // namespace

void AddCa(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("ca", "the issuer's CAs and their rotation");
  noun->require_subcommand(1);
  auto whole = std::make_shared<CaCommandOptions>();
  CLI::App* rotate = noun->add_subcommand(
      "rotate",
      "a whole rotation: prepare, wait for the proxies, activate, wait for the old "
      "certificates, retire; goes on with one that is under way");
  AddKind(rotate, whole.get());
  AddSocketOption(rotate, &whole->socket);
  rotate->add_option("--timeout", whole->timeout, "give up waiting after this (default: never)");
  OnSelected(rotate, context, [whole](Context& c) { return WholeRotation(*whole, c).Run(); });

  AddStep(noun, context, "prepare", "makes the next CA and distributes its root",
          v1::ROTATION_STEP_PREPARE);
  AddStep(noun, context, "activate", "signs with the next CA", v1::ROTATION_STEP_ACTIVATE);
  AddStep(noun, context, "retire", "withdraws the old CA and deletes its keys",
          v1::ROTATION_STEP_RETIRE);
  AddStep(noun, context, "abort", "drops the next CA, while it does not sign yet",
          v1::ROTATION_STEP_ABORT);

  auto shown = std::make_shared<CaCommandOptions>();
  CLI::App* status = noun->add_subcommand("status", "the CAs, and how far a rotation is");
  AddSocketOption(status, &shown->socket);
  AddPrinted(status, shown.get());
  OnSelected(status, context, [shown](Context& c) { return Show(*shown, c); });
}

}  // namespace postern::cli
