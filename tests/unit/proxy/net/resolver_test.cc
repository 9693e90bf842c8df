// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/resolver.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>

namespace postern::net {
namespace {

TEST(ResolverTest, FindsLocalhostOnTheLoop) {
  const std::unique_ptr<Loop> loop = Loop::Create().value();
  std::optional<Resolver> resolver;
  absl::StatusOr<std::vector<SocketAddress>> answer = absl::UnknownError("no answer");
  resolver.emplace(*loop, "localhost", 8443, [&](absl::StatusOr<std::vector<SocketAddress>> got) {
    EXPECT_TRUE(loop->IsInLoopThread());
    answer = std::move(got);
    resolver.reset();  // inside its own callback
    loop->Stop();
  });
  loop->Run();
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_FALSE(answer->empty());
  EXPECT_TRUE(answer->front().ip().IsLoopback());
  EXPECT_EQ(answer->front().port(), 8443);
}

TEST(ResolverTest, NamesTheHostThatDoesNotExist) {
  // RFC 6761: "invalid" never resolves.
  const absl::StatusOr<std::vector<SocketAddress>> answer = ResolveNow("nowhere.invalid", 1);
  ASSERT_FALSE(answer.ok());
  EXPECT_NE(answer.status().message().find("nowhere.invalid"), absl::string_view::npos);
}

TEST(ResolverTest, NeverCallsBackOnceDestroyed) {
  const std::unique_ptr<Loop> loop = Loop::Create().value();
  int calls = 0;
  for (int i = 0; i < 20; ++i) {
    Resolver gone(*loop, "localhost", 1,
                  [&](const absl::StatusOr<std::vector<SocketAddress>>&) { ++calls; });
  }
  std::optional<Resolver> last;
  last.emplace(*loop, "localhost", 1,
               [&](const absl::StatusOr<std::vector<SocketAddress>>&) { loop->Stop(); });
  loop->Run();
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace postern::net
