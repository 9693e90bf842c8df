// SPDX-License-Identifier: Apache-2.0
#include "control/ca/plugged_ca_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::ca {
namespace {

constexpr absl::Duration kJudgeAgain = absl::Minutes(1);  // "not yet valid" mends itself

std::string KeyOf(const absl::StatusOr<CaFiles>& files) {
  return files.ok() ? base::ToHex(files->digest)
                    : base::StrCat("error: ", base::Message(files.status()));
}

bool Holds(const std::vector<x509::X509Ptr>& roots, const X509* root) {
  return std::any_of(roots.begin(), roots.end(), [root](const x509::X509Ptr& other) {
    return X509_cmp(other.get(), root) == 0;
  });
}

PluggedRoots ToldBy(const std::vector<PublishedRoot>& roots) {
  PluggedRoots told;
  for (const PublishedRoot& root : roots) {
    if (root.retired) {
      told.retired.push_back(x509::Sha256OfCertificate(root.certificate.get()));
    } else {
      told.trusted.push_back(x509::ShareX509(root.certificate.get()));
    }
  }
  return told;
}

// A bundle names so many retired roots as it would of a CA of our own.
void ForgetOldest(std::vector<PublishedRoot>& roots) {
  const auto retired = [](const PublishedRoot& root) { return root.retired; };
  while (std::count_if(roots.begin(), roots.end(), retired) > store::kMaxWithdrawnCas) {
    roots.erase(std::min_element(
        roots.begin(), roots.end(), [](const PublishedRoot& a, const PublishedRoot& b) {
          return std::pair(!a.retired, a.until) < std::pair(!b.retired, b.until);
        }));
  }
}

// Whether the store's own CA was the one that signed when this state directory was last used.
bool OwnCaSigned(const std::vector<store::CaRecord>& records,
                 const std::vector<PublishedRoot>& published) {
  if (published.empty()) {
    return !records.empty();
  }
  return std::any_of(records.begin(), records.end(), [&published](const store::CaRecord& record) {
    const absl::StatusOr<x509::X509Ptr> own =
        x509::CertificateFromDer(base::AsBytes(record.certificate_der));
    const PublishedRoot* root = own.ok() ? FindRoot(published, own->get()) : nullptr;
    return root != nullptr && root->signs;
  });
}

}  // namespace

PluggedCaKeeper::PluggedCaKeeper(PluggedCaOptions options, CaOptions ca_options,
                                 store::CaStore& store, const base::Clock& clock)
    : options_(std::move(options)),
      ca_options_(std::move(ca_options)),
      store_(store),
      clock_(clock),
      token_key_(absl::FailedPreconditionError("the token was not asked yet")) {}

absl::StatusOr<PluggedCaKeeper::Opened> PluggedCaKeeper::Open(PluggedCaOptions options,
                                                              CaOptions ca_options,
                                                              store::CaStore& store,
                                                              const base::Clock& clock) {
  std::unique_ptr<PluggedCaKeeper> keeper(
      new PluggedCaKeeper(std::move(options), std::move(ca_options), store, clock));
  const absl::StatusOr<CaFiles> files = ReadCaFiles(keeper->options_.directory);
  keeper->accepted_key_ = KeyOf(files);
  const CaVerdict verdict = keeper->Judge(files, keeper->accepted_key_);
  if (verdict.ca == nullptr) {
    return absl::FailedPreconditionError(
        base::StrCat("--ca-dir: ", Token(verdict.problem), ": ", verdict.detail));
  }
  absl::StatusOr<std::vector<PublishedRoot>> published =
      ReadPublishedRoots(keeper->ca_options_.state_dir);
  const absl::StatusOr<std::vector<store::CaRecord>> records = store.ListCas();
  if (!published.ok() || !records.ok()) {
    return published.ok() ? records.status() : published.status();
  }
  if (absl::Status begun = keeper->Begin(verdict.ca, *std::move(published), *records);
      !begun.ok()) {
    return begun;
  }
  keeper->Count();
  Opened opened{std::move(keeper->made_signer_), nullptr};
  opened.keeper = std::move(keeper);
  return opened;
}

