// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/spiffe_id.h"

namespace postern::federation {

// How the server of a bundle endpoint is known (SPIFFE Federation section 5.2).
enum class Profile : uint8_t {
  kWeb,     // by its host name, under the system's roots or those of a file
  kSpiffe,  // by its SPIFFE ID, under the bundle that is held of that ID's trust domain
};
std::string_view Token(Profile profile) noexcept;  // "https_web", "https_spiffe"

// What becomes of a bundle that its endpoint has not confirmed for longer than its greatest age. It
// is told in any case.
enum class OnStale : uint8_t {
  kKeep,      // it goes on
  kDistrust,  // it is withdrawn from the mesh until it is confirmed again
};
std::string_view Token(OnStale on_stale) noexcept;  // "keep", "distrust"

inline constexpr absl::Duration kDefaultMaxAge = absl::Hours(24);
// Three fetches at the quickest pace have failed by then.
inline constexpr absl::Duration kShortestMaxAge = absl::Minutes(3);

// Where a bundle endpoint is. The host is a name or an IP without brackets.
struct HttpsUrl {
  std::string host;
  uint16_t port = 443;
  std::string path = "/";  // with its query

  // "https://HOST[:PORT][/PATH]". InvalidArgument: another scheme, user information, a fragment, or
  // what is no URL.
  static absl::StatusOr<HttpsUrl> Parse(std::string_view text);
  std::string Authority() const;  // "HOST[:PORT]", IPv6 in brackets
  std::string ToString() const { return "https://" + Authority() + path; }
};

// One --federate: a trust domain whose bundle is fetched. The three values that say whom to trust
// for what are written out; none is derived from another, or from what is fetched.
struct FederationSpec {
  x509::TrustDomain trust_domain;
  HttpsUrl url;
  Profile profile = Profile::kWeb;
  std::optional<x509::SpiffeId> endpoint_id = std::nullopt;  // https_spiffe: required
  std::string bundle_file = {};  // https_spiffe: of the endpoint's trust domain, to begin with
  std::string ca_file = {};      // https_web: instead of the system's roots
  absl::Duration max_age = kDefaultMaxAge;
  OnStale on_stale = OnStale::kKeep;

  // "trust-domain=TD,url=https://...,profile=https_web|https_spiffe[,endpoint-id=spiffe://...]
  // [,bundle=FILE][,ca=FILE][,max-age=DURATION][,on-stale=keep|distrust]". InvalidArgument names
  // the part and the mend. A ',' in a URL is written %2C. Opens no file.
  static absl::StatusOr<FederationSpec> Parse(std::string_view text);

  // Whether the endpoint is known by the bundle that it serves.
  bool IsSelfServing() const {
    return endpoint_id.has_value() && endpoint_id->trust_domain_name() == trust_domain.name();
  }
};

}  // namespace postern::federation
