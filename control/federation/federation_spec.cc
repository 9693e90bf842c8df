// SPDX-License-Identifier: Apache-2.0
#include "control/federation/federation_spec.h"

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::federation {
namespace {

constexpr std::string_view kScheme = "https://";
constexpr size_t kMaxUrl = 2048;
constexpr uint16_t kHttpsPort = 443;

absl::Status Wrong(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat("'", base::Printable(text, 128), "' ", what));
}

absl::Status ReadAuthority(std::string_view whole, std::string_view authority, HttpsUrl& url) {
  if (authority.find('@') != std::string_view::npos) {
    return Wrong(whole, "holds user information, which a bundle endpoint has none of");
  }
  const auto parsed = base::HostPort::Parse(
      authority,
      {.names = true, .final_dot = true, .no_port = true, .what = "host of an https:// URL"});
  if (!parsed.ok()) {
    return parsed.status();
  }
  url.host = std::string(parsed->host);
  url.port = parsed->port.value_or(kHttpsPort);
  return absl::OkStatus();
}

// The parts of a --federate, each at most once.
struct Parts {
  std::string_view trust_domain, url, profile, endpoint_id, bundle, ca, max_age, on_stale;

  absl::Status Take(std::string_view text) {
    const size_t equals = text.find('=');
    const std::string_view key = text.substr(0, equals);
    const std::pair<std::string_view, std::string_view*> known[] = {
        {"trust-domain", &trust_domain}, {"url", &url},          {"profile", &profile},
        {"endpoint-id", &endpoint_id},   {"bundle", &bundle},    {"ca", &ca},
        {"max-age", &max_age},           {"on-stale", &on_stale}};
    for (const auto& [name, value] : known) {
      if (equals == std::string_view::npos || key != name) {
        continue;
      }
      if (!value->empty()) {
        return absl::InvalidArgumentError(base::StrCat(name, " is given twice; give it once"));
      }
      *value = text.substr(equals + 1);
      return value->empty() ? absl::InvalidArgumentError(base::StrCat(name, " is empty"))
                            : absl::OkStatus();
    }
    return Wrong(text,
                 "is no part of a federation; known: trust-domain=, url=, profile=, endpoint-id=, "
                 "bundle=, ca=, max-age=, on-stale=");
  }

  absl::Status Check() const {
    const std::pair<std::string_view, std::string_view> needed[] = {
        {"trust-domain", trust_domain}, {"url", url}, {"profile", profile}};
    for (const auto& [name, value] : needed) {
      if (value.empty()) {
        return absl::InvalidArgumentError(base::StrCat(name, " is missing; write ", name, "=..."));
      }
    }
    if (profile != "https_web" && profile != "https_spiffe") {
      return Wrong(profile, "is no profile; write https_web or https_spiffe");
    }
    const bool spiffe = profile == "https_spiffe";
    if (spiffe && endpoint_id.empty()) {
      return absl::InvalidArgumentError(
          "endpoint-id is missing; https_spiffe needs the SPIFFE ID that serves the bundle");
    }
    if (!spiffe && (!endpoint_id.empty() || !bundle.empty())) {
      return absl::InvalidArgumentError(
          "endpoint-id and bundle are for https_spiffe; leave them out, or change the profile");
    }
    if (spiffe && !ca.empty()) {
      return absl::InvalidArgumentError("ca is for https_web; https_spiffe takes bundle=FILE");
    }
    return absl::OkStatus();
  }
};

// max-age= and on-stale=, as far as they are there.
absl::Status ReadAge(const Parts& parts, FederationSpec& spec) {
  if (!parts.max_age.empty() && (!absl::ParseDuration(base::ToAbsl(parts.max_age), &spec.max_age) ||
                                 spec.max_age < kShortestMaxAge)) {
    return absl::InvalidArgumentError(
        base::StrCat("max-age: '", base::Printable(parts.max_age, 128), "' is no duration from ",
                     absl::FormatDuration(kShortestMaxAge), " on; write 24h"));
  }
  for (const OnStale known : {OnStale::kKeep, OnStale::kDistrust}) {
    if (parts.on_stale.empty() || parts.on_stale == Token(known)) {
      spec.on_stale = known;
      return absl::OkStatus();
    }
  }
  return Wrong(parts.on_stale, "is no value of on-stale; write keep or distrust");
}

absl::Status In(std::string_view part, const absl::Status& status) {
  return absl::InvalidArgumentError(base::StrCat(part, ": ", base::Message(status)));
}

}  // namespace

std::string_view Token(Profile profile) noexcept {
  return profile == Profile::kWeb ? "https_web" : "https_spiffe";
}

std::string_view Token(OnStale on_stale) noexcept {
  return on_stale == OnStale::kKeep ? "keep" : "distrust";
}

absl::StatusOr<HttpsUrl> HttpsUrl::Parse(std::string_view text) {
  if (!text.starts_with(kScheme)) {
    return Wrong(text, "is no https:// URL");
  }
  const bool plain =
      std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f && c != '#'; });
  if (text.size() > kMaxUrl || !plain) {
    return Wrong(text, "holds a blank, a control character or a fragment, or is too long");
  }
  const std::string_view rest = text.substr(kScheme.size());
  const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
  HttpsUrl url;
  if (absl::Status read = ReadAuthority(text, rest.substr(0, authority_end), url); !read.ok()) {
    return read;
  }
  const std::string_view path = rest.substr(authority_end);
  url.path = base::StrCat(path.starts_with('/') ? "" : "/", path);
  return url;
}

std::string HttpsUrl::Authority() const {
  std::string authority = base::JoinHostPort(host, port);
  if (port == kHttpsPort) {
    authority.erase(authority.rfind(':'));
  }
  return authority;
}

absl::StatusOr<FederationSpec> FederationSpec::Parse(std::string_view text) {
  Parts parts;
  for (const std::string_view part : base::Split(text, ',')) {
    if (absl::Status taken = parts.Take(part); !taken.ok()) {
      return taken;
    }
  }
  if (absl::Status checked = parts.Check(); !checked.ok()) {
    return checked;
  }
  const absl::StatusOr<x509::TrustDomain> trust_domain =
      x509::TrustDomain::Parse(parts.trust_domain);
  if (!trust_domain.ok()) {
    return In("trust-domain", trust_domain.status());
  }
  absl::StatusOr<HttpsUrl> url = HttpsUrl::Parse(parts.url);
  if (!url.ok()) {
    return In("url", url.status());
  }
  FederationSpec spec{.trust_domain = *trust_domain, .url = *std::move(url)};
  spec.profile = parts.profile == "https_web" ? Profile::kWeb : Profile::kSpiffe;
  spec.bundle_file = std::string(parts.bundle);
  spec.ca_file = std::string(parts.ca);
  if (!parts.endpoint_id.empty()) {
    absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(parts.endpoint_id);
    if (!id.ok()) {
      return In("endpoint-id", id.status());
    }
    if (!id->IsWorkload()) {
      return In("endpoint-id", Wrong(id->uri(), "lacks a path: no server has that identity"));
    }
    spec.endpoint_id = *std::move(id);
  }
  if (absl::Status read = ReadAge(parts, spec); !read.ok()) {
    return read;
  }
  return spec;
}

}  // namespace postern::federation
