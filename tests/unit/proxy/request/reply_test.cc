// SPDX-License-Identifier: Apache-2.0
#include "proxy/request/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::request {
namespace {

using base::CloseReason;
using testing::HasSubstr;
using testing::StartsWith;
using namespace std::string_literals;

TEST(ReplyTest, GrantsInTheClientsLanguage) {
  EXPECT_EQ(Granted(Protocol::kSocks5), "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"s);
  EXPECT_THAT(Granted(Protocol::kHttpConnect), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Granted(Protocol::kHttpConnect), testing::Not(HasSubstr("Content-Length")));
}

TEST(ReplyTest, RefusesByWhatHappened) {
  struct Row {
    CloseReason reason;
    int error;
    int socks;
    int http;
  };
  const std::vector<Row> rows = {
      {CloseReason::kConnectFailed, ECONNREFUSED, 5, 502},
      {CloseReason::kConnectFailed, ENETUNREACH, 3, 502},
      {CloseReason::kConnectFailed, EHOSTUNREACH, 4, 502},
      {CloseReason::kConnectFailed, ETIMEDOUT, 6, 504},
      {CloseReason::kConnectFailed, EACCES, 1, 502},
      {CloseReason::kConnectFailed, 0, 4, 502},
      {CloseReason::kConnectTimeout, 0, 6, 504},
      {CloseReason::kHandshakeTimeout, 0, 6, 504},
      {CloseReason::kLookupTimeout, 0, 6, 504},
      {CloseReason::kDestinationDenied, 0, 2, 403},
      {CloseReason::kMeshDowngrade, 0, 2, 403},
      {CloseReason::kMtlsRequired, 0, 2, 403},
      {CloseReason::kSelfLoop, 0, 2, 403},
      {CloseReason::kIdentityMismatch, 0, 1, 502},
      {CloseReason::kHandshakeFailed, 0, 1, 502},
      {CloseReason::kPeerUntrusted, 0, 1, 502},
      {CloseReason::kNoIdentity, 0, 1, 503},
      {CloseReason::kStaleTrust, 0, 1, 503},
      {CloseReason::kOverload, 0, 1, 503},
      {CloseReason::kBadProxyRequest, 0, 1, 400},
      {CloseReason::kProxyRequestTimeout, 0, 1, 408},
      {CloseReason::kInternal, 0, 1, 500},
  };
  for (const Row& row : rows) {
    const std::string socks = Refusal(Protocol::kSocks5, row.reason, row.error);
    ASSERT_EQ(socks.size(), 10U);
    EXPECT_EQ(socks[1], static_cast<char>(row.socks)) << base::Token(row.reason) << row.error;
    const std::string http = Refusal(Protocol::kHttpConnect, row.reason, row.error);
    EXPECT_THAT(http, StartsWith(base::StrCat("HTTP/1.1 ", row.http, " ")));
    EXPECT_THAT(http, HasSubstr(base::StrCat("\r\nPostern-Close-Reason: ", base::Token(row.reason),
                                             "\r\n")));
  }
}

TEST(ReplyTest, EveryReasonHasAWholeResponse) {
  for (const CloseReason reason : base::kAllCloseReasons) {
    const std::string http = Refusal(Protocol::kHttpConnect, reason, 0);
    const size_t body = http.find("\r\n\r\n") + 4;
    EXPECT_THAT(http, HasSubstr(base::StrCat("Content-Length: ", http.size() - body, "\r\n")));
    EXPECT_THAT(http, testing::Not(HasSubstr("  "))) << "a status without its phrase";
  }
}

}  // namespace
}  // namespace postern::request
