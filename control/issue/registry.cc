// SPDX-License-Identifier: Apache-2.0
#include "control/issue/registry.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/member_key.h"
#include "control/attest/attestor.h"
#include "control/attest/selector.h"

namespace postern::issue {
namespace {

constexpr std::string_view kReservedPath = "/postern";
constexpr std::string_view kIssuerPath = "/postern/identity";
constexpr std::string_view kJoinTokenPrefix = "join-token:";

// How long the log remembers a certificate after its end, for whoever reads old records.
constexpr absl::Duration kKeepExpired = absl::Hours(24 * 7);
constexpr int kMaxPruneRounds = 100;
constexpr uint64_t kPruneRound = 10000;

absl::Status TooMany(std::string_view field, size_t limit) {
  return absl::InvalidArgumentError(
      base::StrCat(field, ": more than ", limit, " in one entry; make several entries"));
}

template <typename T>
void SortUnique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// Where the workload is reached.
absl::Status NormalizeReach(store::Entry& entry) {
  if (entry.allowed_addresses.size() > kMaxAllowedAddresses) {
    return TooMany("allowed_addresses", kMaxAllowedAddresses);
  }
  if (entry.ports.size() > kMaxPorts) {
    return TooMany("ports", kMaxPorts);
  }
  SortUnique(entry.ports);
  if (!entry.ports.empty() && entry.ports.front() == 0) {
    return absl::InvalidArgumentError("ports: 0 is no port; leave ports empty for every one");
  }
  if (entry.services.size() > kMaxServices) {
    return TooMany("services", kMaxServices);
  }
  SortUnique(entry.services);
  for (const base::ServiceAddress& service : entry.services) {
    if (!entry.ports.empty() && !std::ranges::binary_search(entry.ports, service.target_port)) {
      return absl::InvalidArgumentError(base::StrCat("services: ", service.ToString(),
                                                     " leads to port ", service.target_port,
                                                     ", which is not among the entry's ports"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

x509::SpiffeId IssuerId(const x509::TrustDomain& trust_domain) {
  // A trust domain's name and a fixed path always make a SPIFFE ID.
  return *x509::SpiffeId::Parse(base::StrCat(trust_domain.ToUri(), kIssuerPath));
}

bool IsReserved(const x509::SpiffeId& id) {
  const std::string_view path = id.path();
  return path.starts_with(kReservedPath) &&
         (path.size() == kReservedPath.size() || path[kReservedPath.size()] == '/');
}

Registry::Registry(x509::TrustDomain trust_domain, TtlPolicy ttl, store::Store& store,
                   const base::Clock& clock)
    : trust_domain_(std::move(trust_domain)), ttl_(ttl), store_(store), clock_(clock) {}

absl::Status Registry::Normalize(store::Entry& entry) const {
  if (entry.spiffe_id.trust_domain_name() != trust_domain_.name()) {
    return absl::InvalidArgumentError(base::StrCat(
        "spiffe_id: ", entry.spiffe_id.uri(), " is not of trust domain ", trust_domain_.name()));
  }
  if (!entry.spiffe_id.IsWorkload()) {
    return absl::InvalidArgumentError("spiffe_id: a workload's identity needs a path");
  }
  if (IsReserved(entry.spiffe_id)) {
    return absl::InvalidArgumentError(base::StrCat("spiffe_id: ", trust_domain_.ToUri(),
                                                   kReservedPath,
                                                   " and all below it is kept for Postern itself"));
  }
  if (entry.svid_ttl != absl::ZeroDuration()) {
    if (absl::Status status = ttl_.Check(entry.svid_ttl); !status.ok()) {
      return absl::InvalidArgumentError(base::StrCat("svid_ttl_seconds: ", base::Message(status)));
    }
  }
  if (entry.selectors.size() > kMaxSelectors) {
    return TooMany("selectors", kMaxSelectors);
  }
  for (std::string& selector : entry.selectors) {
    absl::StatusOr<std::string> canonical = attest::ParseSelector(selector);
    if (!canonical.ok()) {
      return canonical.status();
    }
    if (std::string_view(*canonical).starts_with(kJoinTokenPrefix)) {
      return absl::InvalidArgumentError(
          "selectors: a join-token selector comes with its token: `postern token create`");
    }
    selector = *std::move(canonical);
  }
  SortUnique(entry.selectors);
  // Whoever shows a key is known by it alone, so nothing beside it would ever hold.
  const bool names_key =
      std::any_of(entry.selectors.begin(), entry.selectors.end(), [](const std::string& selector) {
        return std::string_view(selector).starts_with(x509::kMemberKeySelector);
      });
  if (names_key && entry.selectors.size() > 1) {
    return absl::InvalidArgumentError(
        "selectors: a member's key stands alone in its entry; make an entry for each key");
  }
  if (names_key) {
    if (absl::Status good = CheckKeyNotRevoked(entry.selectors.front()); !good.ok()) {
      return good;
    }
  }
  return NormalizeReach(entry);
}

// A revoked key that an entry names is remembered for good (Revocations); of one that is enrolled
// afterwards the revocation would be forgotten some day.
absl::Status Registry::CheckKeyNotRevoked(std::string_view selector) const {
  const std::string_view key = selector.substr(x509::kMemberKeySelector.size());
  const absl::StatusOr<bool> revoked = store_.revocations().IsRevoked(x509::RevokedBy::kKey, key);
  if (!revoked.ok()) {
    return revoked.status();
  }
  return *revoked ? absl::FailedPreconditionError(
                        "selectors: this key is revoked; make another one, or lift that first "
                        "(`postern revoke list`)")
                  : absl::OkStatus();
}

absl::StatusOr<store::Entry> Registry::CreateEntry(store::Entry entry) {
  if (absl::Status status = Normalize(entry); !status.ok()) {
    return status;
  }
  if (entry.selectors.empty()) {
    return absl::InvalidArgumentError(
        "selectors: at least one is needed, or the entry would match everybody");
  }
  return store_.entries().CreateEntry(entry);
}

absl::StatusOr<CreatedToken> Registry::CreateToken(store::Entry entry, absl::Duration ttl) {
  if (absl::Status status = Normalize(entry); !status.ok()) {
    return status;
  }
  if (!entry.selectors.empty()) {
    return absl::InvalidArgumentError(
        "selectors: a token attests to itself alone, so its entry takes no other selectors");
  }
  if (ttl == absl::ZeroDuration()) {
    ttl = kDefaultTokenTtl;
  }
  if (ttl < absl::Seconds(1) || ttl > kMaxTokenTtl) {
    return absl::InvalidArgumentError(base::StrCat("ttl_seconds: a token lives from 1 s to ",
                                                   absl::FormatDuration(kMaxTokenTtl)));
  }
  absl::StatusOr<attest::MintedToken> minted = attest::MintToken();
  if (!minted.ok()) {
    return minted.status();
  }
  const absl::Time expires_at = clock_.Now() + ttl;
  absl::StatusOr<store::Entry> stored =
      store_.tokens().CreateToken(minted->sha256, entry, expires_at);
  if (!stored.ok()) {
    OPENSSL_cleanse(minted->token.data(), minted->token.size());
    return stored.status();
  }
  return CreatedToken{
      .token = std::move(minted->token), .entry = *std::move(stored), .expires_at = expires_at};
}

absl::StatusOr<std::vector<store::Entry>> Registry::ListEntries(std::string_view spiffe_id) {
  return store_.entries().ListEntries(spiffe_id);
}

absl::Status Registry::DeleteEntry(std::string_view id) {
  return store_.entries().DeleteEntry(id);
}

absl::Status Registry::CleanUp() {
  const absl::Time now = clock_.Now();
  absl::Status status = store_.tokens().DeleteExpiredTokens(now).status();
  for (int round = 0; status.ok() && round < kMaxPruneRounds; ++round) {
    const absl::StatusOr<uint64_t> pruned = store_.certificates().PruneExpired(now - kKeepExpired);
    status = pruned.status();
    if (status.ok() && *pruned < kPruneRound) {
      break;
    }
  }
  return status;
}

}  // namespace postern::issue
