// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"
#include "cli/command.h"
#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/rpc/grpc_log.h"

namespace postern::cli {
namespace {

constexpr char kAlreadySaid[] = "";

std::string EnvironmentName(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return base::StrCat("POSTERN_", absl::AsciiStrToUpper(name));
}

// Gives every flag its environment variable; repeatable ones take one value on each line there, and
// one for each time they stand on the command line.
void NameEnvironment(CLI::App* app) {
  for (CLI::Option* option : app->get_options()) {
    const std::string name = option->get_single_name();
    if (option->get_lnames().empty() || name == "help" || name == "version" ||
        option->get_group() == kNotFromEnvironment)
      continue;
    option->envname(EnvironmentName(name));
    if (option->get_items_expected_max() > 1)
      option->delimiter('\n');
  }
  for (CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    NameEnvironment(command);
  }
}

// CLI11 lets the file win over the environment; the contract is the other way round.
class EnvironmentFirst : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> wanted = CLI::ConfigTOML::from_config(input);
    const auto set_outside = [](const CLI::ConfigItem& item) {
      return std::getenv(EnvironmentName(item.name).c_str()) != nullptr;
    };
    wanted.erase(std::remove_if(wanted.begin(), wanted.end(), set_outside), wanted.end());
    return wanted;
  }
};

struct LogOptions {
  std::string level = "warn";
  std::string format = "text";
};

void AddCommonOptions(CLI::App& app, LogOptions* log) {
  app.set_version_flag("--version", std::string("postern ") + POSTERN_VERSION);
  app.set_config("--config", "", "TOML file with the flags' names; [sections] are commands");
  app.config_formatter(std::make_shared<EnvironmentFirst>());
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--log-level", log->level, "what to say on standard error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_option("--log-format", log->format, "json or text")
      ->check(CLI::IsMember({"json", "text"}))
      ->capture_default_str();
  app.footer(
      "Every flag can be given as POSTERN_NAME in the environment (a flag wins over it, it wins "
      "over\n"
      "--config). Exit status: 0 done, 1 failed, 2 usage or configuration.");
}

int ExitStatus(const absl::Status& status) {
  if (status.ok())
    return kExitDone;
  const bool usage = absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
  return usage ? kExitUsage : kExitFailed;
}

int Finish(const Context& context, const absl::Status& result) {
  const std::string_view message = base::Message(result);
  if (!result.ok() && message != kAlreadySaid) {
    context.err << "postern: " << message << "\n";
  }
  context.out.flush();
  if (result.ok() && !context.out) {
    context.err << "postern: standard output could not be written\n";
    return kExitFailed;
  }
  return context.exit_status.value_or(ExitStatus(result));
}

}  // namespace

void OnSelected(CLI::App* command, Context& context, std::function<absl::Status(Context&)> action) {
  command->final_callback([&context, action = std::move(action)] { context.action = action; });
}

absl::Status AlreadySaid() {
  return absl::Status(absl::StatusCode::kUnknown, kAlreadySaid);
}

void AddOutputOption(CLI::App* command, std::string* target,
                     const std::vector<std::string>& values) {
  command->add_option("--output", *target, "form of the result")
      ->check(CLI::IsMember(values))
      ->capture_default_str();
}

absl::StatusOr<std::chrono::seconds> ParseDuration(std::string_view flag, std::string_view text) {
  absl::Duration duration;
  std::string with_unit(text);
  if (!with_unit.empty() && absl::ascii_isdigit(static_cast<unsigned char>(with_unit.back()))) {
    with_unit += 's';
  }
  if (!absl::ParseDuration(with_unit, &duration) || duration < absl::ZeroDuration() ||
      duration > absl::Hours(24 * 3660)) {
    return absl::InvalidArgumentError(base::StrCat(
        flag, " '", base::Printable(text), "' is no duration; write 90s, 10m, 1h30m or seconds"));
  }
  return std::chrono::seconds(absl::ToInt64Seconds(duration));
}

int Run(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  CommandLine line = SplitCommandLine(argc, argv);
  Context context{out, err, {}, std::move(line.proxy_words), std::move(line.command), {}};
  std::vector<const char*> words;
  for (const std::string& word : line.words) {
    words.push_back(word.c_str());
  }
  CLI::App app("Postern's command line: interception, identities, policy and diagnosis.",
               "postern");
  LogOptions log;
  AddCommonOptions(app, &log);
  for (const auto add :
       {AddIntercept, AddToken, AddEntry, AddMember, AddRevoke, AddBundle, AddPolicy, AddCert,
        AddStatus, AddWait, AddCa, AddRun, AddRenew, AddSeen}) {
    add(app, context);
  }
  app.require_subcommand(1);
  app.fallthrough();
  NameEnvironment(&app);
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::FileError& error) {
    err << "postern: --config: " << error.what() << "\n";
    return kExitUsage;
  } catch (const CLI::ParseError& error) {
    // Help and version are "errors" with exit code 0; all others are usage.
    return app.exit(error, out, err) == 0 ? kExitDone : kExitUsage;
  }
  static std::once_flag logging;
  absl::Status log_status;
  std::call_once(logging, [&log, &log_status] {
    log_status = base::InitLogging(
        log.level, log.format == "json" ? base::LogFormat::kJson : base::LogFormat::kText);
    rpc::RouteGrpcLog();
  });
  if (log_status.ok())
    log_status = context.action(context);
  return Finish(context, log_status);
}

}  // namespace postern::cli
