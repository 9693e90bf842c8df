// SPDX-License-Identifier: Apache-2.0
#include "common/http/request_head.h"

#include <gmock/gmock.h>

#include <string>

#include "common/base/strings.h"

namespace postern::http {
namespace {

using ::testing::HasSubstr;

std::string FaultOf(std::string_view head) {
  const auto parsed = ParseRequestHead(head);
  return parsed.ok() ? "" : std::string(base::Message(parsed.status()));
}

TEST(RequestHeadTest, ReadsWhatAReadingPortAsksFor) {
  const auto head = ParseRequestHead(
      "GET /ready?verbose=1 HTTP/1.1\r\nAccept: */*\r\nhOsT: \t pod-7:15020 \r\n\r\n");
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->method, "GET");
  EXPECT_EQ(head->path, "/ready");
  EXPECT_EQ(head->host, "pod-7:15020");
  EXPECT_FALSE(head->has_body);
}

TEST(RequestHeadTest, AHeadNeedsNoHeaders) {
  const auto head = ParseRequestHead("HEAD / HTTP/1.0\r\n\r\n");
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->method, "HEAD");
  EXPECT_EQ(head->host, "");
}

// What is sent to a proxy, and by some who ask for health: the target counts, not the Host header.
TEST(RequestHeadTest, ReadsAnAbsoluteTarget) {
  for (const std::string target :
       {"http://[::1]:15000/ready", "HTTP://[::1]:15000/ready?verbose=1"}) {
    const std::string text = base::StrCat("GET ", target, " HTTP/1.1\r\nHost: other\r\n\r\n");
    const auto head = ParseRequestHead(text);
    ASSERT_TRUE(head.ok()) << head.status();
    EXPECT_EQ(head->host, "[::1]:15000");
    EXPECT_EQ(head->path, "/ready");
  }
  for (const std::string target : {"http://pod-7", "http://pod-7?a=/b"}) {
    const std::string text = base::StrCat("GET ", target, " HTTP/1.0\r\n\r\n");
    const auto head = ParseRequestHead(text);
    ASSERT_TRUE(head.ok()) << head.status();
    EXPECT_EQ(head->host, "pod-7");
    EXPECT_EQ(head->path, "/");
  }
}

// As somebody types them into nc.
TEST(RequestHeadTest, ALineMayEndInLfAlone) {
  const auto head = ParseRequestHead("GET /live HTTP/1.1\nHost: a\n\n");
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->path, "/live");
  EXPECT_EQ(head->host, "a");
}

TEST(RequestHeadTest, SaysWhetherABodyFollows) {
  for (const std::string header :
       {"Content-Length: 1", "content-length: +0", "Content-Length: 0, 5",
        "Transfer-Encoding: chunked", "transfer-encoding:"}) {
    const auto head =
        ParseRequestHead(base::StrCat("GET / HTTP/1.1\r\nHost: a\r\n", header, "\r\n\r\n"));
    ASSERT_TRUE(head.ok()) << header;
    EXPECT_TRUE(head->has_body) << header;
  }
  const auto none = ParseRequestHead("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_body);
}

TEST(RequestHeadTest, RefusesWhatHasNoSingleMeaning) {
  EXPECT_THAT(FaultOf(""), HasSubstr("empty"));
  EXPECT_THAT(FaultOf("\r\n\r\n"), HasSubstr("request line"));
  EXPECT_THAT(FaultOf("GET  / HTTP/1.1\r\n\r\n"), HasSubstr("request line"));
  EXPECT_THAT(FaultOf("GET /\r\n\r\n"), HasSubstr("request line"));
  EXPECT_THAT(FaultOf("GET / HTTP/2.0\r\n\r\n"), HasSubstr("HTTP/1.1"));
  EXPECT_THAT(FaultOf("GET https://a/ HTTP/1.1\r\n\r\n"), HasSubstr("no path"));
  EXPECT_THAT(FaultOf("GET http:///live HTTP/1.1\r\n\r\n"), HasSubstr("no host"));
  EXPECT_THAT(FaultOf("GET http://a\xC3\xA4/ HTTP/1.1\r\n\r\n"), HasSubstr("no path"));
  EXPECT_THAT(FaultOf("GET /\xC3\xA4 HTTP/1.1\r\n\r\n"), HasSubstr("no path"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), HasSubstr("more than one"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), HasSubstr("without a name"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), HasSubstr("without a name"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nno colon\r\n\r\n"), HasSubstr("without a name"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nX: a\rHost: b\r\n\r\n"), HasSubstr("control"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nX: a\r\r\n\r\n"), HasSubstr("control"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), HasSubstr("behind"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1\r\nHost: a\r\n"), HasSubstr("blank line"));
  EXPECT_THAT(FaultOf("GET / HTTP/1.1"), HasSubstr("without an end"));
}

TEST(RequestHeadTest, FindsTheEndHoweverTheBytesCome) {
  const std::string text = "GET / HTTP/1.1\r\n\r\nmore";
  EXPECT_EQ(FindHeadEnd(text, 0), 18u);
  for (size_t cut = 0; cut < 18; ++cut) {
    EXPECT_EQ(FindHeadEnd(text.substr(0, cut), 0), 0u) << cut;
    EXPECT_EQ(FindHeadEnd(text, cut), 18u) << cut;
  }
  for (const std::string mixed : {"a\n\nmore", "a\r\n\nmore", "a\n\r\nmore"}) {
    const size_t end = mixed.find("more");
    for (size_t cut = 0; cut < end; ++cut) {
      EXPECT_EQ(FindHeadEnd(mixed.substr(0, cut), 0), 0u) << mixed << cut;
      EXPECT_EQ(FindHeadEnd(mixed, cut), end) << mixed << cut;
    }
  }
}

}  // namespace
}  // namespace postern::http
