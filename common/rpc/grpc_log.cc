// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/grpc_log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <string>

#include "common/base/bytes.h"

namespace postern::rpc {
namespace {

constexpr size_t kLongestLine = 512;

void WriteLine(gpr_log_func_args* args) {
  const auto level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::debug : spdlog::level::trace;
  // The message may hold what a peer sent.
  spdlog::log(level, "grpc: {}", base::LineSafe(args->message, kLongestLine));
}

// Protobuf speaks of messages that do not parse: each is refused, and whoever sent it is told.
void WriteProtobufLine(google::protobuf::LogLevel level, const char* /*file*/, int /*line*/,
                       const std::string& message) {
  spdlog::log(
      level >= google::protobuf::LOGLEVEL_ERROR ? spdlog::level::debug : spdlog::level::trace,
      "protobuf: {}", base::LineSafe(message, kLongestLine));
}

}  // namespace

void RouteGrpcLog() {
  gpr_set_log_function(&WriteLine);
  google::protobuf::SetLogHandler(&WriteProtobufLine);
}

}  // namespace postern::rpc
