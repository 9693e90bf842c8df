// SPDX-License-Identifier: Apache-2.0
#include "control/attest/attestor.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/digest.h"
#include "control/attest/refusal.h"
#include "control/attest/selector.h"

namespace postern::attest {
namespace {

constexpr size_t kTokenBytes = 32;

bool LooksLikeAToken(std::string_view token) {
  return token.size() == 2 * kTokenBytes && std::all_of(token.begin(), token.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string Rounded(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Seconds(1)));
}

absl::Status LongExpired(absl::Duration past, absl::Duration grace) {
  return Refuse(RefusalReason::kLongExpired,
                base::StrCat("the certificate expired ", Rounded(past),
                             " ago, and the grace for renewing it is ", Rounded(grace),
                             ": attest with a join token again"));
}

absl::Status WrongAttestor() {
  return Refuse(RefusalReason::kInternal, "evidence went to the wrong attestor");
}

absl::Status StoreRefusal() {
  return Refuse(RefusalReason::kStoreError, "the issuer's store does not answer; try again");
}

class JoinTokenAttestor : public Attestor {
 public:
  JoinTokenAttestor(store::TokenStore& tokens, const base::Clock& clock)
      : tokens_(tokens), clock_(clock) {}

  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override {
    const auto* shown = std::get_if<JoinTokenEvidence>(&evidence);
    if (shown == nullptr) {
      return WrongAttestor();
    }
    if (!LooksLikeAToken(shown->token)) {
      return Refuse(RefusalReason::kBadToken, "this is no join token");
    }
    const absl::StatusOr<store::UsedToken> used =
        tokens_.UseToken(HashToken(shown->token), clock_.Now());
    if (absl::IsNotFound(used.status())) {
      return Refuse(RefusalReason::kBadToken,
                    "the join token is unknown or was used already: make a new one with `postern "
                    "token create`");
    }
    if (absl::IsDeadlineExceeded(used.status())) {
      return Refuse(RefusalReason::kExpiredToken,
                    "the join token has expired: make a new one with `postern token create`");
    }
    if (!used.ok()) {
      return StoreRefusal();
    }
    return Attestation{.selectors = {JoinTokenSelector(used->token_id)}, .entry_id = {}};
  }

 private:
  store::TokenStore& tokens_;
  const base::Clock& clock_;
};

class UnixPeerAttestor : public Attestor {
 public:
  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override {
    const auto* shown = std::get_if<UnixPeerEvidence>(&evidence);
    if (shown == nullptr) {
      return WrongAttestor();
    }
    if (shown->peer == nullptr) {
      return Refuse(RefusalReason::kUnattested,
                    "this call did not come through the issuer's unix socket");
    }
    const UnixPeer& peer = *shown->peer;
    const absl::StatusOr<std::optional<std::string>> path = peer.ExecutablePath();
    if (!path.ok()) {
      return Refuse(RefusalReason::kUnattested, base::Message(path.status()));
    }
    Attestation attestation;
    attestation.selectors = {UnixGidSelector(peer.gid()), UnixUidSelector(peer.uid())};
    if (path->has_value()) {
      // One that no operator could have written (control bytes, too long) can match nothing.
      const absl::StatusOr<std::string> selector = ParseSelector(UnixPathSelector(**path));
      if (selector.ok()) {
        attestation.selectors.push_back(*selector);
      }
    }
    std::sort(attestation.selectors.begin(), attestation.selectors.end());
    return attestation;
  }
};

class ExistingCertificateAttestor : public Attestor {
 public:
  ExistingCertificateAttestor(store::CertificateLog& log, const base::Clock& clock,
                              RenewalRules rules)
      : log_(log), clock_(clock), rules_(std::move(rules)) {}

  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override {
    const auto* shown = std::get_if<ExistingCertificateEvidence>(&evidence);
    if (shown == nullptr) {
      return WrongAttestor();
    }
    const x509::VerifiedPeer& peer = shown->peer;
    if (clock_.Now() - peer.not_after > RenewalRules::kMostGrace) {
      return LongExpired(clock_.Now() - peer.not_after, RenewalRules::kMostGrace);
    }
    const absl::StatusOr<store::IssuedCertificate> issued = log_.FindBySerial(peer.serial);
    if (!issued.ok() && !absl::IsNotFound(issued.status())) {
      return StoreRefusal();
    }
    if (!issued.ok() || issued->leaf_sha256 != peer.leaf_sha256 || issued->spiffe_id != peer.id) {
      return Refuse(RefusalReason::kUnknownCertificate,
                    "this issuer has no record of the certificate: attest with a join token again");
    }
    if (issued->entry_id.empty()) {
      return Refuse(RefusalReason::kUnknownCertificate,
                    "the issuer's own certificate is not renewed by others");
    }
    if (absl::Status status = CheckTime(*issued); !status.ok()) {
      return status;
    }
    return Attestation{.selectors = {}, .entry_id = issued->entry_id};
  }

