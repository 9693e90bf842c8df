// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace postern::x509 {

// A trust domain's bare name: 1 to 255 bytes of a-z 0-9 . - _ (SPIFFE-ID section 2.1). A value.
class TrustDomain {
 public:
  // Accepts "example.org" and "spiffe://example.org". InvalidArgument names the offending byte.
  static absl::StatusOr<TrustDomain> Parse(std::string_view text);

  const std::string& name() const { return name_; }
  std::string ToUri() const { return "spiffe://" + name_; }

  auto operator<=>(const TrustDomain&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const TrustDomain& td) {
    return H::combine(std::move(h), td.name_);
  }

 private:
  explicit TrustDomain(std::string name) : name_(std::move(name)) {}
  std::string name_;
};

// A SPIFFE ID, validated strictly and compared byte for byte (SPIFFE-ID section 2). A value.
class SpiffeId {
 public:
  // InvalidArgument: anything but spiffe://<trust domain>[/segment...] in the strict grammar, at
  // most 2048 bytes. The text may hold any bytes, NUL included; the length is the view's.
  static absl::StatusOr<SpiffeId> Parse(std::string_view text);

  const std::string& uri() const { return uri_; }
  TrustDomain trust_domain() const;
  std::string_view trust_domain_name() const;
  std::string_view path() const;  // "" or "/a/b"
  bool IsWorkload() const { return !path().empty(); }

  auto operator<=>(const SpiffeId& other) const { return uri_ <=> other.uri_; }
  bool operator==(const SpiffeId& other) const { return uri_ == other.uri_; }
  template <typename H>
  friend H AbslHashValue(H h, const SpiffeId& id) {
    return H::combine(std::move(h), id.uri_);
  }

 private:
  SpiffeId(std::string uri, size_t path_at) : uri_(std::move(uri)), path_at_(path_at) {}
  std::string uri_;
  size_t path_at_ = 0;  // where the path begins; uri_.size() without one
};

// Which identities are meant: one SPIFFE ID exactly, or with "*" as the whole last path segment all
// below that path, one or more segments deep ("spiffe://td/ns/*" matches /ns/a and /ns/a/b, never
// /ns nor /nsx). "spiffe://td/*" is every workload of the trust domain. A value.
class SpiffeIdPattern {
 public:
  // InvalidArgument: not in the grammar, "*" anywhere but as the whole last segment, or a trust
  // domain without path (no workload has that ID; who wants all of them writes "/*").
  static absl::StatusOr<SpiffeIdPattern> Parse(std::string_view text);
  static SpiffeIdPattern Exactly(const SpiffeId& id);

  bool Matches(const SpiffeId& id) const;
  bool is_wildcard() const { return wildcard_; }
  std::string ToString() const;

  bool operator==(const SpiffeIdPattern&) const = default;

 private:
  SpiffeIdPattern(std::string text, bool wildcard) : text_(std::move(text)), wildcard_(wildcard) {}
  std::string text_;  // the exact URI, or the prefix with its trailing slash
  bool wildcard_ = false;
};

}  // namespace postern::x509
