// SPDX-License-Identifier: Apache-2.0
#include "common/x509/spiffe_id.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::x509 {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr size_t kMaxTrustDomainBytes = 255;
constexpr size_t kMaxUriBytes = 2048;
constexpr std::string_view kWildcardEnding = "/*";

bool IsTrustDomainByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

bool IsSegmentByte(char c) {
  return IsTrustDomainByte(c) || (c >= 'A' && c <= 'Z');
}

// Ids come from peers, so the message shows a bounded, printable part of them.
absl::Status Invalid(std::string_view text, std::string_view problem) {
  return absl::InvalidArgumentError(
      base::StrCat("'", base::Printable(text, 128), "' is no SPIFFE ID: ", problem));
}

std::string ForeignByte(std::string_view text, std::string_view part, size_t at) {
  return base::StrCat("the byte '", base::Printable(part.substr(at, 1)), "' at position ",
                      static_cast<size_t>(part.data() - text.data()) + at, " is not allowed in ");
}

// `name` lies inside `text`, which is what the message shows.
absl::Status CheckTrustDomain(std::string_view text, std::string_view name) {
  if (name.empty()) {
    return Invalid(text, "the trust domain is missing");
  }
  if (name.size() > kMaxTrustDomainBytes) {
    return Invalid(text, base::StrCat("the trust domain has ", name.size(), " bytes, more than ",
                                      kMaxTrustDomainBytes));
  }
  const auto bad = std::find_if_not(name.begin(), name.end(), IsTrustDomainByte);
  if (bad != name.end()) {
    const size_t at = static_cast<size_t>(bad - name.begin());
    return Invalid(text,
                   base::StrCat(ForeignByte(text, name, at), "a trust domain (a-z 0-9 . - _)"));
  }
  return absl::OkStatus();
}

absl::Status CheckSegment(std::string_view text, std::string_view segment) {
  if (segment.empty()) {
    return Invalid(text, "the path has an empty segment or ends with a slash");
  }
  if (segment == "." || segment == "..") {
    return Invalid(text, base::StrCat("the path holds the segment '", segment, "'"));
  }
  const auto bad = std::find_if_not(segment.begin(), segment.end(), IsSegmentByte);
  if (bad != segment.end()) {
    const size_t at = static_cast<size_t>(bad - segment.begin());
    return Invalid(text,
                   base::StrCat(ForeignByte(text, segment, at), "a path (a-z A-Z 0-9 . - _)"));
  }
  return absl::OkStatus();
}

// `path` is empty or begins with a slash.
absl::Status CheckPath(std::string_view text, std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view segment = path.substr(0, path.find('/'));
    if (absl::Status status = CheckSegment(text, segment); !status.ok()) {
      return status;
    }
    path.remove_prefix(segment.size());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrustDomain> TrustDomain::Parse(std::string_view text) {
  std::string_view name = text;
  if (name.starts_with(kScheme)) {
    name.remove_prefix(kScheme.size());
  }
  if (absl::Status status = CheckTrustDomain(text, name); !status.ok()) {
    return absl::InvalidArgumentError(base::StrCat("bad trust domain: ", base::Message(status)));
  }
  return TrustDomain(std::string(name));
}

absl::StatusOr<SpiffeId> SpiffeId::Parse(std::string_view text) {
  if (text.size() > kMaxUriBytes) {
    return Invalid(text, base::StrCat("it has ", text.size(), " bytes, more than ", kMaxUriBytes));
  }
  if (!text.starts_with(kScheme)) {
    return Invalid(text, "it does not begin with spiffe://");
  }
  const size_t path_at = std::min(text.find('/', kScheme.size()), text.size());
  const std::string_view name = text.substr(kScheme.size(), path_at - kScheme.size());
  if (absl::Status status = CheckTrustDomain(text, name); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPath(text, text.substr(path_at)); !status.ok()) {
    return status;
  }
  return SpiffeId(std::string(text), path_at);
}

std::string_view SpiffeId::trust_domain_name() const {
  return std::string_view(uri_).substr(kScheme.size(), path_at_ - kScheme.size());
}

TrustDomain SpiffeId::trust_domain() const {
  // Cannot fail: Parse checked the same bytes.
  return TrustDomain::Parse(trust_domain_name()).value();
}

std::string_view SpiffeId::path() const {
  return std::string_view(uri_).substr(path_at_);
}

absl::StatusOr<SpiffeIdPattern> SpiffeIdPattern::Parse(std::string_view text) {
  const bool wildcard = text.ends_with(kWildcardEnding);
  const std::string_view base =
      wildcard ? text.substr(0, text.size() - kWildcardEnding.size()) : text;
  if (base.find('*') != std::string_view::npos) {
    return Invalid(text, "'*' may only stand as the whole last segment of the path");
  }
  const absl::StatusOr<SpiffeId> id = SpiffeId::Parse(base);
  if (!id.ok()) {
    return id.status();
  }
  if (wildcard) {
    return SpiffeIdPattern(base::StrCat(base, "/"), true);
  }
  if (!id->IsWorkload()) {
    return Invalid(text, base::StrCat("it names a trust domain, which no workload is; write ", text,
                                      "/* for all of its workloads"));
  }
  return SpiffeIdPattern(std::string(text), false);
}

SpiffeIdPattern SpiffeIdPattern::Exactly(const SpiffeId& id) {
  return SpiffeIdPattern(id.uri(), false);
}

bool SpiffeIdPattern::Matches(const SpiffeId& id) const {
  // An ID never ends with a slash, so behind the prefix there is at least one segment.
  return wildcard_ ? std::string_view(id.uri()).starts_with(text_) : id.uri() == text_;
}

std::string SpiffeIdPattern::ToString() const {
  return wildcard_ ? text_ + "*" : text_;
}

}  // namespace postern::x509
