// SPDX-License-Identifier: Apache-2.0
#include "common/x509/revocation_set.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/base/time_text.h"

namespace postern::x509 {
namespace {

constexpr std::string_view kStatementContext = "postern-revocations-v1";
constexpr size_t kMostSerialDigits = 64;  // 20 octets are the most that RFC 5280 allows

struct Name {
  RevokedBy by;
  std::string_view token;
};
constexpr std::array<Name, kRevokedByCount> kNames = {{{RevokedBy::kSpiffeId, "spiffe_id"},
                                                       {RevokedBy::kSerial, "serial"},
                                                       {RevokedBy::kKey, "key_sha256"},
                                                       {RevokedBy::kIssuer, "issuer_sha256"}}};

std::string_view WithoutZeros(std::string_view serial) {
  while (serial.size() > 1 && serial.front() == '0') {
    serial.remove_prefix(1);
  }
  return serial;
}

absl::StatusOr<std::string> CanonicalHex(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c == ':' || c == ' ') {
      continue;  // as other tools print them
    }
    const bool upper = c >= 'A' && c <= 'F';
    if (!upper && (c < '0' || c > '9') && (c < 'a' || c > 'f')) {
      return absl::InvalidArgumentError(
          base::StrCat("'", base::Printable(text, 80), "' is not hexadecimal"));
    }
    digits.push_back(upper ? static_cast<char>(c - 'A' + 'a') : c);
  }
  return digits;
}

std::optional<base::Sha256Digest> DigestFromHex(std::string_view hex) {
  const absl::StatusOr<std::string> raw = base::FromHex(hex);
  base::Sha256Digest digest{};
  if (!raw.ok() || raw->size() != digest.size()) {
    return std::nullopt;
  }
  std::copy(raw->begin(), raw->end(), digest.begin());
  return digest;
}

constexpr size_t TableOf(RevokedBy by) {
  return by == RevokedBy::kKey ? 0 : 1;
}

std::string Sentence(const Revocation& revocation) {
  std::string_view what;
  switch (revocation.by) {
    case RevokedBy::kSpiffeId:
      what = "the identity ";
      break;
    case RevokedBy::kSerial:
      what = "the certificate with the serial ";
      break;
    case RevokedBy::kKey:
      what = "the key with the SHA-256 ";
      break;
    case RevokedBy::kIssuer:
      what = "the CA certificate with the SHA-256 ";
      break;
  }
  return base::StrCat(
      what, revocation.subject, " was revoked at ", base::TimeText(revocation.revoked_at), ": ",
      base::Printable(revocation.reason), " (revocation ", revocation.sequence, ")");
}

}  // namespace

std::string_view Token(RevokedBy by) noexcept {
  return kNames[static_cast<size_t>(by)].token;
}

std::optional<RevokedBy> ParseRevokedBy(std::string_view token) noexcept {
  for (const Name& name : kNames) {
    if (name.token == token) {
      return name.by;
    }
  }
  return std::nullopt;
}

absl::StatusOr<std::string> CanonicalSubject(RevokedBy by, std::string_view text) {
  if (by == RevokedBy::kSpiffeId) {
    const absl::StatusOr<SpiffeId> id = SpiffeId::Parse(text);
    if (!id.ok()) {
      return id.status();
    }
    if (!id->IsWorkload()) {
      return absl::InvalidArgumentError(
          base::StrCat(id->uri(), " is no workload: its ID has no path"));
    }
    return id->uri();
  }
  absl::StatusOr<std::string> digits = CanonicalHex(text);
  if (!digits.ok()) {
    return digits;
  }
  if (by == RevokedBy::kSerial) {
    if (digits->empty() || digits->size() > kMostSerialDigits) {
      return absl::InvalidArgumentError("a serial number has 1 to 64 hexadecimal digits");
    }
    return std::string(WithoutZeros(*digits));
  }
  if (digits->size() != 2 * base::Sha256Digest().size()) {
    return absl::InvalidArgumentError("a SHA-256 has 64 hexadecimal digits");
  }
  return digits;
}

