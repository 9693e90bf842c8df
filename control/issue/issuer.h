// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/x509/csr.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/svid.h"
#include "control/attest/attestor.h"
#include "control/attest/refusal.h"
#include "control/ca/ca_signer.h"
#include "control/issue/entry_budget.h"
#include "control/issue/revocations.h"
#include "control/store/store.h"

namespace postern::issue {

using attest::ReasonOf;
using attest::RefusalReason;

inline constexpr absl::Duration kDefaultTtl = absl::Hours(1);
inline constexpr absl::Duration kMinTtl = absl::Minutes(10);
inline constexpr absl::Duration kMinShortTtl = absl::Seconds(10);  // with allow_short_ttl
inline constexpr absl::Duration kMaxTtl = absl::Hours(24);

// How long certificates live.
struct TtlPolicy {
  absl::Duration default_ttl = kDefaultTtl;
  bool allow_short_ttl = false;

  absl::Duration minimum() const { return allow_short_ttl ? kMinShortTtl : kMinTtl; }
  // InvalidArgument, naming the bounds: `ttl` is outside of them.
  absl::Status Check(absl::Duration ttl) const;
};

struct IssueRequest {
  base::ByteSpan csr_der;  // borrowed for the call
  attest::Evidence evidence;
  std::string source;  // who called, for the audit line: "192.0.2.1:4711", "unix:uid:0"
};

struct IssueResult {
  x509::SpiffeId id;
  std::vector<std::string> chain_der;  // leaf, then intermediates in order, no root
  std::string serial;
  std::string entry_id;
  absl::Time not_before;
  absl::Time not_after;
  absl::Time issued_at;  // lifetimes count from here
};

// The one way to a certificate. Thread-safe; blocks on the store (and /proc), so never call it on a
// gRPC callback thread. `ca`, `store`, `attestor` and `clock` outlive it. Each answer leaves one
// audit line in the log.
class Issuer {
 public:
  // InvalidArgument: the default TTL is outside of its bounds.
  static absl::StatusOr<std::unique_ptr<Issuer>> Create(TtlPolicy ttl, ca::CaSigner& ca,
                                                        store::Store& store,
                                                        attest::Attestor& attestor,
                                                        const base::Clock& clock);

  // Verify the CSR, attest the caller, find its one entry, sign, check what was signed, log it in
  // the store, answer. Errors carry a RefusalReason (ReasonOf) and the code that identity.proto
  // documents. Nothing is signed and no token is used before the CSR and the CA are known to be
  // good.
  absl::StatusOr<IssueResult> Issue(const IssueRequest& request);

  // A fresh key and certificate for the issuer itself: spiffe://TD/postern/identity. Backdated by
  // 24 h, for proxies whose clocks are behind. Errors as Issue.
  absl::StatusOr<std::shared_ptr<const x509::Svid>> IssueOwnSvid();

  // What is revoked gets nothing from now on. Before the first Issue; `revocations` outlives it.
  void SetRevocations(const Revocations* revocations) { revocations_ = revocations; }

  // From now on an entry is given so many certificates and no more (EntryBudget). Before the first
  // Issue.
  void LimitEntries() { budget_ = std::make_unique<EntryBudget>(clock_); }

  const TtlPolicy& ttl() const { return ttl_; }

 private:
  Issuer(TtlPolicy ttl, ca::CaSigner& ca, store::Store& store, attest::Attestor& attestor,
         const base::Clock& clock);
  absl::StatusOr<IssueResult> Decide(const IssueRequest& request);
  absl::StatusOr<attest::Attestation> Attest(const attest::Evidence& evidence,
                                             const x509::VerifiedCsr& csr);
  absl::Status CheckNotRevoked(const x509::VerifiedCsr& csr,
                               const attest::Evidence& evidence) const;
  absl::Status CheckIdentityNotRevoked(const x509::SpiffeId& id) const;
  absl::Status CheckMemberNotRevoked(const store::Entry& entry) const;
  absl::Status CheckEntryStands(const store::Entry& entry);
  absl::StatusOr<store::Entry> FindEntry(const attest::Attestation& attestation);
  // `replaces`: the serial of the certificate that was shown for this one; empty: none was.
  absl::StatusOr<IssueResult> SignAndLog(const ca::SvidTemplate& wanted,
                                         const std::string& entry_id, const std::string& replaces);
  absl::Status CheckMade(const ca::SignedSvid& made, const ca::SvidTemplate& wanted,
                         absl::Time now);

  const TtlPolicy ttl_;
  ca::CaSigner& ca_;
  store::Store& store_;
  attest::Attestor& attestor_;
  const base::Clock& clock_;
  const Revocations* revocations_ = nullptr;
  std::unique_ptr<EntryBudget> budget_;  // null: no limit

  // The signer and the bundles of which a leaf was judged as a peer would judge it.
  std::mutex judged_mutex_;  // guards the next two
  std::shared_ptr<const ca::SigningSlot> judged_signer_;
  std::shared_ptr<const x509::TrustBundleSet> judged_bundles_;
};

}  // namespace postern::issue
