// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/watcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "common/base/strings.h"
#include "proxy/intercept/nft.h"

namespace postern::intercept {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kQuiet{50};          // a change is often one of several
constexpr milliseconds kLongestQuiet{500};  // but the first one counts
// Two that put back each other's rules do not fill the machine with it.
constexpr milliseconds kBetweenMends{1000};
constexpr milliseconds kMonitorAgain{5000};
// It does not say when it listens: what changed while it started is found by another look.
constexpr milliseconds kMonitorListens{3000};
constexpr size_t kToldAtMost = 20;

milliseconds Since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - then);
}

}  // namespace

absl::StatusOr<Watcher> Watcher::Create(const InterceptConfig& config, const Options& options,
                                        Tell tell) {
  absl::StatusOr<Expectation> expectation = Expectation::Of(config);
  if (!expectation.ok()) {
    return expectation.status();
  }
  return Watcher(config, options, std::move(tell), *std::move(expectation));
}

void Watcher::Run(int stop, const std::function<void()>& on_look) {
  while (true) {
    OpenMonitor();  // before the look: what happens after it is not missed
    Look();
    on_look();
    const milliseconds patience = Patience();
    fresh_monitor_ = false;
    if (AwaitChange(stop, patience)) {
      break;
    }
    AwaitQuiet();
  }
  CloseMonitor();
}

void Watcher::Look() {
  pending_ = false;
  const absl::StatusOr<std::vector<std::string>> differences = expectation_.Differences();
  if (!differences.ok()) {
    Say({base::StrCat("cannot compare the rules: ", base::Message(differences.status()))});
    return;
  }
  if (differences->empty()) {
    told_.clear();
    return;
  }
  if (!options_.mend) {
    Say(*differences);
    return;
  }
  if (Since(mended_) < kBetweenMends) {
    pending_ = true;
    return;
  }
  Say(*differences);
  Mend();
}

void Watcher::Mend() {
  mended_ = SteadyClock::now();
  if (const absl::Status applied = ApplyRules(config_); !applied.ok()) {
    tell_(base::StrCat("cannot put the rules back: ", base::Message(applied)));
    return;
  }
  tell_(base::StrCat("the rules of table inet ", TableName(config_.name), " are in force again"));
  told_.clear();
}

// Not the same again with each interval.
void Watcher::Say(const std::vector<std::string>& differences) {
  if (differences == told_) {
    return;
  }
  told_ = differences;
  for (size_t i = 0; i < std::min(differences.size(), kToldAtMost); ++i) {
    tell_(differences[i]);
  }
  if (differences.size() > kToldAtMost) {
    tell_(base::StrCat("and ", differences.size() - kToldAtMost, " more"));
  }
}

milliseconds Watcher::Patience() const {
  if (pending_) {
    return std::max(kBetweenMends - Since(mended_), milliseconds(1));
  }
  return fresh_monitor_ ? std::min<milliseconds>(options_.interval, kMonitorListens)
                        : options_.interval;
}

// Without it the interval still holds.
void Watcher::OpenMonitor() {
  if (monitor_.has_value() || SteadyClock::now() < monitor_from_) {
    return;
  }
  monitor_from_ = SteadyClock::now() + kMonitorAgain;
  absl::StatusOr<NftProcess> started = NftProcess::Start({"-j", "monitor"});
  if (!started.ok()) {
    tell_(base::StrCat("nft monitor: ", base::Message(started.status())));
    return;
  }
  monitor_ = *std::move(started);
  fresh_monitor_ = true;
  monitor_->input.Close();
  fcntl(monitor_->output.get(), F_SETFL, O_NONBLOCK);
  fcntl(monitor_->error.get(), F_SETFL, O_NONBLOCK);
}

// Reads away what it said: that it spoke is enough. False: it has ended.
bool Watcher::DrainMonitor() {
  std::array<char, 65536> buffer;
  for (const int fd : {monitor_->error.get(), monitor_->output.get()}) {
    ssize_t got = 0;
    do {
      got = read(fd, buffer.data(), buffer.size());
    } while (got > 0 || (got < 0 && errno == EINTR));
    if (got == 0 && fd == monitor_->output.get()) {
      return false;
    }
  }
  return true;
}

void Watcher::CloseMonitor() {
  if (monitor_.has_value()) {
    kill(monitor_->pid, SIGKILL);
    monitor_->Wait();
    monitor_.reset();
  }
}

// True: it is time to stop.
bool Watcher::AwaitChange(int stop, milliseconds patience) {
  const int fd = monitor_.has_value() ? monitor_->output.get() : -1;
  std::array<pollfd, 2> polls = {pollfd{stop, POLLIN, 0}, pollfd{fd, POLLIN, 0}};
  if (poll(polls.data(), polls.size(), static_cast<int>(patience.count())) <= 0) {
    return false;
  }
  return polls[0].revents != 0;
}

void Watcher::AwaitQuiet() {
  const auto began = SteadyClock::now();
  while (monitor_.has_value() && Since(began) < kLongestQuiet) {
    if (!DrainMonitor()) {
      CloseMonitor();
      return;
    }
    pollfd more{monitor_->output.get(), POLLIN, 0};
    if (poll(&more, 1, static_cast<int>(kQuiet.count())) <= 0) {
      return;
    }
  }
}

}  // namespace postern::intercept
