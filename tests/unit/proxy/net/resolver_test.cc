// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/resolver.h"

#include <gtest/gtest.h>

namespace postern::net {
namespace {

TEST(ResolverTest, FindsLocalhost) {
  const absl::StatusOr<std::vector<SocketAddress>> answer = ResolveNow("localhost", 8443);
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

}  // namespace
}  // namespace postern::net
