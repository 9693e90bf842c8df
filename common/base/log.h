// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spdlog/spdlog.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postern::base {

enum class LogFormat : uint8_t { kText, kJson };

// Sets up the process's log: one line for each event on standard error, from a background thread
// with a bounded queue, so that a slow reader never blocks a loop; what is dropped is counted
// (DroppedLogLines). Call once, before any other thread exists. InvalidArgument: unknown level.
absl::Status InitLogging(std::string_view level, LogFormat format);

// How a line looks: for loggers of one's own beside the process's. Time in UTC, the level's name,
// the message; in JSON an object of these three. Whatever a message holds, it stays one line (and
// one JSON string).
std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format);

// Changes the level while running. InvalidArgument: unknown level (trace, debug, info, warn, error,
// off are known).
absl::Status SetLogLevel(std::string_view level);
std::string LogLevel();

// Lines lost because the queue was full, since the start. Any thread.
uint64_t DroppedLogLines();

// Writes out what is queued and stops the background thread. Call last in main.
void FlushLogging();

}  // namespace postern::base
