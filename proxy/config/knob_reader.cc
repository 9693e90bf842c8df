// SPDX-License-Identifier: Apache-2.0
// The three sources of knobs. CLI11 reads the command line and writes --help; the environment and
// the file are read here, because CLI11 lets the file win over the environment and ours is the
// other way.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "proxy/config/config_file.h"
#include "proxy/config/knobs.h"

namespace postern::config {
namespace {

constexpr std::string_view kProgram = "postern-proxy";
constexpr std::string_view kConfigFlag = "config";

// "--name=value" as two arguments: CLI11 takes "--name=" for a flag without its value.
std::vector<std::string> SplitArguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view text = argv[i];
    const size_t equals = text.find('=');
    if (text.starts_with("--") && equals != std::string_view::npos) {
      arguments.emplace_back(text.substr(0, equals));
      arguments.emplace_back(text.substr(equals + 1));
    } else {
      arguments.emplace_back(text);
    }
  }
  return arguments;
}

// How many single edits lead from one name to the other: to guess what a mistyped flag meant.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// "; did you mean --x?" for a name that is close to a knob's, else nothing.
std::string Guess(std::string_view name) {
  std::string_view best;
  size_t best_distance = 3;
  for (const Knob& knob : Knobs()) {
    const size_t distance = EditDistance(name.substr(0, 64), knob.name);
    if (distance < best_distance) {
      best_distance = distance;
      best = knob.name;
    }
  }
  return best.empty() ? "" : base::StrCat("; did you mean --", best, "?");
}

std::string HelpLine(const Knob& knob) {
  std::string line = base::StrCat(knob.doc, " [", EnvironmentName(knob.name), "]");
  const auto defaults = knob.show(ProxyConfig());
  if (!defaults.empty()) {
    base::StrAppend(line, " (", defaults.front(), ")");
  }
  return knob.repeatable ? line + " Repeatable." : line;
}

// The command line, read by CLI11: raw texts by flag.
class CommandLine {
 public:
  CommandLine() : app_("Carries a workload's TCP traffic over mutual TLS.", std::string(kProgram)) {
    app_.set_help_flag("-h,--help", "Print this help and exit");
    app_.set_version_flag("--version", base::StrCat(kProgram, " ", POSTERN_VERSION));
    app_.allow_extras();
    app_.get_formatter()->column_width(44);
    for (const Knob& knob : Knobs()) {
      Add(knob.name, knob.value, HelpLine(knob), knob.group, knob.repeatable);
    }
    Add(kConfigFlag, "FILE", "TOML file with the flags' names as keys [POSTERN_CONFIG]",
        "Operation", false);
    app_.footer(
        "A flag wins over its environment name, which wins over the file. In the environment,\n"
        "repeatable flags are separated by newlines.");
  }

  // The exit for --help, --version and errors.
  std::optional<ParseExit> Parse(int argc, const char* const* argv) {
    try {
      std::vector<std::string> arguments = SplitArguments(argc, argv);
      std::ranges::reverse(arguments);  // CLI11 takes them from the back
      app_.parse(arguments);
    } catch (const CLI::CallForHelp&) {
      return ParseExit{0, app_.help()};
    } catch (const CLI::CallForVersion&) {
      return ParseExit{0, base::StrCat(kProgram, " ", POSTERN_VERSION, "\n")};
    } catch (const CLI::ParseError& error) {
      return UsageError(base::StrCat(base::Printable(error.what()), "; give the flag a value"));
    } catch (const std::exception& error) {
      return UsageError(base::Printable(error.what()));
    }
    const std::vector<std::string> extras = app_.remaining();
    if (extras.empty()) {
      return std::nullopt;
    }
    const std::string_view extra = extras.front();
    if (!extra.starts_with("-")) {
      return UsageError(base::StrCat("'", base::Printable(extra, 128),
                                     "' is no flag, and no other argument is taken; flags begin "
                                     "with --"));
    }
    return UsageError(
        base::StrCat(base::Printable(extra, 128), ": unknown flag",
                     Guess(extra.substr(std::min(extra.find_first_not_of('-'), extra.size())))));
  }

