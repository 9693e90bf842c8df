// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proxy/intercept/diff.h"
#include "proxy/intercept/nft_process.h"
#include "proxy/intercept/rules.h"

namespace postern::intercept {

// Keeps rules in force: compares what the kernel holds with what should be there, now, once in each
// interval, and soon after nft tells that somebody changed a table; and puts back what differs. One
// thread, which it blocks.
class Watcher {
 public:
  struct Options {
    std::chrono::milliseconds interval{10000};
    bool mend = true;  // false: only tell
  };
  // `tell` gets a sentence for each thing that happened.
  using Tell = std::function<void(std::string_view)>;

  // Errors of Expectation::Of.
  static absl::StatusOr<Watcher> Create(const InterceptConfig& config, const Options& options,
                                        Tell tell);

  // Until a byte, or the end, can be read from `stop`. `on_look` is called after each comparison.
  void Run(int stop, const std::function<void()>& on_look);

 private:
  using SteadyClock = std::chrono::steady_clock;

  Watcher(const InterceptConfig& config, const Options& options, Tell tell, Expectation expectation)
      : config_(config),
        options_(options),
        tell_(std::move(tell)),
        expectation_(std::move(expectation)) {}

  void Look();
  void Mend();
  void Say(const std::vector<std::string>& differences);
  void OpenMonitor();
  bool DrainMonitor();
  void CloseMonitor();
  bool AwaitChange(int stop, std::chrono::milliseconds patience);
  void AwaitQuiet();
  std::chrono::milliseconds Patience() const;

  InterceptConfig config_;
  Options options_;
  Tell tell_;
  Expectation expectation_;
  std::optional<NftProcess> monitor_;
  SteadyClock::time_point monitor_from_;  // not to be started before
  SteadyClock::time_point mended_;
  std::vector<std::string> told_;  // the differences, or the error, that were told last
  bool pending_ = false;           // differences that had to wait
  bool fresh_monitor_ = false;     // one that may not listen yet
};

}  // namespace postern::intercept
