// SPDX-License-Identifier: Apache-2.0
#include "control/issue/revocations.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "control/issue/registry.h"

namespace postern::issue {
namespace {

using x509::Revocation;
using x509::RevokedBy;

// The end of the longest-lived root: nothing that this trust domain vouches for lives longer.
absl::Time LastRootEnd(const x509::TrustBundleSet& bundles) {
  absl::Time last = absl::InfinitePast();
  for (const auto& [name, bundle] : bundles.bundles()) {
    for (const x509::X509Ptr& root : bundle.roots()) {
      last = std::max(last, x509::NotAfter(root.get()));
    }
  }
  return last;
}

void Audit(std::string_view verb, const Revocation& revocation) {
  spdlog::warn("{} {}={} number={} reason=\"{}\"", verb, x509::Token(revocation.by),
               revocation.subject, revocation.sequence, base::Printable(revocation.reason));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Revocations>> Revocations::Create(const ca::CaSigner& ca,
                                                                 store::Store& store,
                                                                 const base::Clock& clock) {
  auto made = std::unique_ptr<Revocations>(new Revocations(ca, store, clock));
  if (absl::Status read = made->Reload(); !read.ok()) {
    return read;
  }
  return made;
}

absl::Status Revocations::CheckSubject(const Revocation& wanted) const {
  if (wanted.by == RevokedBy::kSpiffeId && wanted.subject == IssuerId(ca_.trust_domain()).uri()) {
    return absl::InvalidArgumentError("the issuer cannot revoke its own identity");
  }
  if (wanted.by != RevokedBy::kIssuer) {
    return absl::OkStatus();
  }
  const std::shared_ptr<const ca::SigningSlot> slot = ca_.current();
  std::vector<const X509*> path = {slot->root.get()};
  for (const x509::X509Ptr& certificate : slot->chain) {
    path.push_back(certificate.get());
  }
  for (const X509* certificate : path) {
    if (base::ToHex(x509::Sha256OfCertificate(certificate)) == wanted.subject) {
      return absl::FailedPreconditionError(base::StrCat(
          x509::SubjectText(certificate),
          " vouches for what is signed now, this list included: every connection of the trust "
          "domain would end. Rotate first (`postern ca rotate`), then revoke the old CA"));
    }
  }
  return absl::OkStatus();
}

absl::Time Revocations::EndOf(const Revocation& wanted,
                              const store::NamedCertificates& named) const {
  switch (wanted.by) {
    case RevokedBy::kSpiffeId:
      return absl::InfiniteFuture();  // a ban, until it is lifted
    case RevokedBy::kIssuer:
      // It may belong to a trust domain whose certificates we do not know.
      return absl::InfiniteFuture();
    case RevokedBy::kKey:
      if (named.enrolled) {
        return absl::InfiniteFuture();  // else its entry would let it in again
      }
      break;
    case RevokedBy::kSerial:
      break;
  }
  // What the log does not know may be of another issuer below our roots: it lives at most as long
  // as one of these.
  return (named.living > 0 ? named.last_not_after : LastRootEnd(*ca_.bundles())) + kRememberRevoked;
}

absl::StatusOr<Revocations::Made> Revocations::Revoke(Revocation wanted) {
  absl::StatusOr<std::string> subject = x509::CanonicalSubject(wanted.by, wanted.subject);
  if (!subject.ok()) {
    return subject.status();
  }
  wanted.subject = *std::move(subject);
  if (wanted.reason.empty() || wanted.reason.size() > kMaxReason) {
    return absl::InvalidArgumentError(base::StrCat("a reason of 1 to ", kMaxReason,
                                                   " bytes is needed: it is what the peers say"));
  }
  if (absl::Status allowed = CheckSubject(wanted); !allowed.ok()) {
    return allowed;
  }
  const absl::StatusOr<store::NamedCertificates> named =
      store_.revocations().CountNamed(wanted.by, wanted.subject);
  if (!named.ok()) {
    return named.status();
  }
  wanted.forget_at = EndOf(wanted, *named);
  absl::StatusOr<Revocation> stored = store_.revocations().Revoke(wanted);
  if (!stored.ok()) {
    return stored.status();
  }
  Audit("revoked", *stored);
  if (absl::Status read = Reload(); !read.ok()) {
    return read;
  }
  return Made{*std::move(stored), named->living};
}

absl::StatusOr<std::vector<Revocation>> Revocations::Lift(uint64_t sequence) {
  absl::StatusOr<std::vector<Revocation>> lifted = store_.revocations().Lift(sequence);
  if (!lifted.ok()) {
    return lifted;
  }
  for (const Revocation& one : *lifted) {
    Audit("revocation lifted", one);
  }
  if (absl::Status read = Reload(); !read.ok()) {
    return read;
  }
  return lifted;
}

absl::Status Revocations::Reload() {
  const std::lock_guard reload(reload_mutex_);
  absl::StatusOr<store::RevocationList> read = store_.revocations().ListRevocations();
  if (!read.ok()) {
    return read.status();
  }
  auto set = std::make_shared<const x509::RevocationSet>(read->revocations);
  auto list = std::make_shared<const store::RevocationList>(*std::move(read));
  const std::lock_guard lock(mutex_);
  set_ = std::move(set);
  list_ = std::move(list);
  return absl::OkStatus();
}

absl::StatusOr<bool> Revocations::CleanUp() {
  const absl::StatusOr<uint64_t> forgotten = store_.revocations().Forget(clock_.Now());
  if (!forgotten.ok()) {
    return forgotten.status();
  }
  if (*forgotten == 0) {
    return false;
  }
  spdlog::info("{} revocations name no living certificate any more and are forgotten", *forgotten);
  if (absl::Status read = Reload(); !read.ok()) {
    return read;
  }
  return true;
}

std::shared_ptr<const x509::RevocationSet> Revocations::current() const {
  const std::lock_guard lock(mutex_);
  return set_;
}

std::shared_ptr<const store::RevocationList> Revocations::list() const {
  const std::lock_guard lock(mutex_);
  return list_;
}

}  // namespace postern::issue
