// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

#include <string>
#include <string_view>

#include "common/x509/spiffe_id.h"

using postern::x509::SpiffeId;
using postern::x509::SpiffeIdPattern;
using postern::x509::TrustDomain;

namespace {

void CheckId(std::string_view text) {
  const absl::StatusOr<SpiffeId> id = SpiffeId::Parse(text);
  if (!id.ok()) {
    return;
  }
  POSTERN_FUZZ_CHECK(id->uri() == text);
  POSTERN_FUZZ_CHECK(id->uri() ==
                     "spiffe://" + std::string(id->trust_domain_name()) + std::string(id->path()));
  POSTERN_FUZZ_CHECK(id->trust_domain().name() == id->trust_domain_name());
  POSTERN_FUZZ_CHECK(text.size() <= 2048);
  for (const std::string_view never : {"//", "/./", "/../", "%", "?", "#", "@", ":", "\n"}) {
    POSTERN_FUZZ_CHECK(text.substr(9).find(never) == std::string_view::npos);
  }
  POSTERN_FUZZ_CHECK(text.find('\0') == std::string_view::npos);
  POSTERN_FUZZ_CHECK(SpiffeIdPattern::Exactly(*id).Matches(*id));
}

void CheckPattern(std::string_view text) {
  const absl::StatusOr<SpiffeIdPattern> pattern = SpiffeIdPattern::Parse(text);
  if (!pattern.ok()) {
    return;
  }
  POSTERN_FUZZ_CHECK(pattern->ToString() == text);
  POSTERN_FUZZ_CHECK(pattern->is_wildcard() == text.ends_with("/*"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckId(text);
  CheckPattern(text);
  const absl::StatusOr<TrustDomain> trust_domain = TrustDomain::Parse(text);
  if (trust_domain.ok()) {
    POSTERN_FUZZ_CHECK(SpiffeId::Parse(trust_domain->ToUri()).ok());
  }
  return 0;
}