  const std::vector<std::string>& ValuesOf(std::string_view name) const {
    return options_.find(name)->second->results();
  }

 private:
  void Add(std::string_view name, std::string_view value, std::string_view doc,
           std::string_view group, bool repeatable) {
    // Every flag may come often: ReadKnobs says which must not, and names it better. CLI11 shows
    // "..." for its largest number only.
    constexpr int kOften = CLI::detail::expected_max_vector_size;
    CLI::Option* option = app_.add_option(
        base::StrCat("--", name), [](const CLI::results_t&) { return true; }, std::string(doc));
    option->type_name(std::string(value))
        ->type_size(1)
        ->expected(1, repeatable ? kOften : kOften / 2)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->group(std::string(group));
    options_.emplace(name, option);
  }

  CLI::App app_;
  std::map<std::string_view, CLI::Option*> options_;
};

std::string ReadEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

// An empty variable counts as none.
std::optional<Given> FromEnvironment(const Knob& knob) {
  const std::string name = EnvironmentName(knob.name);
  const std::string text = ReadEnvironment(name);
  if (text.empty()) {
    return std::nullopt;
  }
  Given given{{}, base::StrCat("environment ", name), name};
  if (!knob.repeatable) {
    given.values.push_back(text);
    return given;
  }
  for (const std::string_view line : base::Split(text, '\n')) {
    if (!line.empty()) {
      given.values.emplace_back(line);
    }
  }
  return given;
}

absl::StatusOr<std::map<std::string, Given>> ReadConfigFile(const std::string& path) {
  const auto text = base::ReadFile(path, kMaxConfigFileBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        base::StrCat("--config: ", base::Message(text.status()), "; name a readable file"));
  }
  auto settings = ParseConfigFile(*text, path);
  if (!settings.ok()) {
    return settings.status();
  }
  std::map<std::string, Given> given;
  for (FileSetting& setting : *settings) {
    const std::string place = base::StrCat(path, ":", setting.line);
    if (std::ranges::find(Knobs(), setting.key, &Knob::name) == Knobs().end()) {
      return absl::InvalidArgumentError(base::StrCat(place, ": ", base::Printable(setting.key, 64),
                                                     ": unknown key", Guess(setting.key)));
    }
    given.emplace(setting.key, Given{std::move(setting.values), base::StrCat("file ", place),
                                     base::StrCat(place, ": ", setting.key)});
  }
  return given;
}

}  // namespace

ParseExit UsageError(std::string_view message) {
  return {2, base::StrCat(kProgram, ": ", message, "\nSee ", kProgram, " --help.\n")};
}

Reading ReadKnobs(int argc, const char* const* argv) {
  Reading reading;
  CommandLine line;
  if (auto exit = line.Parse(argc, argv)) {
    reading.exit = std::move(exit);
    return reading;
  }
  const std::vector<std::string>& configs = line.ValuesOf(kConfigFlag);
  if (configs.size() > 1) {
    reading.exit = UsageError("--config: is given more than once; give it once");
    return reading;
  }
  const std::string path =
      configs.empty() ? ReadEnvironment(EnvironmentName(kConfigFlag)) : configs.front();
  std::map<std::string, Given> file;
  if (!path.empty()) {
    auto read = ReadConfigFile(path);
    if (!read.ok()) {
      reading.exit = UsageError(base::Message(read.status()));
      return reading;
    }
    file = *std::move(read);
  }
  for (const Knob& knob : Knobs()) {
    std::optional<Given>& given = reading.given.emplace_back();
    if (const auto& values = line.ValuesOf(knob.name); !values.empty()) {
      given = Given{values, "flag", base::StrCat("--", knob.name)};
    } else if (auto from_environment = FromEnvironment(knob)) {
      given = std::move(from_environment);
    } else if (const auto found = file.find(std::string(knob.name)); found != file.end()) {
      given = std::move(found->second);
    }
    if (given && !knob.repeatable && given->values.size() != 1) {
      reading.exit = UsageError(base::StrCat(given->label, ": takes one value, ",
                                             given->values.size(), " are given; give it once"));
      return reading;
    }
  }
  return reading;
}

}  // namespace postern::config