RevocationSet::RevocationSet(std::vector<Revocation> revocations,
                             std::vector<std::shared_ptr<const Crl>> crls)
    : revocations_(std::move(revocations)), crls_(std::move(crls)) {
  for (size_t i = 0; i < revocations_.size(); ++i) {
    const Revocation& one = revocations_[i];
    if (one.by == RevokedBy::kSpiffeId) {
      by_id_[one.subject] = i;
    } else if (one.by == RevokedBy::kSerial) {
      by_serial_[std::string(WithoutZeros(one.subject))] = i;
    } else if (const auto digest = DigestFromHex(one.subject); digest.has_value()) {
      by_digest_[TableOf(one.by)][*digest] = i;
    }
  }
  for (const std::shared_ptr<const Crl>& crl : crls_) {
    by_issuer_key_[crl->issuer_key].push_back(crl.get());
  }
}

const Revocation* RevocationSet::FindDigest(RevokedBy by, const base::Sha256Digest& digest) const {
  const auto& table = by_digest_[TableOf(by)];
  const auto found = table.find(digest);
  return found == table.end() ? nullptr : &revocations_[found->second];
}

const Revocation* RevocationSet::Find(RevokedBy by, std::string_view subject) const {
  if (by == RevokedBy::kKey || by == RevokedBy::kIssuer) {
    const std::optional<base::Sha256Digest> digest = DigestFromHex(subject);
    return digest.has_value() ? FindDigest(by, *digest) : nullptr;
  }
  const auto& table = by == RevokedBy::kSpiffeId ? by_id_ : by_serial_;
  const auto found =
      table.find(base::ToAbsl(by == RevokedBy::kSerial ? WithoutZeros(subject) : subject));
  return found == table.end() ? nullptr : &revocations_[found->second];
}

const Revocation* RevocationSet::FindPeer(const VerifiedPeer& peer) const {
  if (const Revocation* found = Find(RevokedBy::kSpiffeId, peer.id.uri())) {
    return found;
  }
  if (const Revocation* found = Find(RevokedBy::kSerial, peer.serial)) {
    return found;
  }
  if (const Revocation* found = FindDigest(RevokedBy::kKey, peer.key_sha256)) {
    return found;
  }
  // The leaf is no CA; the root is one.
  for (size_t i = 1; i < peer.chain_sha256.size(); ++i) {
    if (const Revocation* found = FindDigest(RevokedBy::kIssuer, peer.chain_sha256[i])) {
      return found;
    }
  }
  return nullptr;
}

std::optional<std::string> RevocationSet::WhyRevoked(const VerifiedPeer& peer) const {
  if (!revocations_.empty()) {
    if (const Revocation* found = FindPeer(peer)) {
      return Sentence(*found);
    }
  }
  if (crls_.empty()) {
    return std::nullopt;
  }
  for (size_t depth = 0; depth < peer.links.size(); ++depth) {
    const ChainLink& link = peer.links[depth];
    const auto found = by_issuer_key_.find(link.issuer_key);
    if (found == by_issuer_key_.end()) {
      continue;
    }
    for (const Crl* crl : found->second) {
      if (crl->revoked.contains(link.certificate)) {
        return base::StrCat(
            depth == 0 ? "the leaf" : base::StrCat("certificate ", depth, " above the leaf"),
            " is in the CRL of ", base::Printable(crl->issuer), " (", crl->source, ")");
      }
    }
  }
  return std::nullopt;
}

std::optional<std::string> RevocationSet::WhyUnknown(const VerifiedPeer& peer,
                                                     absl::Time now) const {
  if (crls_.empty()) {
    return std::nullopt;
  }
  for (const ChainLink& link : peer.links) {
    const auto found = by_issuer_key_.find(link.issuer_key);
    if (found == by_issuer_key_.end()) {
      continue;
    }
    const Crl* const newest = *std::max_element(
        found->second.begin(), found->second.end(),
        [](const Crl* a, const Crl* b) { return a->next_update < b->next_update; });
    if (newest->next_update <= now) {
      return base::StrCat("the CRL of ", base::Printable(newest->issuer), " (", newest->source,
                          ") should have been replaced before ",
                          base::TimeText(newest->next_update),
                          ": what it has revoked since is not known");
    }
  }
  return std::nullopt;
}

std::string RevocationStatement(std::string_view list) {
  return base::StrCat(kStatementContext, std::string_view("\0", 1), list);
}

}  // namespace postern::x509
