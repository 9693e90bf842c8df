// SPDX-License-Identifier: Apache-2.0
// What anybody may send to a reading HTTP port: the head, in whatever pieces, and what is read of
// it.
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "common/base/strings.h"
#include "common/http/http_server.h"
#include "common/http/request_head.h"

using postern::http::FindHeadEnd;
using postern::http::ParseRequestHead;

namespace {

size_t EndInPieces(std::string_view text, size_t piece) {
  for (size_t seen = 0; seen < text.size();) {
    const size_t now = std::min(text.size(), seen + piece);
    if (const size_t end = FindHeadEnd(text.substr(0, now), seen); end != 0) {
      return end;
    }
    seen = now;
  }
  return 0;
}

bool IsVisible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

void CheckHead(std::string_view text) {
  const auto head = ParseRequestHead(text);
  if (!head.ok()) {
    POSTERN_FUZZ_CHECK(!postern::base::Message(head.status()).empty());
    return;
  }
  POSTERN_FUZZ_CHECK(FindHeadEnd(text, 0) == text.size());
  POSTERN_FUZZ_CHECK(!head->method.empty() && IsVisible(head->method));
  POSTERN_FUZZ_CHECK(head->path.starts_with('/') && IsVisible(head->path));
  POSTERN_FUZZ_CHECK(head->path.find('?') == std::string_view::npos);
  POSTERN_FUZZ_CHECK(head->host.find('\n') == std::string_view::npos);
  // What was read, written again, reads the same.
  const std::string plain = postern::base::StrCat(head->method, " ", head->path,
                                                  " HTTP/1.1\r\nHost: ", head->host, "\r\n\r\n");
  const auto again = ParseRequestHead(plain);
  POSTERN_FUZZ_CHECK(again.ok() && again->method == head->method && again->path == head->path &&
                     again->host == head->host && !again->has_body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = FindHeadEnd(text, 0);
  POSTERN_FUZZ_CHECK(end <= size);
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size / 2 + 1}) {
    POSTERN_FUZZ_CHECK(EndInPieces(text, piece) == end);
  }
  CheckHead(text);
  CheckHead(text.substr(0, end));
  const std::string reply = Serialize(postern::http::ErrorReply(400, text));
  POSTERN_FUZZ_CHECK(FindHeadEnd(reply, 0) != 0 && IsVisible(reply.substr(0, 8)));
  return 0;
}
