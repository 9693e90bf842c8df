// SPDX-License-Identifier: Apache-2.0
// What a bundle endpoint may answer: HTTP, and the document in it.
#include "tests/fuzz/fuzz.h"

#include <optional>
#include <string>
#include <string_view>

#include "common/x509/bundle_json.h"
#include "control/federation/federation_spec.h"
#include "control/federation/http_response.h"

using postern::federation::HttpResponse;
using postern::federation::HttpsUrl;

namespace {

constexpr size_t kMost = 4096;

// The body when all of it has come in pieces of this size; nullopt: it was refused or is not whole.
std::optional<std::string> BodyOf(std::string_view text, size_t piece) {
  HttpResponse response(kMost);
  for (size_t at = 0; at < text.size(); at += piece) {
    const auto done = response.Feed(text.substr(at, piece));
    POSTERN_FUZZ_CHECK(response.body().size() <= kMost);
    if (!done.ok()) {
      return std::nullopt;
    }
    if (*done) {
      return response.body();
    }
  }
  return response.End(true).ok() ? std::optional(response.body()) : std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto trust_domain = postern::x509::TrustDomain::Parse("b.test").value();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::optional<std::string> whole = BodyOf(text, text.size() + 1);
  // How the bytes are cut decides nothing.
  POSTERN_FUZZ_CHECK(whole == BodyOf(text, 1));
  POSTERN_FUZZ_CHECK(whole == BodyOf(text, 7));
  const auto bundle =
      postern::x509::SpiffeBundleFromJson(whole.has_value() ? *whole : text, trust_domain);
  if (bundle.ok() && bundle->bundle.has_value()) {
    const auto again = postern::x509::SpiffeBundleFromJson(
        postern::x509::SpiffeBundleToJson(*bundle->bundle, bundle->sequence, bundle->refresh_hint),
        trust_domain);
    POSTERN_FUZZ_CHECK(again.ok() && again->sequence == bundle->sequence &&
                       again->refresh_hint == bundle->refresh_hint &&
                       again->bundle->roots().size() == bundle->bundle->roots().size());
  }
  if (const auto url = HttpsUrl::Parse(text); url.ok()) {
    const auto again = HttpsUrl::Parse(url->ToString());
    POSTERN_FUZZ_CHECK(again.ok() && again->ToString() == url->ToString());
  }
  return 0;
}
