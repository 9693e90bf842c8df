// SPDX-License-Identifier: Apache-2.0
#include "control/federation/http_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/base/strings.h"
#include "tests/testing/cpu_time.h"

namespace postern::federation {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMost = 1000;
const std::string kOk = "HTTP/1.1 200 OK\r\n";

// Feeds in pieces of `piece` bytes; the body, or why not. Text that does not end by itself ends
// cleanly.
absl::StatusOr<std::string> Read(const std::string& text, size_t piece = 1, bool cleanly = true) {
  HttpResponse response(kMost);
  for (size_t at = 0; at < text.size(); at += piece) {
    const absl::StatusOr<bool> done = response.Feed(std::string_view(text).substr(at, piece));
    if (!done.ok()) {
      return done.status();
    }
    if (*done) {
      return response.body();
    }
  }
  const absl::Status end = response.End(cleanly);
  return end.ok() ? absl::StatusOr<std::string>(response.body()) : end;
}

void ExpectRefused(const std::string& text, absl::StatusCode code, std::string_view why) {
  for (const size_t piece : {size_t{1}, size_t{7}, text.size() + 1}) {
    const absl::StatusOr<std::string> read = Read(text, piece);
    EXPECT_EQ(read.status().code(), code) << text << read.status();
    EXPECT_THAT(std::string(base::Message(read.status())), HasSubstr(std::string(why)));
  }
}

TEST(HttpResponseTest, ReadsALengthInAnyPieces) {
  for (const size_t piece : {1, 2, 3, 1000}) {
    EXPECT_EQ(
        *Read(kOk + "Content-Type: application/json\r\ncontent-length: 5\r\n\r\nhello+more", piece),
        "hello");
    EXPECT_EQ(*Read(kOk + "Content-Length: 0\r\n\r\n", piece), "");
  }
}

TEST(HttpResponseTest, ReadsChunksInAnyPieces) {
  const std::string text = kOk +
                           "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n"
                           "0\r\nTrailer: 1\r\n\r\n";
  for (const size_t piece : {1, 2, 3, 1000}) {
    EXPECT_EQ(*Read(text, piece), "hello world");
  }
}

TEST(HttpResponseTest, ReadsUntilTheEndOnlyIfThatIsAProperOne) {
  EXPECT_EQ(*Read(kOk + "\r\nhello"), "hello");
  EXPECT_EQ(*Read("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello"), "hello");
  EXPECT_EQ(Read(kOk + "\r\nhello", 1, false).status().code(), absl::StatusCode::kDataLoss);
}

TEST(HttpResponseTest, ABodyThatIsCutIsNoBody) {
  for (const std::string& text : {std::string(), kOk, kOk + "Content-Length: 6\r\n\r\nhello",
                                  kOk + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
                                  kOk + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                                  kOk + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"}) {
    EXPECT_EQ(Read(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

TEST(HttpResponseTest, OnlyA200IsAnAnswer) {
  ExpectRefused("HTTP/1.1 404 Not Found\r\n\r\n", absl::StatusCode::kFailedPrecondition, "404");
  ExpectRefused("HTTP/1.1 302 Found\r\nLocation: https://b/\r\n\r\n",
                absl::StatusCode::kFailedPrecondition, "redirects are not followed");
  ExpectRefused("HTTP/1.1 204 No Content\r\n\r\n", absl::StatusCode::kFailedPrecondition, "204");
}

TEST(HttpResponseTest, RefusesEncodingsThatWereNotAskedFor) {
  ExpectRefused(kOk + "Transfer-Encoding: gzip, chunked\r\n\r\n",
                absl::StatusCode::kFailedPrecondition, "transfer-encoding");
  ExpectRefused(kOk + "Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
                absl::StatusCode::kFailedPrecondition, "compressed");
}

TEST(HttpResponseTest, RefusesWhatIsNoHttp) {
  const auto bad = absl::StatusCode::kInvalidArgument;
  ExpectRefused("SSH-2.0-OpenSSH\r\n\r\n", bad, "first line");
  ExpectRefused("HTTP/1.1 2x0 OK\r\n\r\n", bad, "first line");
  ExpectRefused("HTTP/1.1 2000\r\n\r\n", bad, "first line");
  ExpectRefused("HTTP/2 200 OK yes\r\n\r\n", bad, "first line");
  ExpectRefused(kOk + "no colon\r\n\r\n", bad, "header");
  ExpectRefused(kOk + "A : b\r\n\r\n", bad, "header");
  ExpectRefused(kOk + "A: b\r\n folded: c\r\n\r\n", bad, "header");
  ExpectRefused(kOk + "Content-Length: -1\r\n\r\n", bad, "content-length");
  ExpectRefused(kOk + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", bad, "content-length");
  ExpectRefused(kOk + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", bad, "both");
  ExpectRefused(kOk + "Transfer-Encoding: chunked\r\n\r\nx\r\n", bad, "chunk");
  ExpectRefused(kOk + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", bad, "chunk");
}

TEST(HttpResponseTest, HoldsNoMoreThanItsBounds) {
  const auto large = absl::StatusCode::kResourceExhausted;
  ExpectRefused(kOk + "Content-Length: 1001\r\n\r\n", large, "1001 bytes");
  ExpectRefused(kOk + "Content-Length: 99999999999999999999999\r\n\r\n",
                absl::StatusCode::kInvalidArgument, "content-length");
  ExpectRefused(kOk + "Transfer-Encoding: chunked\r\n\r\n3e9\r\n", large, "more than 1000");
  ExpectRefused(kOk + "\r\n" + std::string(1001, 'x'), large, "more than 1000");
  ExpectRefused(kOk + "X: " + std::string(20'000, 'x'), large, "headers");
  ExpectRefused(kOk + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + std::string(20'000, 'x'), large,
                "headers");
  std::string tiny = kOk + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 900; ++i) {
    tiny += "1;" + std::string(30, 'x') + "\r\nx\r\n";
  }
  ExpectRefused(tiny, large, "headers");
}

// Each of its bytes is looked at once, not once more for each byte that comes behind it.
TEST(HttpResponseTest, AHeadInSingleBytesCostsWhatItsBytesCost) {
  const std::string head = kOk + "X: ";
  const absl::Duration begin = testing::CpuTime();
  for (int i = 0; i < 10; ++i) {
    HttpResponse response(kMost);
    for (size_t at = 0; at < kMaxResponseHead; ++at) {
      const char byte = at < head.size() ? head[at] : '\r';
      const absl::StatusOr<bool> done = response.Feed({&byte, 1});
      ASSERT_TRUE(done.ok() && !*done) << at;
    }
  }
  EXPECT_LT(testing::CpuTime() - begin, absl::Milliseconds(500));
}

}  // namespace
}  // namespace postern::federation