absl::Status PluggedCaKeeper::CheckNotPlugged(const std::string& state_dir) {
  const absl::StatusOr<std::vector<PublishedRoot>> published = ReadPublishedRoots(state_dir);
  if (!published.ok() || published->empty()) {
    return published.status();
  }
  return absl::FailedPreconditionError(base::StrCat(
      "this issuer signed with a CA of --ca-dir, and --ca-dir is not given now. To go back to a CA "
      "of its own, remove ",
      state_dir, "/", kPublishedRootsFile, " and give each proxy the new root"));
}

absl::Status PluggedCaKeeper::Begin(std::shared_ptr<const PluggedCa> ca,
                                    std::vector<PublishedRoot> published,
                                    const std::vector<store::CaRecord>& records) {
  pending_ = std::move(ca);
  pending_since_ = clock_.SinceBoot();
  if (OwnCaSigned(records, published)) {
    absl::StatusOr<std::unique_ptr<CaSigner>> own = CaSigner::Open(ca_options_, store_, clock_);
    const absl::Status usable = own.ok() ? (*own)->CheckUsable() : own.status();
    if (usable.ok()) {
      made_signer_ = *std::move(own);
      signer_ = made_signer_.get();
      if (absl::Status kept = KeepOwnRoots(); !kept.ok()) {
        return kept;
      }
      spdlog::info("the CA of --ca-dir replaces our own, once proxies know its root: {}",
                   pending_->description);
      return absl::OkStatus();
    }
    spdlog::warn("our own CA cannot sign until the one of --ca-dir does: {}",
                 base::Message(usable));
  }
  return BeginWithDirectory(published);
}

absl::Status PluggedCaKeeper::KeepOwnRoots() {
  const std::shared_ptr<const x509::TrustBundleSet> own = signer_->bundles();
  for (const x509::X509Ptr& root : own->Find(ca_options_.trust_domain.name())->roots()) {
    published_.push_back({x509::ShareX509(root.get()), true, absl::InfiniteFuture()});
  }
  const absl::StatusOr<std::vector<store::WithdrawnCa>> withdrawn = store_.ListWithdrawnCas();
  if (!withdrawn.ok()) {
    return withdrawn.status();
  }
  for (const store::WithdrawnCa& ca : *withdrawn) {
    if (ca.role != store::CaRole::kRoot || !ca.in_order) {
      continue;
    }
    absl::StatusOr<x509::X509Ptr> root =
        x509::CertificateFromDer(base::AsBytes(ca.certificate_der));
    if (!root.ok()) {
      return root.status();
    }
    published_.push_back({*std::move(root), false, ca.withdrawn_at, /*retired=*/true});
  }
  return absl::OkStatus();
}

// What was published stands for what proxies know. They are not asked: none is connected yet.
absl::Status PluggedCaKeeper::BeginWithDirectory(const std::vector<PublishedRoot>& published) {
  const PluggedCa& ca = *pending_;
  const absl::Time now = clock_.Now();
  std::vector<PublishedRoot> roots;
  for (const x509::X509Ptr& root : ca.roots) {
    const bool signs = X509_cmp(root.get(), ca.slot->root.get()) == 0;
    roots.push_back({x509::ShareX509(root.get()), signs, absl::InfiniteFuture()});
  }
  for (const PublishedRoot& root : published) {
    PublishedRoot kept = root.Share();
    kept.until = root.signs ? now + options_.longest_ttl : root.until;
    kept.signs = false;
    kept.retired = kept.until <= now;
    if (kept.until != absl::InfiniteFuture() &&
        FindRoot(roots, kept.certificate.get()) == nullptr) {
      roots.push_back(std::move(kept));
    }
  }
  ForgetOldest(roots);
  const PublishedRoot* const known = FindRoot(published, ca.slot->root.get());
  if (!published.empty() && (known == nullptr || known->retired)) {
    spdlog::warn(
        "the CA of --ca-dir was changed together with its root while the issuer was away: proxies "
        "do not know the new root, and need it by --issuer-pin or --issuer-bundle. Change it while "
        "the issuer runs, or put both roots there first");
  }
  absl::StatusOr<store::Version> version =
      SameRoots(roots, published) ? store_.BundleVersion() : store_.RaiseBundleVersion();
  absl::Status status = version.status();
  if (status.ok()) {
    status = WritePublishedRoots(ca_options_.state_dir, roots);
  }
  if (!status.ok()) {
    return status;
  }
  auto signer = CaSigner::OpenPlugged(ca_options_, ca.slot, ToldBy(roots), *version, clock_);
  if (!signer.ok()) {
    return signer.status();
  }
  spdlog::info("signing with the CA of --ca-dir: {}", ca.description);
  made_signer_ = *std::move(signer);
  signer_ = made_signer_.get();
  published_ = std::move(roots);
  pending_ = nullptr;
  return absl::OkStatus();
}

