// SPDX-License-Identifier: Apache-2.0
#include "control/federation/foreign_bundles.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/bundle_json.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"
#include "control/federation/bundle_age.h"

namespace postern::federation {
namespace {

using store::ForeignBundle;

constexpr std::array<std::string_view, kFetchResultCount> kTokens = {
    "ok",           "unreachable", "untrusted",      "bad_answer",
    "bad_document", "claims_ours", "older_sequence", "not_stored"};

// What a fetch ended with.
struct Outcome {
  FetchResult result = FetchResult::kOk;
  std::string error = {};
};

Outcome Refused(FetchResult result, std::string_view error) {
  return {result, std::string(error)};
}

FetchResult ResultOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return FetchResult::kUntrusted;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
      return FetchResult::kBadAnswer;
    default:
      return FetchResult::kUnreachable;
  }
}

std::string HexDigestOf(std::string_view text) {
  return base::ToHex(x509::Sha256(base::AsBytes(text)));
}

absl::Status InSpec(const FederationSpec& spec, std::string_view what) {
  return absl::InvalidArgumentError(
      base::StrCat("--federate trust-domain=", spec.trust_domain.name(), ": ", what));
}

absl::Duration Bounded(std::optional<absl::Duration> hint) {
  return std::clamp(hint.value_or(kDefaultRefresh), kShortestRefresh, kLongestRefresh);
}

// X509-SVID section 4.1: a signing certificate may name its trust domain, and then means it.
bool NamesTrustDomain(const X509* root, const x509::TrustDomain& trust_domain) {
  for (const std::string& uri : x509::UriSans(root)) {
    const absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(uri);
    if (id.ok() && id->trust_domain_name() == trust_domain.name()) {
      return true;
    }
  }
  return false;
}

absl::StatusOr<x509::TrustBundleSet> OneOf(const x509::TrustBundleSet& bundles,
                                           std::string_view trust_domain) {
  const x509::TrustBundle* const found = bundles.Find(trust_domain);
  if (found == nullptr) {
    return absl::InvalidArgumentError(base::StrCat("it holds no bundle of ", trust_domain));
  }
  std::vector<x509::X509Ptr> roots;
  for (const x509::X509Ptr& root : found->roots()) {
    roots.push_back(x509::ShareX509(root.get()));
  }
  auto copy = x509::TrustBundle::Create(found->trust_domain(), std::move(roots));
  if (!copy.ok()) {
    return copy.status();
  }
  std::vector<x509::TrustBundle> one;
  one.push_back(*std::move(copy));
  return x509::TrustBundleSet(std::move(one));
}

using Bundles = std::shared_ptr<const x509::TrustBundleSet>;

// One federation. Guarded by Impl::mutex, but for what never changes after Create.
struct Relation {
  Relation(FederationSpec the_spec, absl::Time now)
      : spec(std::move(the_spec)), age(spec.max_age, spec.on_stale, now) {}

  const FederationSpec spec;
  std::string ca_pem;
  Bundles given;  // of --federate bundle=; null: none

  std::optional<ForeignBundle> held;
  Bundles bundles;  // of what is held; null where that trusts nothing
  std::optional<uint64_t> sequence;
  BundleAge age;
  absl::Duration refresh = kDefaultRefresh;

  absl::Duration due = -absl::InfiniteDuration();  // SinceBoot
  int failures = 0;                                // in a row
  std::string last_error;
  std::array<uint64_t, kFetchResultCount> fetches{};

  void Hold(ForeignBundle bundle, x509::SpiffeBundle parsed) {
    held = std::move(bundle);
    sequence = parsed.sequence;
    // Often enough that one failure does not make it stale.
    refresh = std::min(Bounded(parsed.refresh_hint), std::max(spec.max_age / 3, kShortestRefresh));
    bundles.reset();
    if (parsed.bundle.has_value()) {
      std::vector<x509::TrustBundle> one;
      one.push_back(*std::move(parsed.bundle));
      bundles = std::make_shared<const x509::TrustBundleSet>(std::move(one));
    }
  }
};

}  // namespace

std::string_view Token(FetchResult result) noexcept {
  return kTokens[static_cast<size_t>(result)];
}

struct ForeignBundles::Impl {
  Impl(Options with, store::ForeignBundleStore& the_store, const base::Clock& the_clock)
      : options(std::move(with)), store(the_store), clock(the_clock) {}