 private:
  // Of this moment: the channel was verified when it was opened, which may be long ago.
  absl::Status CheckTime(const store::IssuedCertificate& issued) const {
    const absl::Duration past = clock_.Now() - issued.not_after;
    if (past < absl::ZeroDuration()) {
      return absl::OkStatus();
    }
    const absl::Duration grace = rules_.GraceOf(issued.not_after - issued.issued_at);
    if (past >= grace) {
      return LongExpired(past, grace);
    }
    spdlog::info("renewal within the grace: the certificate {} of {} expired {} ago", issued.serial,
                 issued.spiffe_id.uri(), Rounded(past));
    return absl::OkStatus();
  }

  store::CertificateLog& log_;
  const base::Clock& clock_;
  const RenewalRules rules_;
};

// In the place of one that this issuer does not have.
class NoAttestor : public Attestor {
 public:
  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override {
    return Refuse(RefusalReason::kUnattested,
                  base::StrCat("this issuer does not attest by ", KindOf(evidence)));
  }
};

}  // namespace

std::string_view KindOf(const Evidence& evidence) noexcept {
  struct Names {
    std::string_view operator()(const JoinTokenEvidence&) const { return "join_token"; }
    std::string_view operator()(const UnixPeerEvidence&) const { return "unix_peer"; }
    std::string_view operator()(const ExistingCertificateEvidence&) const {
      return "existing_certificate";
    }
    std::string_view operator()(const EnrolledKeyEvidence&) const { return "enrolled_key"; }
  };
  return std::visit(Names{}, evidence);
}

std::unique_ptr<Attestor> MakeJoinTokenAttestor(store::TokenStore& tokens,
                                                const base::Clock& clock) {
  return std::make_unique<JoinTokenAttestor>(tokens, clock);
}

std::unique_ptr<Attestor> MakeUnixPeerAttestor() {
  return std::make_unique<UnixPeerAttestor>();
}

std::unique_ptr<Attestor> MakeExistingCertificateAttestor(store::CertificateLog& log,
                                                          const base::Clock& clock,
                                                          RenewalRules rules) {
  return std::make_unique<ExistingCertificateAttestor>(log, clock, std::move(rules));
}

AttestorSet::AttestorSet(store::Store& store, const base::Clock& clock, RenewalRules rules,
                         std::unique_ptr<Attestor> enrolled_key)
    : join_token_(MakeJoinTokenAttestor(store.tokens(), clock)),
      unix_peer_(MakeUnixPeerAttestor()),
      existing_certificate_(
          MakeExistingCertificateAttestor(store.certificates(), clock, std::move(rules))),
      enrolled_key_(enrolled_key != nullptr ? std::move(enrolled_key)
                                            : std::make_unique<NoAttestor>()) {}

absl::StatusOr<Attestation> AttestorSet::Attest(const Evidence& evidence) {
  struct Choose {
    AttestorSet& set;
    Attestor& operator()(const JoinTokenEvidence&) const { return *set.join_token_; }
    Attestor& operator()(const UnixPeerEvidence&) const { return *set.unix_peer_; }
    Attestor& operator()(const ExistingCertificateEvidence&) const {
      return *set.existing_certificate_;
    }
    Attestor& operator()(const EnrolledKeyEvidence&) const { return *set.enrolled_key_; }
  };
  return std::visit(Choose{*this}, evidence).Attest(evidence);
}

absl::StatusOr<MintedToken> MintToken() {
  std::array<uint8_t, kTokenBytes> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return absl::InternalError("the random generator failed");
  }
  MintedToken minted;
  minted.token = base::ToHex(bytes);
  minted.sha256 = HashToken(minted.token);
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return minted;
}

base::Sha256Digest HashToken(std::string_view token) {
  return x509::Sha256(base::AsBytes(token));
}

}  // namespace postern::attest
