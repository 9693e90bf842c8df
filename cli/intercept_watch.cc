// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/command.h"
#include "cli/intercept_options.h"
#include "common/base/process.h"
#include "common/base/strings.h"
#include "proxy/intercept/diff.h"
#include "proxy/intercept/watcher.h"

namespace postern::cli {
namespace {

using intercept::Depth;
using intercept::Expectation;
using intercept::InterceptConfig;
using intercept::Watcher;

// ---------------------------------------------------------------- diff

absl::Status Diff(const RuleOptions& options, const std::string& output, Context& context) {
  const absl::StatusOr<InterceptConfig> config = RulesFrom(options);
  if (!config.ok())
    return config.status();
  const absl::StatusOr<Expectation> expectation = Expectation::Of(*config);
  if (!expectation.ok())
    return expectation.status();
  const absl::StatusOr<std::vector<std::string>> differences = expectation->Differences();
  if (!differences.ok())
    return differences.status();
  const bool contents = expectation->depth() == Depth::kContents;
  if (output == "json") {
    context.out << nlohmann::json({{"table", intercept::TableName(config->name)},
                                   {"contents_compared", contents},
                                   {"differences", *differences}})
                       .dump(2)
                << "\n";
  } else {
    for (const std::string& line : *differences) {
      context.out << line << "\n";
    }
  }
  if (!contents) {
    context.err
        << "postern: compared by what Postern wrote beside each rule alone; to compare what "
           "they do, run this as root (CAP_SYS_ADMIN)\n";
  }
  if (differences->empty()) {
    context.err << "postern: the rules in force are these\n";
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(base::StrCat("the rules in force are others (table inet ",
                                                    intercept::TableName(config->name),
                                                    "; - is missing, + is not ours)"));
}

// ---------------------------------------------------------------- watch

struct WatchOptions {
  RuleOptions rules;
  std::string interval = "10s";
  bool only_tell = false;
};

// The signals that end the program, as something to read from. Handled rather than blocked: which
// thread one comes to is not ours to say. One at a time.
class EndSignals {
 public:
  EndSignals() {
    std::array<int, 2> ends{-1, -1};
    if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
      return;
    read_end_ = ends[0];
    write_end_ = ends[1];
    struct sigaction action {};
    action.sa_handler = [](int) {
      const int before = errno;
      (void)!write(write_end_, "", 1);
      errno = before;
    };
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
  }
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;
  int fd() const { return read_end_; }

 private:
  int read_end_ = -1;                 // open until the program's end
  static inline int write_end_ = -1;  // for the handler
};

absl::Status Watch(const WatchOptions& options, Context& context) {
  const absl::StatusOr<InterceptConfig> config = RulesFrom(options.rules);
  if (!config.ok())
    return config.status();
  const absl::StatusOr<std::chrono::seconds> interval =
      ParseDuration("--interval", options.interval);
  if (!interval.ok())
    return interval.status();
  if (interval->count() == 0)
    return absl::InvalidArgumentError("--interval: 0 is no interval; give at least 1s");
  const auto tell = [&context](std::string_view text) {
    context.err << "postern: " << text << std::endl;  // whoever reads this waits for it
  };
  Watcher::Options how;
  how.interval = *interval;
  how.mend = !options.only_tell;
  const EndSignals ends;
  if (ends.fd() < 0)
    return absl::ErrnoToStatus(errno, "making a pipe");
  absl::StatusOr<Watcher> watcher = Watcher::Create(*config, how, tell);
  if (!watcher.ok())
    return watcher.status();
  tell(base::StrCat("watching table inet ", intercept::TableName(config->name)));
  // After the first look, that is when the rules are in force.
  watcher->Run(ends.fd(), [] { base::NotifyServiceManager("READY=1"); });
  return absl::OkStatus();
}

}  // namespace

void AddDiff(CLI::App* noun, Context& context) {
  CLI::App* diff = noun->add_subcommand(
      "diff",
      "compare what is in force with what `up` would make of the same flags; exit 1: it "
      "differs");
  auto options = std::make_shared<RuleOptions>();
  auto output = std::make_shared<std::string>("text");
  AddRuleOptions(diff, options.get());
  AddOutputOption(diff, output.get(), {"text", "json"});
  OnSelected(diff, context, [options, output](Context& c) { return Diff(*options, *output, c); });
}

void AddWatch(CLI::App* noun, Context& context) {
  CLI::App* watch = noun->add_subcommand(
      "watch",
      "keep the rules that `up` would make of the same flags in force, until it is ended; "
      "they stay then");
  auto options = std::make_shared<WatchOptions>();
  AddRuleOptions(watch, &options->rules);
  watch->add_option("--interval", options->interval, "compare at least so often")
      ->capture_default_str();
  watch->add_flag("--only-tell", options->only_tell, "say what differs and change nothing");
  OnSelected(watch, context, [options](Context& c) { return Watch(*options, c); });
}

}  // namespace postern::cli
