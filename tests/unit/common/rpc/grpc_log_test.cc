// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/grpc_log.h"

#include <gmock/gmock.h>
#include <google/protobuf/wrappers.pb.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <sstream>
#include <string>

namespace postern::rpc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What our log gets at debug level while `speak` runs, and what standard error gets.
struct Words {
  std::string logged, written;
};
template <typename Speak>
Words WordsOf(const Speak& speak) {
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  const auto ours = std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log));
  ours->set_level(spdlog::level::debug);
  spdlog::set_default_logger(ours);
  ::testing::internal::CaptureStderr();
  speak();
  Words words{"", ::testing::internal::GetCapturedStderr()};
  spdlog::set_default_logger(before);
  words.logged = log.str();
  return words;
}

TEST(GrpcLogTest, AMessageThatDoesNotParseIsADebugLine) {
  RouteGrpcLog();
  const Words words = WordsOf([] {
    google::protobuf::StringValue message;
    EXPECT_FALSE(message.ParseFromString("\x0A\x01\xFF"));  // a string that is no UTF-8
  });
  EXPECT_EQ(words.written, "");
  EXPECT_THAT(words.logged, AllOf(HasSubstr("protobuf: "), HasSubstr("UTF-8")));
}

}  // namespace
}  // namespace postern::rpc