// The token is asked once for each content: it counts wrong PINs.
CaVerdict PluggedCaKeeper::Judge(const absl::StatusOr<CaFiles>& files, std::string_view key) {
  if (!files.ok()) {
    const CaProblem problem =
        absl::IsInvalidArgument(files.status()) ? CaProblem::kMalformed : CaProblem::kUnreadable;
    return {nullptr, problem, std::string(base::Message(files.status()))};
  }
  EVP_PKEY* token_key = nullptr;
  if (options_.token_key.has_value()) {
    if (token_loaded_for_ != key) {
      token_key_ = LoadPkcs11Key(*options_.token_key);
      token_loaded_for_ = std::string(key);
    }
    if (!token_key_.ok()) {
      return {nullptr, CaProblem::kNoKey, std::string(base::Message(token_key_.status()))};
    }
    token_key = token_key_->get();
  }
  return JudgeCa(*files, token_key, ca_options_.trust_domain, clock_.Now());
}

void PluggedCaKeeper::Tick() {
  Look();
  Advance();
  ForgetLeft();
  Count();
}

void PluggedCaKeeper::Look() {
  const absl::StatusOr<CaFiles> files = ReadCaFiles(options_.directory);
  const std::string key = KeyOf(files);
  if (key == accepted_key_) {
    if (!refused_key_.empty()) {
      spdlog::info("--ca-dir: what was refused is gone, the CA in use is back");
    }
    candidate_key_.clear();
    refused_key_.clear();
    return;
  }
  if (key != candidate_key_) {  // it may be half written: once more
    candidate_key_ = key;
    return;
  }
  if (key == refused_key_ && clock_.SinceBoot() < judge_again_at_) {
    return;
  }
  const CaVerdict verdict = Judge(files, key);
  if (verdict.ca == nullptr) {
    Refuse(key, verdict);
    return;
  }
  spdlog::info("--ca-dir: another CA is there and is good: {}", verdict.ca->description);
  accepted_key_ = key;
  candidate_key_.clear();
  refused_key_.clear();
  pending_ = verdict.ca;
  pending_since_ = clock_.SinceBoot();
}

void PluggedCaKeeper::Refuse(const std::string& key, const CaVerdict& verdict) {
  if (key != refused_key_) {
    spdlog::error("--ca-dir: the CA that lies there now is refused, the one before goes on: {}: {}",
                  Token(verdict.problem), verdict.detail);
    const std::lock_guard lock(mutex_);
    ++status_.refused[static_cast<size_t>(verdict.problem)];
  }
  refused_key_ = key;
  judge_again_at_ = clock_.SinceBoot() + kJudgeAgain;
}

// The directory's roots, and those that what was signed until now still needs.
std::vector<PublishedRoot> PluggedCaKeeper::WithOldRoots(const PluggedCa& ca) const {
  std::vector<PublishedRoot> roots;
  for (const x509::X509Ptr& root : ca.roots) {
    const PublishedRoot* known = FindRoot(published_, root.get());
    const bool signs = known != nullptr && known->signs;
    roots.push_back({x509::ShareX509(root.get()), signs, absl::InfiniteFuture()});
  }
  for (const PublishedRoot& root : published_) {
    const bool needed = root.signs || root.until != absl::InfiniteFuture();
    if (needed && FindRoot(roots, root.certificate.get()) == nullptr) {
      roots.push_back(root.Share());
    }
  }
  return roots;
}

