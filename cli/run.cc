// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <memory>
#include <utility>

#include "cli/command.h"
#include "cli/run/supervisor.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

// Of `postern run` itself, beside what it runs: as `env` and `timeout` have it.
constexpr int kExitOwnFailure = 125;

// The flags of `postern run`; everything else before "--" is the proxy's. All but help have a
// value.
constexpr std::array<std::string_view, 4> kOwnFlags = {"--proxy", "--proxy-log", "--ready-timeout",
                                                       "--drain-timeout"};
// Those that may stand before the noun, and have a value.
constexpr std::array<std::string_view, 3> kRootFlags = {"--config", "--log-level", "--log-format"};

template <size_t N>
bool IsOneOf(const std::array<std::string_view, N>& flags, std::string_view word) {
  return std::ranges::find(flags, word) != flags.end();
}

// The position of the noun; argc without one.
int NounOf(int argc, const char* const* argv) {
  int at = 1;
  while (at < argc && argv[at][0] == '-') {
    at += IsOneOf(kRootFlags, argv[at]) ? 2 : 1;
  }
  return std::min(at, argc);
}

// The proxy that was installed or built with this program.
std::string ProxyBesideThis() {
  std::array<char, PATH_MAX> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  const std::string self(path.data(), length > 0 ? static_cast<size_t>(length) : 0);
  return self.substr(0, self.rfind('/') + 1) + "postern-proxy";
}

struct RunOptions {
  std::string proxy, proxy_log, ready_timeout = "30s", drain_timeout = "5s";
};

absl::Status RunCommand(const RunOptions& o, Context& context) {
  if (context.command.empty()) {
    return absl::InvalidArgumentError(
        "run: no command; write it behind --: postern run [FLAGS OF THE PROXY] -- COMMAND ARGS");
  }
  const absl::StatusOr<std::chrono::seconds> ready =
      ParseDuration("--ready-timeout", o.ready_timeout);
  if (!ready.ok()) {
    return ready.status();
  }
  const absl::StatusOr<std::chrono::seconds> drain =
      ParseDuration("--drain-timeout", o.drain_timeout);
  if (!drain.ok()) {
    return drain.status();
  }
  run::Options options;
  options.proxy = o.proxy.empty() ? ProxyBesideThis() : o.proxy;
  options.proxy_words = context.proxy_words;
  options.proxy_words.push_back(base::StrCat("--drain-timeout=", drain->count(), "s"));
  options.command = context.command;
  options.proxy_log = o.proxy_log;
  options.ready_timeout = *ready;
  options.drain_timeout = *drain;
  const absl::StatusOr<int> ended = run::Supervise(options, context.err);
  if (ended.ok()) {
    context.exit_status = *ended;
  } else if (!absl::IsInvalidArgument(ended.status())) {
    context.exit_status = kExitOwnFailure;
  }
  return ended.status();
}

}  // namespace

CommandLine SplitCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  const int noun = NounOf(argc, argv);
  const bool runs = noun < argc && std::string_view(argv[noun]) == "run";
  line.words.assign(argv, argv + (runs ? noun + 1 : argc));
  for (int at = noun + 1; runs && at < argc; ++at) {
    const std::string_view word = argv[at];
    if (word == "--") {
      line.command.assign(argv + at + 1, argv + argc);
      break;
    }
    if (word != "--help" && word != "-h" && !IsOneOf(kOwnFlags, word.substr(0, word.find('=')))) {
      line.proxy_words.emplace_back(word);
      continue;
    }
    line.words.emplace_back(word);
    if (IsOneOf(kOwnFlags, word) && at + 1 < argc) {
      line.words.emplace_back(argv[++at]);
    }
  }
  return line;
}

void AddRun(CLI::App& root, Context& context) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* run = root.add_subcommand(
      "run",
      "a command beside a proxy of its own, without any privilege: its TCP connections and the "
      "ports that it listens at go through the proxy. postern run [FLAGS] -- COMMAND ARGS; flags "
      "that are not listed here are the proxy's (`postern-proxy --help`). Ends with the command's "
      "exit status, 128 and its signal, 126 or 127 if it cannot be executed, 125 if the proxy "
      "cannot");
  run->add_option("--proxy", o->proxy, "the program to start instead of the installed one");
  run->add_option("--proxy-log", o->proxy_log,
                  "file for what the proxy writes, - for standard error; without it that is shown "
                  "only when the proxy fails");
  run->add_option("--ready-timeout", o->ready_timeout,
                  "how long the command may wait for the proxy's certificate and policy")
      ->capture_default_str();
  run->add_option("--drain-timeout", o->drain_timeout,
                  "how long connections may go on after the command")
      ->capture_default_str();
  OnSelected(run, context, [o](Context& c) { return RunCommand(*o, c); });
}

}  // namespace postern::cli
