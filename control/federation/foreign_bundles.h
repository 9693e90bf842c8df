// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/trust_bundle.h"
#include "control/federation/federation_spec.h"
#include "control/federation/https_client.h"
#include "control/store/store.h"

namespace postern::federation {

// How often a bundle is fetched: what its endpoint hints at, within bounds.
inline constexpr absl::Duration kDefaultRefresh = absl::Minutes(5);
inline constexpr absl::Duration kShortestRefresh = absl::Minutes(1);
inline constexpr absl::Duration kLongestRefresh = absl::Hours(1);
inline constexpr absl::Duration kFirstRetry = absl::Seconds(5);  // doubled up to the interval
inline constexpr size_t kMaxFederations = 64;

// What became of one fetch. Tokens are the label of the metric.
enum class FetchResult : uint8_t {
  kOk,
  kUnreachable,    // no connection, no answer in time, or one that was cut
  kUntrusted,      // who answered is not the endpoint that is meant
  kBadAnswer,      // another status, no HTTP, or too large
  kBadDocument,    // no SPIFFE bundle of that trust domain
  kClaimsOurs,     // it holds a root that names our trust domain
  kOlderSequence,  // its sequence went back
  kNotStored,      // our own store refused it
};
inline constexpr size_t kFetchResultCount = 8;
std::string_view Token(FetchResult result) noexcept;

// What is held of one federated trust domain.
struct ForeignStatus {
  std::string trust_domain = {};
  std::string url = {};
  Profile profile = Profile::kWeb;
  std::string endpoint_id = {};  // empty: https_web
  std::vector<std::string> root_der = {};
  std::optional<uint64_t> sequence = {};
  absl::Time fetched_at = absl::InfinitePast();  // last confirmed by its endpoint; or never
  absl::Duration refresh = kDefaultRefresh;
  std::string last_error = {};  // of the latest fetch; empty: it went well, or there was none
  std::array<uint64_t, kFetchResultCount> fetches{};
  absl::Duration max_age = kDefaultMaxAge;
  OnStale on_stale = OnStale::kKeep;
  bool stale = false;       // older than max_age
  bool distrusted = false;  // and on_stale says that it is not to be used
};

// The bundles of the trust domains that this one is federated with: fetched, judged, kept in the
// store, and given to who distributes them. What is held stays in force whatever a fetch brings,
// until a good document replaces it, or until it is too old for its federation's on-stale=.
// Thread-safe; RunDue and Refresh block on network and disk.
class ForeignBundles {
 public:
  using Fetch =
      std::function<absl::StatusOr<std::string>(const HttpsUrl& url, const ServerTrust& trust)>;

  struct Options {
    x509::TrustDomain own;
    std::vector<FederationSpec> specs = {};
    // Our own roots, for an endpoint that has an ID of ours.
    std::function<std::shared_ptr<const x509::TrustBundleSet>()> own_bundles = {};
    Fetch fetch = {};
  };

  // Reads what is held from the store, forgets there what is not configured any more, and reads
  // the files of the specs. InvalidArgument names --federate and the mend: our own trust domain,
  // one trust domain twice, too many, a file that is no bundle. `store` and `clock` outlive it.
  static absl::StatusOr<std::unique_ptr<ForeignBundles>> Create(Options options,
                                                                store::ForeignBundleStore& store,
                                                                const base::Clock& clock);
  ~ForeignBundles();
  ForeignBundles(const ForeignBundles&) = delete;
  ForeignBundles& operator=(const ForeignBundles&) = delete;

  // Called after a change of what Status gives, on the thread that fetched, without a lock held.
  // Set it before the first RunDue.
  void SetOnChange(std::function<void()> changed);

  // Fetches what is due. For one thread, about every second.
  void RunDue();

  // Fetches now, whatever is due; empty: all, of which the first refusal is returned. NotFound: no
  // such federation. `accept_older`: a sequence that went back is accepted this once, as after the
  // other side restored a backup.
  absl::Status Refresh(std::string_view trust_domain, bool accept_older);

  // By trust domain; those of which nothing is held have no roots.
  std::vector<ForeignStatus> Status() const;

  bool empty() const;

 private:
  struct Impl;
  explicit ForeignBundles(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::federation