  absl::Status AddRelation(const FederationSpec& spec);
  absl::Status ReadGiven(Relation& relation, std::string& digest);
  absl::Status Load();
  absl::Status Restore(Relation& relation, const ForeignBundle& kept);
  absl::Status Begin(Relation& relation, const std::string& digest);
  absl::Status CheckStart(const Relation& relation) const;
  ServerTrust TrustOf(const Relation& relation) const;
  Outcome Fetch(Relation& relation, bool accept_older, bool& replaced);
  Outcome Judge(Relation& relation, const std::string& document, bool accept_older, bool& replaced);
  Outcome Run(Relation& relation, bool accept_older);
  absl::Duration NextWait(const Relation& relation);
  bool NoteAge(Relation& relation);

  const Options options;
  store::ForeignBundleStore& store;
  const base::Clock& clock;
  std::function<void()> changed;
  std::mutex fetch_mutex;  // one fetch at a time; taken before `mutex`, and held over the network
  std::mt19937_64 random{std::random_device{}()};  // guarded by fetch_mutex
  mutable std::mutex mutex;
  // By trust domain. The map itself does not change after Create.
  std::map<std::string, std::unique_ptr<Relation>, std::less<>> relations;
};

absl::Status ForeignBundles::Impl::AddRelation(const FederationSpec& spec) {
  if (spec.trust_domain == options.own) {
    return InSpec(spec, "that is our own trust domain, whose roots come from our CA alone");
  }
  auto relation = std::make_unique<Relation>(spec, clock.Now());
  if (!spec.ca_file.empty()) {
    absl::StatusOr<std::string> pem = base::ReadFile(spec.ca_file);
    const absl::Status usable = pem.ok() ? x509::CertificatesFromPem(*pem).status() : pem.status();
    if (!usable.ok()) {
      return InSpec(spec, base::StrCat("ca=", spec.ca_file, ": ", base::Message(usable)));
    }
    relation->ca_pem = *std::move(pem);
  }
  if (!relations.emplace(spec.trust_domain.name(), std::move(relation)).second) {
    return InSpec(spec, "stands twice; one endpoint speaks for a trust domain");
  }
  return absl::OkStatus();
}

