// SPDX-License-Identifier: Apache-2.0
#include "common/handover/handover.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace postern::handover {
namespace {

class HandoverTest : public ::testing::Test {
 protected:
  HandoverTest() {
    auto made = MakeChannel();
    EXPECT_TRUE(made.ok()) << made.status();
    near_ = std::move(made->first);
    far_ = std::move(made->second);
  }

  base::UniqueFd near_, far_;
};

Message MakeMessage(Kind kind, std::string_view ip, uint16_t port) {
  Message message;
  message.kind = kind;
  message.ip = base::IpAddress::Parse(ip).value();
  message.port = port;
  return message;
}

TEST_F(HandoverTest, CarriesMessagesOfBothFamiliesInTheirOrder) {
  const std::array<Message, 3> sent = {MakeMessage(Kind::kOutbound, "198.18.1.2", 443),
                                       MakeMessage(Kind::kListener, "fd00:5b::7", 65535),
                                       MakeMessage(Kind::kReady, "0.0.0.0", 0)};
  for (const Message& message : sent) {
    ASSERT_TRUE(Send(near_.get(), message, {}).ok());
  }
  for (const Message& message : sent) {
    auto received = Receive(far_.get());
    ASSERT_TRUE(received.ok() && received->has_value());
    EXPECT_EQ((*received)->message, message);
    EXPECT_TRUE((*received)->descriptors.empty());
  }
  auto nothing = Receive(far_.get());
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->has_value());
}

TEST_F(HandoverTest, HandsDescriptorsOverCloseOnExec) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const base::UniqueFd reading(ends[0]);
  const base::UniqueFd writing(ends[1]);
  const std::array<int, 2> both = {reading.get(), writing.get()};
  ASSERT_TRUE(Send(near_.get(), MakeMessage(Kind::kOutbound, "127.0.0.1", 1), both).ok());
  auto received = Receive(far_.get());
  ASSERT_TRUE(received.ok() && received->has_value());
  ASSERT_EQ((*received)->descriptors.size(), 2U);
  EXPECT_EQ(fcntl((*received)->descriptors[0].get(), F_GETFD), FD_CLOEXEC);
  ASSERT_EQ(write((*received)->descriptors[1].get(), "x", 1), 1);
  char got = 0;
  EXPECT_EQ(read((*received)->descriptors[0].get(), &got, 1), 1);
  EXPECT_EQ(got, 'x');
}

TEST_F(HandoverTest, TellsAFullChannelFromOneWhoseEndIsGone) {
  absl::Status sent;
  for (int i = 0; i < 100'000 && sent.ok(); ++i) {
    sent = Send(near_.get(), Message(), {});
  }
  EXPECT_TRUE(absl::IsResourceExhausted(sent)) << sent;
  far_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(Send(near_.get(), Message(), {})));
  EXPECT_TRUE(absl::IsUnavailable(Receive(near_.get()).status()));
}

TEST_F(HandoverTest, RefusesPacketsOfAnotherForm) {
  for (const std::string& packet :
       {std::string("x"), std::string(19, '\1'), std::string(20, '\0'), std::string(20, '\7'),
        std::string(21, '\1'), std::string("\1\5", 2) + std::string(18, '\0')}) {
    ASSERT_GT(send(near_.get(), packet.data(), packet.size(), 0), 0);
    EXPECT_TRUE(absl::IsInvalidArgument(Receive(far_.get()).status())) << packet.size();
  }
}

TEST_F(HandoverTest, AdoptsNothingButSuchAChannel) {
  EXPECT_TRUE(AdoptChannel(near_.get()).ok());
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const base::UniqueFd one(ends[0]);
  const base::UniqueFd other(ends[1]);
  EXPECT_TRUE(absl::IsInvalidArgument(AdoptChannel(one.get())));
  EXPECT_TRUE(absl::IsInvalidArgument(AdoptChannel(-1)));
}

TEST(OutcomeTest, ReadsWhatWasWrittenAndAnEndAsARefusal) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const base::UniqueFd reading(ends[0]);
  base::UniqueFd writing(ends[1]);
  EXPECT_EQ(ReadOutcome(reading.get()), std::nullopt);
  WriteOutcome(writing.get(), 0);
  EXPECT_EQ(ReadOutcome(reading.get()), 0);
  WriteOutcome(writing.get(), EHOSTUNREACH);
  writing.Reset();
  EXPECT_EQ(ReadOutcome(reading.get()), EHOSTUNREACH);
  EXPECT_EQ(ReadOutcome(reading.get()), ECONNREFUSED);
}

}  // namespace
}  // namespace postern::handover
