// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <spdlog/async.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::base {
namespace {

using spdlog::level::level_enum;

// A thread that is begun while this lives takes no signal: those are for whoever waits for them (a
// signalfd sees none that another thread has taken).
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~AllSignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

// spdlog makes the whole queue at the start, some 400 bytes for each line.
constexpr size_t kQueuedLines = 512;

constexpr std::array<std::pair<std::string_view, level_enum>, 6> kLevels = {{
    {"trace", level_enum::trace},
    {"debug", level_enum::debug},
    {"info", level_enum::info},
    {"warn", level_enum::warn},
    {"error", level_enum::err},
    {"off", level_enum::off},
}};

absl::StatusOr<level_enum> ParseLevel(std::string_view name) {
  for (const auto& [known, level] : kLevels) {
    if (known == name) {
      return level;
    }
  }
  return absl::InvalidArgumentError(StrCat("'", Printable(name, 32),
                                           "' is not a log level (trace, debug, info, warn, "
                                           "error, off)"));
}

std::string_view LevelName(level_enum level) {
  for (const auto& [known, value] : kLevels) {
    if (value == level) {
      return known;
    }
  }
  return "error";  // spdlog's "critical", which we do not use
}

void Append(std::string_view text, spdlog::memory_buf_t& dest) {
  dest.append(text.data(), text.data() + text.size());
}

// %*: the message, unable to end its line or its JSON string.
class SafeMessageFlag final : public spdlog::custom_flag_formatter {
 public:
  explicit SafeMessageFlag(LogFormat format) : format_(format) {}

  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
              spdlog::memory_buf_t& dest) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    Append(format_ == LogFormat::kJson ? JsonEscaped(text) : LineSafe(text), dest);
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<SafeMessageFlag>(format_);
  }

 private:
  LogFormat format_;
};

// %~: the level under the name that --log-level knows it by.
class LevelFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
              spdlog::memory_buf_t& dest) override {
    Append(LevelName(message.level), dest);
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LevelFlag>();
  }
};

// What InitLogging made. Never destroyed: threads may log while the process ends.
struct LogState {
  std::mutex mutex;
  std::shared_ptr<spdlog::details::thread_pool> pool;  // guarded by mutex
  uint64_t dropped_before = 0;                         // of stopped pools; guarded by mutex
};

LogState& State() {
  static LogState* const state = new LogState;
  return *state;
}

// Lets the background thread write what is queued, and joins it. Under the state's mutex.
void StopPool(LogState& state) {
  if (state.pool != nullptr) {
    state.dropped_before += state.pool->overrun_counter();
    state.pool.reset();
  }
}

}  // namespace

std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<SafeMessageFlag>('*', format);
  formatter->add_flag<LevelFlag>('~');
  formatter->set_pattern(format == LogFormat::kJson
                             ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%~","message":"%*"})"
                             : "%Y-%m-%dT%H:%M:%S.%eZ %~ %*");
  return formatter;
}

absl::Status InitLogging(std::string_view level, LogFormat format) {
  const absl::StatusOr<level_enum> parsed = ParseLevel(level);
  if (!parsed.ok()) {
    return parsed.status();
  }
  LogState& state = State();
  const std::lock_guard lock(state.mutex);
  StopPool(state);
  {
    const AllSignalsBlocked inherited;
    state.pool = std::make_shared<spdlog::details::thread_pool>(kQueuedLines, 1);
  }
  auto logger = std::make_shared<spdlog::async_logger>(
      "postern", std::make_shared<spdlog::sinks::stderr_sink_mt>(), state.pool,
      spdlog::async_overflow_policy::overrun_oldest);
  logger->set_formatter(MakeLogFormatter(format));
  logger->set_level(*parsed);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

absl::Status SetLogLevel(std::string_view level) {
  const absl::StatusOr<level_enum> parsed = ParseLevel(level);
  if (!parsed.ok()) {
    return parsed.status();
  }
  spdlog::default_logger_raw()->set_level(*parsed);
  return absl::OkStatus();
}

std::string LogLevel() {
  return std::string(LevelName(spdlog::default_logger_raw()->level()));
}

uint64_t DroppedLogLines() {
  LogState& state = State();
  const std::lock_guard lock(state.mutex);
  return state.dropped_before + (state.pool == nullptr ? 0 : state.pool->overrun_counter());
}

void FlushLogging() {
  LogState& state = State();
  const std::lock_guard lock(state.mutex);
  if (state.pool == nullptr) {
    return;
  }
  // What is logged after this is written at once by the thread that logs it.
  const std::shared_ptr<spdlog::logger> queued = spdlog::default_logger();
  auto direct =
      std::make_shared<spdlog::logger>("postern", queued->sinks().begin(), queued->sinks().end());
  direct->set_level(queued->level());
  StopPool(state);
  spdlog::set_default_logger(std::move(direct));
}

}  // namespace postern::base
