// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postern::cli {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

inline constexpr char kDefaultSocket[] = "/run/postern/identity.sock";
inline constexpr char kDefaultProxyAdmin[] = "127.0.0.1:15000";
inline constexpr char kDefaultProxyMetrics[] = "127.0.0.1:15020";

// The group of options that only the command line and --config may set: what a command takes away
// is never picked up from an environment that was made for another program (POSTERN_ISSUER is the
// proxy's).
inline constexpr char kNotFromEnvironment[] = "Not from the environment";

// Where a command writes, and the one that the command line names. Results go to `out`, everything
// said to a person beside them to `err`.
struct Context {
  std::ostream& out;
  std::ostream& err;
  std::function<absl::Status(Context&)> action;
  // Of `postern run`: the words that are not its own, the proxy's flags and the command.
  std::vector<std::string> proxy_words, command;
  // What the program ends with, where that is not for the action's status to say.
  std::optional<int> exit_status;
};

// Runs `action` when the command line names this subcommand. Its status decides the exit status:
// InvalidArgument and Unimplemented are usage (2), any other error is a failure (1).
void OnSelected(CLI::App* command, Context& context, std::function<absl::Status(Context&)> action);

// A failure whose text was printed already.
absl::Status AlreadySaid();

// --output with these values; the first is the default, which `target` must hold.
void AddOutputOption(CLI::App* command, std::string* target,
                     const std::vector<std::string>& values);

// "90s", "10m", "1h30m" or a number of seconds. InvalidArgument names `flag`. Never negative.
absl::StatusOr<std::chrono::seconds> ParseDuration(std::string_view flag, std::string_view text);

// What a command line consists of once `postern run` has been looked for: its own words for CLI11,
// and what goes into the Context. Without `run` as the noun, `words` is the whole line.
struct CommandLine {
  std::vector<std::string> words;
  std::vector<std::string> proxy_words, command;
};
CommandLine SplitCommandLine(int argc, const char* const* argv);

// One function for each noun: adds its subcommands.
void AddBundle(CLI::App& root, Context& context);
void AddCa(CLI::App& root, Context& context);
void AddCert(CLI::App& root, Context& context);
void AddEntry(CLI::App& root, Context& context);
void AddIntercept(CLI::App& root, Context& context);
void AddMember(CLI::App& root, Context& context);
void AddPolicy(CLI::App& root, Context& context);
void AddRenew(CLI::App& root, Context& context);
void AddRevoke(CLI::App& root, Context& context);
void AddRun(CLI::App& root, Context& context);
void AddSeen(CLI::App& root, Context& context);
void AddStatus(CLI::App& root, Context& context);
void AddToken(CLI::App& root, Context& context);
void AddWait(CLI::App& root, Context& context);

}  // namespace postern::cli
