// SPDX-License-Identifier: Apache-2.0
#include "control/issue/issuer.h"

#include <openssl/x509v3.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/digest.h"
#include "common/x509/key.h"
#include "common/x509/member_key.h"
#include "common/x509/public_key.h"
#include "control/issue/check_signed.h"
#include "control/issue/registry.h"

namespace postern::issue {
namespace {

using attest::Refuse;

// A clash of 128 random bits means a broken generator, not bad luck; three are not tried again.
constexpr int kSerialAttempts = 3;

absl::Status StoreRefusal(const absl::Status& status) {
  // The caller learns that it may try again; the operator learns why.
  spdlog::error("the store failed: {}", base::Message(status));
  return Refuse(RefusalReason::kStoreError, "the issuer's store does not answer; try again");
}

absl::Status Internal(std::string_view what, const absl::Status& status) {
  spdlog::error("{}: {}", what, base::Message(status));
  return Refuse(RefusalReason::kInternal, what);
}

// An identity in the request can only confirm what the issuer decides; this is what needs no
// decision.
absl::Status CheckRequestedUri(const x509::VerifiedCsr& csr,
                               const x509::TrustDomain& trust_domain) {
  if (!csr.uri.has_value()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(*csr.uri);
  if (!id.ok() || id->trust_domain_name() != trust_domain.name() || IsReserved(*id)) {
    return Refuse(RefusalReason::kForeignIdentity,
                  base::StrCat("the CSR asks for \"", base::Printable(*csr.uri),
                               "\", which this issuer never grants: leave the URI SAN out"));
  }
  return absl::OkStatus();
}

// The SHA-256 of the key that the entry names, in hexadecimal; nullopt: it names none.
std::optional<std::string> MemberKeyOf(const store::Entry& entry) {
  for (const std::string_view selector : entry.selectors) {
    if (selector.starts_with(x509::kMemberKeySelector)) {
      return std::string(selector.substr(x509::kMemberKeySelector.size()));
    }
  }
  return std::nullopt;
}

absl::Status MemberRefusal(std::string_view why) {
  return Refuse(RefusalReason::kRevoked,
                base::StrCat("the member's key was revoked: ", base::Printable(why)));
}

void Audit(const IssueRequest& request, const absl::StatusOr<IssueResult>& answer) {
  const std::string source = base::Printable(request.source);
  const std::string_view evidence = attest::KindOf(request.evidence);
  if (answer.ok()) {
    spdlog::info("issued id={} serial={} entry={} evidence={} source={} not_after={}",
                 answer->id.uri(), answer->serial, answer->entry_id, evidence, source,
                 absl::FormatTime(answer->not_after, absl::UTCTimeZone()));
  } else {
    spdlog::warn("refused reason={} evidence={} source={}: {}",
                 attest::Token(ReasonOf(answer.status())), evidence, source,
                 base::Message(answer.status()));
  }
}

}  // namespace

absl::Status TtlPolicy::Check(absl::Duration ttl) const {
  if (ttl < minimum() || ttl > kMaxTtl) {
    return absl::InvalidArgumentError(
        base::StrCat("a time to live of ", absl::FormatDuration(ttl), " is outside of ",
                     absl::FormatDuration(minimum()), " to ", absl::FormatDuration(kMaxTtl),
                     allow_short_ttl ? "" : " (--allow-short-ttl allows it from 10 s)"));
  }
  return absl::OkStatus();
}

Issuer::Issuer(TtlPolicy ttl, ca::CaSigner& ca, store::Store& store, attest::Attestor& attestor,
               const base::Clock& clock)
    : ttl_(ttl), ca_(ca), store_(store), attestor_(attestor), clock_(clock) {}

absl::StatusOr<std::unique_ptr<Issuer>> Issuer::Create(TtlPolicy ttl, ca::CaSigner& ca,
                                                       store::Store& store,
                                                       attest::Attestor& attestor,
                                                       const base::Clock& clock) {
  if (absl::Status status = ttl.Check(ttl.default_ttl); !status.ok()) {
    return status;
  }
  return std::unique_ptr<Issuer>(new Issuer(ttl, ca, store, attestor, clock));
}

absl::StatusOr<IssueResult> Issuer::Issue(const IssueRequest& request) {
  absl::StatusOr<IssueResult> answer = Decide(request);
  Audit(request, answer);
  return answer;
}

absl::StatusOr<IssueResult> Issuer::Decide(const IssueRequest& request) {
  const absl::StatusOr<x509::VerifiedCsr> csr = x509::VerifyCsr(request.csr_der);
  if (!csr.ok()) {
    return Refuse(RefusalReason::kBadCsr, base::Message(csr.status()));
  }
  if (absl::Status status = CheckRequestedUri(*csr, ca_.trust_domain()); !status.ok()) {
    return status;
  }
  if (absl::Status status = ca_.CheckUsable(); !status.ok()) {
    return Refuse(RefusalReason::kCaExpired, base::Message(status));
  }
  const absl::StatusOr<attest::Attestation> attestation = Attest(request.evidence, *csr);
  if (!attestation.ok()) {
    return attestation.status();
  }
  if (absl::Status status = CheckNotRevoked(*csr, request.evidence); !status.ok()) {
    return status;
  }
  const absl::StatusOr<store::Entry> entry = FindEntry(*attestation);
  if (!entry.ok()) {
    return entry.status();
  }
  if (absl::Status status = CheckIdentityNotRevoked(entry->spiffe_id); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckMemberNotRevoked(*entry); !status.ok()) {
    return status;
  }
  if (csr->uri.has_value() && *csr->uri != entry->spiffe_id.uri()) {
    return Refuse(RefusalReason::kIdentityMismatch,
                  base::StrCat("the CSR asks for \"", base::Printable(*csr->uri),
                               "\", and the caller is attested as ", entry->spiffe_id.uri()));
  }
  const absl::Duration wanted_ttl =
      entry->svid_ttl == absl::ZeroDuration() ? ttl_.default_ttl : entry->svid_ttl;
  // An entry may be older than the present bounds.
  const ca::SvidTemplate wanted{.id = entry->spiffe_id,
                                .public_key = csr->public_key.get(),
                                .ttl = std::clamp(wanted_ttl, ttl_.minimum(), kMaxTtl)};
  if (budget_ != nullptr && !budget_->Take(entry->id, wanted.ttl)) {
    return Refuse(RefusalReason::kRateLimited,
                  base::StrCat("entry ", entry->id,
                               " has been given thousands of certificates within one lifetime: "
                               "who renews without end?"));
  }
  const auto* shown = std::get_if<attest::ExistingCertificateEvidence>(&request.evidence);
  absl::StatusOr<IssueResult> issued =
      SignAndLog(wanted, entry->id, shown == nullptr ? "" : shown->peer.serial);
  if (issued.ok()) {
    if (absl::Status stands = CheckEntryStands(*entry); !stands.ok()) {
      return stands;
    }
  }
  return issued;
}

// A member's proof is over the key that it is a proof for, which only who verified the CSR knows.
absl::StatusOr<attest::Attestation> Issuer::Attest(const attest::Evidence& evidence,
                                                   const x509::VerifiedCsr& csr) {
  const auto* enrolled = std::get_if<attest::EnrolledKeyEvidence>(&evidence);
  if (enrolled == nullptr) {
    return attestor_.Attest(evidence);
  }
  absl::StatusOr<std::string> csr_key = x509::PublicKeyToDer(csr.public_key.get());
  if (!csr_key.ok()) {
    return Internal("the CSR's key does not encode", csr_key.status());
  }
  attest::EnrolledKeyEvidence whole = *enrolled;
  whole.csr_public_key_der = *std::move(csr_key);
  return attestor_.Attest(whole);
}

// Before an identity is looked for: the certificate that is shown, and the key that is to be
// certified.
absl::Status Issuer::CheckNotRevoked(const x509::VerifiedCsr& csr,
                                     const attest::Evidence& evidence) const {
  if (revocations_ == nullptr) {
    return absl::OkStatus();
  }
  const std::shared_ptr<const x509::RevocationSet> revoked = revocations_->current();
  if (const auto* shown = std::get_if<attest::ExistingCertificateEvidence>(&evidence)) {
    if (const std::optional<std::string> why = revoked->WhyRevoked(shown->peer)) {
      return Refuse(RefusalReason::kRevoked, *why);
    }
  }
  const absl::StatusOr<std::string> der = x509::PublicKeyToDer(csr.public_key.get());
  if (!der.ok()) {
    return Internal("the key of the request could not be read", der.status());
  }
  if (const x509::Revocation* found =
          revoked->Find(x509::RevokedBy::kKey, base::ToHex(x509::Sha256(base::AsBytes(*der))))) {
    return Refuse(RefusalReason::kRevoked,
                  base::StrCat("the key was revoked: ", base::Printable(found->reason)));
  }
  return absl::OkStatus();
}

// Whatever is shown: a certificate that the member's key once attested to is worth what the key is.
absl::Status Issuer::CheckMemberNotRevoked(const store::Entry& entry) const {
  const std::optional<std::string> key = MemberKeyOf(entry);
  if (revocations_ == nullptr || !key.has_value()) {
    return absl::OkStatus();
  }
  const std::shared_ptr<const x509::RevocationSet> revoked = revocations_->current();
  const x509::Revocation* const found = revoked->Find(x509::RevokedBy::kKey, *key);
  return found == nullptr ? absl::OkStatus() : MemberRefusal(found->reason);
}

// After the certificate is in the log, and before anybody has it. Who deletes an entry, or revokes
// its identity or its member's key, from here on finds the certificate in the log; who did so
// before is seen here. For that the store is asked: what is kept in memory may be a moment older.
absl::Status Issuer::CheckEntryStands(const store::Entry& entry) {
  const absl::StatusOr<store::Entry> still = store_.entries().GetEntry(entry.id);
  if (absl::IsNotFound(still.status())) {
    return Refuse(RefusalReason::kNoEntry, "the entry was deleted while its certificate was made");
  }
  if (!still.ok()) {
    return StoreRefusal(still.status());
  }
  const std::optional<std::string> key = MemberKeyOf(entry);
  if (!key.has_value()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<bool> revoked = store_.revocations().IsRevoked(x509::RevokedBy::kKey, *key);
  if (!revoked.ok()) {
    return StoreRefusal(revoked.status());
  }
  return *revoked ? MemberRefusal("while its certificate was made") : absl::OkStatus();
}

absl::StatusOr<store::Entry> Issuer::FindEntry(const attest::Attestation& attestation) {
  if (!attestation.entry_id.empty()) {
    absl::StatusOr<store::Entry> entry = store_.entries().GetEntry(attestation.entry_id);
    if (absl::IsNotFound(entry.status())) {
      return Refuse(RefusalReason::kNoEntry,
                    "the entry that this certificate was issued under has been deleted");
    }
    return entry.ok() ? std::move(entry) : StoreRefusal(entry.status());
  }
  absl::StatusOr<std::vector<store::Entry>> entries =
      store_.entries().MatchEntries(attestation.selectors);
  if (!entries.ok()) {
    return StoreRefusal(entries.status());
  }
  if (entries->empty()) {
    return Refuse(RefusalReason::kNoEntry,
                  "the caller is attested, but no registration entry matches it: see `postern "
                  "entry list`");
  }
  if (entries->size() > 1) {
    return Refuse(RefusalReason::kAmbiguousEntry,
                  base::StrCat(entries->size(),
                               " registration entries match the caller, and exactly one must: "
                               "entries ",
                               (*entries)[0].id, " and ", (*entries)[1].id));
  }
  return std::move(entries->front());
}

absl::Status Issuer::CheckIdentityNotRevoked(const x509::SpiffeId& id) const {
  if (revocations_ == nullptr) {
    return absl::OkStatus();
  }
  const std::shared_ptr<const x509::RevocationSet> revoked = revocations_->current();
  const x509::Revocation* const found = revoked->Find(x509::RevokedBy::kSpiffeId, id.uri());
  return found == nullptr
             ? absl::OkStatus()
             : Refuse(RefusalReason::kRevoked,
                      base::StrCat(id.uri(),
                                   " is revoked, and gets no certificate until that is "
                                   "lifted: ",
                                   base::Printable(found->reason)));
}

// The first leaf of a signer goes through the verifier of the peers, which judges the signer as
// well; of the others just the leaf is judged, for the signer is still the same and still valid.
absl::Status Issuer::CheckMade(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                               absl::Time now) {
  if (absl::Status status = CheckSigned(made, wanted, now); !status.ok()) {
    return status;
  }
  const std::shared_ptr<const x509::TrustBundleSet> bundles = ca_.bundles();
  {
    const std::lock_guard lock(judged_mutex_);
    if (judged_signer_ == made.signer && judged_bundles_ == bundles) {
      return absl::OkStatus();
    }
  }
  if (absl::Status status = CheckSignedAsPeer(made, wanted, *bundles, now); !status.ok()) {
    return status;
  }
  const std::lock_guard lock(judged_mutex_);
  judged_signer_ = made.signer;
  judged_bundles_ = bundles;
  return absl::OkStatus();
}

absl::StatusOr<IssueResult> Issuer::SignAndLog(const ca::SvidTemplate& wanted,
                                               const std::string& entry_id,
                                               const std::string& replaces) {
  for (int attempt = 0; attempt < kSerialAttempts; ++attempt) {
    absl::StatusOr<ca::SignedSvid> made = ca_.SignX509Svid(wanted);
    if (absl::IsFailedPrecondition(made.status())) {
      return Refuse(RefusalReason::kCaExpired, base::Message(made.status()));
    }
    if (!made.ok()) {
      return Internal("the certificate could not be signed", made.status());
    }
    const absl::Time now = clock_.Now();
    if (absl::Status status = CheckMade(*made, wanted, now); !status.ok()) {
      if (made->signer != ca_.current()) {
        continue;  // a rotation went on meanwhile
      }
      return Internal("the signed certificate failed the issuer's own check", status);
    }
    const absl::Time issued_at = absl::FromUnixSeconds(absl::ToUnixSeconds(now));
    absl::StatusOr<store::IssuedCertificate> record = RecordOf(*made, wanted, entry_id, issued_at);
    if (!record.ok()) {
      return Internal("the signed certificate could not be recorded", record.status());
    }
    record->replaces = replaces;
    const absl::Status logged = store_.certificates().Append(*record);
    if (logged.ok()) {
      std::vector<std::string> chain_der = made->signer->chain_der;
      chain_der.insert(chain_der.begin(), std::move(made->leaf_der));
      return IssueResult{.id = wanted.id,
                         .chain_der = std::move(chain_der),
                         .serial = std::move(made->serial),
                         .entry_id = entry_id,
                         .not_before = made->not_before,
                         .not_after = made->not_after,
                         .issued_at = issued_at};
    }
    if (absl::IsFailedPrecondition(logged)) {
      continue;  // its CA was retired between the signature and this: the current one signs
    }
    if (!absl::IsAlreadyExists(logged)) {
      return StoreRefusal(logged);
    }
    spdlog::warn("serial {} was drawn a second time; drawing again", made->serial);
  }
  return Refuse(RefusalReason::kInternal,
                "no certificate could be made: try again, and see the issuer's log");
}

absl::StatusOr<std::shared_ptr<const x509::Svid>> Issuer::IssueOwnSvid() {
  absl::StatusOr<x509::PkeyPtr> key = x509::GenerateP256Key();
  if (!key.ok()) {
    return Internal("no key could be made", key.status());
  }
  // The short lifetimes of a test mesh are for its workloads: the issuer's port keeps the usual
  // one.
  const ca::SvidTemplate wanted{.id = IssuerId(ca_.trust_domain()),
                                .public_key = key->get(),
                                .ttl = std::max(ttl_.default_ttl, kDefaultTtl),
                                .backdate = ca::kCaBackdate};
  absl::StatusOr<IssueResult> issued = SignAndLog(wanted, /*entry_id=*/"", /*replaces=*/"");
  if (!issued.ok()) {
    return issued.status();
  }
  std::vector<x509::X509Ptr> chain;
  for (const std::string& der : issued->chain_der) {
    absl::StatusOr<x509::X509Ptr> certificate = x509::CertificateFromDer(base::AsBytes(der));
    if (!certificate.ok()) {
      return Internal("the issuer's own certificate does not parse", certificate.status());
    }
    chain.push_back(*std::move(certificate));
  }
  absl::StatusOr<x509::Svid> svid = x509::Svid::Create(std::move(chain), *std::move(key));
  if (!svid.ok()) {
    return Internal("the issuer's own certificate cannot be used", svid.status());
  }
  return std::make_shared<const x509::Svid>(*std::move(svid));
}

}  // namespace postern::issue