// The bundle file of a spec; `digest` stays empty without one.
absl::Status ForeignBundles::Impl::ReadGiven(Relation& relation, std::string& digest) {
  const FederationSpec& spec = relation.spec;
  if (spec.bundle_file.empty()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<std::string> content = base::ReadFile(spec.bundle_file, kMaxDocumentBytes);
  absl::Status status = content.status();
  if (content.ok()) {
    const auto read =
        x509::TrustBundleSet::FromFileContent(*content, spec.endpoint_id->trust_domain());
    status = read.status();
    if (read.ok()) {
      auto one = OneOf(*read, spec.endpoint_id->trust_domain_name());
      status = one.status();
      if (one.ok()) {
        relation.given = std::make_shared<const x509::TrustBundleSet>(*std::move(one));
        digest = HexDigestOf(*content);
        return absl::OkStatus();
      }
    }
  }
  return InSpec(spec, base::StrCat("bundle=", spec.bundle_file, ": ", base::Message(status)));
}

absl::Status ForeignBundles::Impl::Restore(Relation& relation, const ForeignBundle& kept) {
  absl::StatusOr<x509::SpiffeBundle> parsed =
      x509::SpiffeBundleFromJson(kept.document, relation.spec.trust_domain);
  if (!parsed.ok()) {
    return absl::DataLossError(base::StrCat("the stored bundle of ", kept.trust_domain,
                                            " does not parse: ", base::Message(parsed.status())));
  }
  relation.Hold(kept, *std::move(parsed));
  return absl::OkStatus();
}

// What the operator gave for a self-serving endpoint is the bundle of the federated trust domain:
// it is in force until the endpoint was reached.
absl::Status ForeignBundles::Impl::Begin(Relation& relation, const std::string& digest) {
  const x509::TrustDomain& trust_domain = relation.spec.trust_domain;
  ForeignBundle bundle{.trust_domain = trust_domain.name()};
  bundle.document = x509::SpiffeBundleToJson(*relation.given->Find(trust_domain.name()),
                                             std::nullopt, std::nullopt);
  bundle.bootstrap_sha256 = digest;
  absl::StatusOr<x509::SpiffeBundle> parsed =
      x509::SpiffeBundleFromJson(bundle.document, trust_domain);
  if (!parsed.ok()) {
    return parsed.status();
  }
  for (const x509::X509Ptr& root : parsed->bundle->roots()) {
    if (NamesTrustDomain(root.get(), options.own)) {
      return InSpec(relation.spec, "bundle: a root in it names our own trust domain");
    }
  }
  if (absl::Status stored = store.PutForeignBundle(bundle); !stored.ok()) {
    return stored;
  }
  relation.Hold(std::move(bundle), *std::move(parsed));
  return absl::OkStatus();
}

absl::Status ForeignBundles::Impl::Load() {
  const absl::StatusOr<std::vector<ForeignBundle>> kept = store.ListForeignBundles();
  if (!kept.ok()) {
    return kept.status();
  }
  std::map<std::string, const ForeignBundle*> by_name;
  for (const ForeignBundle& one : *kept) {
    if (relations.contains(one.trust_domain)) {
      by_name.emplace(one.trust_domain, &one);
    } else if (absl::Status gone = store.DeleteForeignBundle(one.trust_domain); !gone.ok()) {
      return gone;
    } else {
      spdlog::info("federation: {} is not configured any more, its bundle is forgotten",
                   one.trust_domain);
    }
  }
  for (const auto& [name, relation] : relations) {
    std::string digest;
    absl::Status status = ReadGiven(*relation, digest);
    const auto found = by_name.find(name);
    const ForeignBundle* const held = found == by_name.end() ? nullptr : found->second;
    // A file that changed is the operator's word that the old trust is no good any more.
    const bool begin = relation->spec.IsSelfServing() && relation->given != nullptr &&
                       (held == nullptr || held->bootstrap_sha256 != digest);
    if (status.ok() && begin) {
      status = Begin(*relation, digest);
    } else if (status.ok() && held != nullptr) {
      status = Restore(*relation, *held);
    }
    if (status.ok()) {
      status = CheckStart(*relation);
    }
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// An endpoint that can never be known would only fail for ever.
absl::Status ForeignBundles::Impl::CheckStart(const Relation& relation) const {
  const std::optional<x509::SpiffeId>& id = relation.spec.endpoint_id;
  if (!id.has_value() || relation.given != nullptr ||
      id->trust_domain_name() == options.own.name() ||
      (relation.spec.IsSelfServing() ? relation.held.has_value()
                                     : relations.contains(id->trust_domain_name()))) {
    return absl::OkStatus();
  }
  return InSpec(relation.spec,
                base::StrCat("bundle is missing; write bundle=FILE with the bundle of ",
                             id->trust_domain_name(), " to know the endpoint by at first"));
}

// Whom the endpoint must be, by what is held at this moment. The caller holds fetch_mutex, under
// which alone it changes.
ServerTrust ForeignBundles::Impl::TrustOf(const Relation& relation) const {
  if (!relation.spec.endpoint_id.has_value()) {
    return {.ca_pem = relation.ca_pem};
  }
  ServerTrust trust{.id = relation.spec.endpoint_id};
  const std::string_view endpoint_domain = relation.spec.endpoint_id->trust_domain_name();
  const auto other = relations.find(endpoint_domain);
  if (endpoint_domain == options.own.name()) {
    trust.bundles = options.own_bundles();
  } else if (other != relations.end() && other->second->held.has_value()) {
    // Of itself, or of another federation. Never what it was begun with once that is replaced. What
    // is too old to be trusted by others is how it comes back itself.
    const bool usable = other->second.get() == &relation || !other->second->age.distrusted();
    trust.bundles = usable ? other->second->bundles : nullptr;
  } else {
    trust.bundles = relation.given;
  }
  return trust;
}

Outcome ForeignBundles::Impl::Judge(Relation& relation, const std::string& document,
                                    bool accept_older, bool& replaced) {
  const std::string& name = relation.spec.trust_domain.name();
  absl::StatusOr<x509::SpiffeBundle> parsed =
      x509::SpiffeBundleFromJson(document, relation.spec.trust_domain);
  if (!parsed.ok()) {
    return Refused(FetchResult::kBadDocument, base::Message(parsed.status()));
  }
  if (parsed->bundle.has_value()) {
    for (const x509::X509Ptr& root : parsed->bundle->roots()) {
      if (NamesTrustDomain(root.get(), options.own)) {
        return Refused(FetchResult::kClaimsOurs,
                       "a root in it names our own trust domain, for which nobody else speaks");
      }
    }
  }
  // A document without a sequence after one that had it may be as old as one likes.
  if (relation.sequence.has_value() && parsed->sequence.value_or(0) < *relation.sequence &&
      !accept_older) {
    return Refused(FetchResult::kOlderSequence,
                   base::StrCat("its sequence went back from ", *relation.sequence, " to ",
                                parsed->sequence.has_value() ? base::StrCat(*parsed->sequence)
                                                             : std::string("none")));
  }
  ForeignBundle bundle{
      .trust_domain = name,
      .document = document,
      .fetched_at = absl::FromUnixSeconds(absl::ToUnixSeconds(clock.Now())),
      .bootstrap_sha256 = relation.held.has_value() ? relation.held->bootstrap_sha256 : ""};
  const bool same = relation.held.has_value() && relation.held->document == document;
  if (relation.sequence.has_value() && parsed->sequence == relation.sequence && !same) {
    spdlog::warn("federation: {} changed its bundle without raising its sequence", name);
  }
  if (absl::Status stored = store.PutForeignBundle(bundle); !stored.ok()) {
    return Refused(FetchResult::kNotStored, base::Message(stored));
  }
  replaced = !same;
  if (replaced) {
    const size_t roots = parsed->bundle.has_value() ? parsed->bundle->roots().size() : 0;
    spdlog::info("federation: new bundle of {}: {} roots, sequence {}", name, roots,
                 parsed->sequence.value_or(0));
    if (roots == 0) {
      spdlog::warn("federation: {} trusts none of its roots any more: its workloads are refused",
                   name);
    }
  }
  const std::lock_guard<std::mutex> lock(mutex);
  relation.Hold(std::move(bundle), *std::move(parsed));
  return {};
}

Outcome ForeignBundles::Impl::Fetch(Relation& relation, bool accept_older, bool& replaced) {
  const ServerTrust trust = TrustOf(relation);
  if (trust.id.has_value() && trust.bundles == nullptr) {
    return Refused(FetchResult::kUntrusted,
                   base::StrCat("no bundle is held of '", trust.id->trust_domain_name(),
                                "' to know its endpoint by; give a new one with bundle=FILE"));
  }
  const absl::StatusOr<std::string> document = options.fetch(relation.spec.url, trust);
  if (!document.ok()) {
    return Refused(ResultOf(document.status()), base::Message(document.status()));
  }
  return Judge(relation, *document, accept_older, replaced);
}

absl::Duration ForeignBundles::Impl::NextWait(const Relation& relation) {
  absl::Duration wait = relation.refresh;
  if (relation.failures > 0) {
    const int doublings = std::min(relation.failures - 1, 16);
    wait = std::min(wait, kFirstRetry * (int64_t{1} << doublings));
  }
  std::uniform_real_distribution<double> jitter(0.9, 1.1);  // many issuers must not ask in step
  return wait * jitter(random);
}

// Whether who distributes the bundles has to know: one is withdrawn, or comes back.
bool ForeignBundles::Impl::NoteAge(Relation& relation) {
  const std::string& name = relation.spec.trust_domain.name();
  const bool distrusts = relation.spec.on_stale == OnStale::kDistrust;
  bool stale = false;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!relation.age.Look(relation.held, clock.Now())) {
      return false;
    }
    stale = relation.age.stale();
  }
  if (stale) {
    spdlog::warn("federation: bundle of {} is stale: not confirmed for {}; {}", name,
                 absl::FormatDuration(relation.spec.max_age),
                 distrusts ? "it is distrusted until it is, its workloads are refused"
                           : "it goes on (on-stale=keep)");
  } else {
    spdlog::info("federation: bundle of {} is confirmed again", name);
  }
  return distrusts;
}

// One fetch with its book-keeping. The caller holds fetch_mutex.
Outcome ForeignBundles::Impl::Run(Relation& relation, bool accept_older) {
  bool replaced = false;
  Outcome outcome = Fetch(relation, accept_older, replaced);
  const std::string error = base::LineSafe(std::string_view(outcome.error).substr(0, 512));
  if (outcome.result != FetchResult::kOk) {
    spdlog::warn("federation: bundle of {} not refreshed from {}: reason={} detail={}",
                 relation.spec.trust_domain.name(), relation.spec.url.ToString(),
                 Token(outcome.result), error);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    ++relation.fetches[static_cast<size_t>(outcome.result)];
    relation.failures = outcome.result == FetchResult::kOk ? 0 : relation.failures + 1;
    relation.last_error = error;
    relation.due = clock.SinceBoot() + NextWait(relation);
  }
  const bool trust_changed = NoteAge(relation);
  if ((replaced || trust_changed) && changed) {
    changed();
  }
  return outcome;
}

absl::StatusOr<std::unique_ptr<ForeignBundles>> ForeignBundles::Create(
    Options options, store::ForeignBundleStore& store, const base::Clock& clock) {
  if (options.specs.size() > kMaxFederations) {
    return absl::InvalidArgumentError(
        base::StrCat("--federate: more than ", kMaxFederations, " trust domains"));
  }
  auto impl = std::make_unique<Impl>(std::move(options), store, clock);
  for (const FederationSpec& spec : impl->options.specs) {
    if (absl::Status added = impl->AddRelation(spec); !added.ok()) {
      return added;
    }
  }
  if (absl::Status loaded = impl->Load(); !loaded.ok()) {
    return loaded;
  }
  for (const auto& [name, relation] : impl->relations) {
    impl->NoteAge(*relation);  // before anybody is told of it
  }
  return std::unique_ptr<ForeignBundles>(new ForeignBundles(std::move(impl)));
}

ForeignBundles::ForeignBundles(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ForeignBundles::~ForeignBundles() = default;

void ForeignBundles::SetOnChange(std::function<void()> changed) {
  impl_->changed = std::move(changed);
}

void ForeignBundles::RunDue() {
  for (const auto& [name, relation] : impl_->relations) {
    const std::lock_guard<std::mutex> fetching(impl_->fetch_mutex);
    bool due = false;
    {
      const std::lock_guard<std::mutex> lock(impl_->mutex);
      due = relation->due <= impl_->clock.SinceBoot();
    }
    if (due) {
      impl_->Run(*relation, false);
    } else if (impl_->NoteAge(*relation) && impl_->changed) {
      impl_->changed();
    }
  }
}

absl::Status ForeignBundles::Refresh(std::string_view trust_domain, bool accept_older) {
  absl::Status first;
  bool found = false;
  for (const auto& [name, relation] : impl_->relations) {
    if (!trust_domain.empty() && name != trust_domain) {
      continue;
    }
    found = true;
    const std::lock_guard<std::mutex> fetching(impl_->fetch_mutex);
    const Outcome outcome = impl_->Run(*relation, accept_older);
    if (outcome.result != FetchResult::kOk) {
      first.Update(absl::UnavailableError(
          base::StrCat("bundle of ", name, " not refreshed: ", Token(outcome.result), ": ",
                       base::LineSafe(std::string_view(outcome.error).substr(0, 512)))));
    }
  }
  if (!found) {
    return absl::NotFoundError(trust_domain.empty()
                                   ? std::string("this issuer has no --federate")
                                   : base::StrCat("no --federate names the trust domain '",
                                                  base::Printable(trust_domain), "'"));
  }
  return first;
}

std::vector<ForeignStatus> ForeignBundles::Status() const {
  std::vector<ForeignStatus> all;
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (const auto& [name, relation] : impl_->relations) {
    ForeignStatus status{.trust_domain = name, .url = relation->spec.url.ToString()};
    status.profile = relation->spec.profile;
    status.endpoint_id =
        relation->spec.endpoint_id.has_value() ? relation->spec.endpoint_id->uri() : "";
    if (relation->bundles != nullptr) {
      for (const x509::X509Ptr& root : relation->bundles->Find(name)->roots()) {
        status.root_der.push_back(x509::CertificateToDer(root.get()));
      }
    }
    if (relation->held.has_value() && relation->held->fetched_at != absl::UnixEpoch()) {
      status.fetched_at = relation->held->fetched_at;
    }
    status.sequence = relation->sequence;
    status.refresh = relation->refresh;
    status.last_error = relation->last_error;
    status.fetches = relation->fetches;
    status.max_age = relation->spec.max_age;
    status.on_stale = relation->spec.on_stale;
    status.stale = relation->age.stale();
    status.distrusted = relation->age.distrusted();
    all.push_back(std::move(status));
  }
  return all;
}

bool ForeignBundles::empty() const {
  return impl_->relations.empty();
}

}  // namespace postern::federation