// The version first: should this be interrupted, a version too many was used, and the same set is
// published under another one at the next start.
absl::Status PluggedCaKeeper::Publish(std::vector<PublishedRoot> roots) {
  if (SameRootsAndFacts(roots, published_)) {
    return absl::OkStatus();
  }
  const bool same = SameRoots(roots, published_);
  store::Version version = signer_->bundle_version();
  if (!same) {
    const absl::StatusOr<store::Version> raised = store_.RaiseBundleVersion();
    if (!raised.ok()) {
      return raised.status();
    }
    version = *raised;
  }
  if (absl::Status status = WritePublishedRoots(ca_options_.state_dir, roots); !status.ok()) {
    return status;
  }
  if (!same) {
    if (absl::Status status = signer_->UseRoots(ToldBy(roots), version); !status.ok()) {
      return status;
    }
  }
  published_ = std::move(roots);
  if (!same && hooks_.bundles_changed) {
    hooks_.bundles_changed();
  }
  return absl::OkStatus();
}

void PluggedCaKeeper::Advance() {
  if (pending_ == nullptr) {
    return;
  }
  if (absl::Status published = Publish(WithOldRoots(*pending_)); !published.ok()) {
    if (!publish_failed_) {
      spdlog::error("the roots of --ca-dir could not be published, and the CA before goes on: {}",
                    base::Message(published));
    }
    publish_failed_ = true;
    return;
  }
  publish_failed_ = false;
  const size_t behind = hooks_.behind ? hooks_.behind(signer_->bundle_version()) : 0;
  const bool waited = clock_.SinceBoot() - pending_since_ >= options_.follow_limit;
  if (behind > 0 && !waited && signer_->CheckUsable().ok()) {
    return;
  }
  if (behind > 0) {
    spdlog::warn("{} connected proxies have not acknowledged the roots of the new CA; it signs now",
                 behind);
  }
  Activate();
}

void PluggedCaKeeper::Activate() {
  const std::shared_ptr<const PluggedCa> ca = std::exchange(pending_, nullptr);
  const absl::Time old_ends =
      std::min(clock_.Now() + options_.longest_ttl, signer_->current()->not_after);
  signer_->UseSlot(ca->slot);
  std::vector<PublishedRoot> roots;
  for (const PublishedRoot& root : published_) {
    PublishedRoot kept = root.Share();
    kept.signs = X509_cmp(root.certificate.get(), ca->slot->root.get()) == 0;
    if (root.signs && !kept.signs && !Holds(ca->roots, root.certificate.get())) {
      kept.until = old_ends;
      spdlog::info("the root '{}' stays trusted until {}, for what was signed below it",
                   base::Printable(x509::SubjectText(root.certificate.get()), 128),
                   absl::FormatTime(old_ends, absl::UTCTimeZone()));
    }
    roots.push_back(std::move(kept));
  }
  spdlog::info("signing with another CA of --ca-dir: {}", ca->description);
  // The certificates are the same as before, so no new version is needed. Where this fails it holds
  // in memory, and after a restart the old root stays for longest_ttl from then on.
  if (absl::Status kept = WritePublishedRoots(ca_options_.state_dir, roots); !kept.ok()) {
    spdlog::error("when the old root leaves could not be stored: {}", base::Message(kept));
  }
  published_ = std::move(roots);
  const std::lock_guard lock(mutex_);
  ++status_.changes;
}

void PluggedCaKeeper::ForgetLeft() {
  const absl::Time now = clock_.Now();
  const auto leaves = [now](const PublishedRoot& root) {
    return !root.retired && root.until <= now;
  };
  if (std::none_of(published_.begin(), published_.end(), leaves)) {
    return;
  }
  std::vector<PublishedRoot> roots;
  for (const PublishedRoot& root : published_) {
    roots.push_back(root.Share());
    roots.back().retired = root.retired || leaves(root);
  }
  ForgetOldest(roots);
  if (absl::Status published = Publish(std::move(roots)); !published.ok()) {
    spdlog::warn("a root that is needed no more is still published: {}", base::Message(published));
    return;
  }
  spdlog::info("a root that is needed no more has left the bundle");
}

void PluggedCaKeeper::Count() {
  const std::lock_guard lock(mutex_);
  status_.refusing = !refused_key_.empty();
  status_.waiting = pending_ != nullptr;
  status_.leaving_roots = static_cast<uint64_t>(
      std::count_if(published_.begin(), published_.end(), [](const PublishedRoot& root) {
        return !root.retired && root.until != absl::InfiniteFuture();
      }));
}

PluggedCaStatus PluggedCaKeeper::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace postern::ca
