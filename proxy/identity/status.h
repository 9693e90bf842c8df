// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proxy/identity/freshness.h"
#include "proxy/identity/snapshot.h"

namespace postern::identity {

// One certificate in use, for /certs and the metrics. A value.
struct CertificateFacts {
  std::string kind;          // "leaf", "intermediate", "root"
  std::string trust_domain;  // of a root's bundle; of the leaf for the rest
  std::string subject;
  std::string serial;  // hex
  std::string sha256;  // hex
  absl::Time not_before;
  absl::Time not_after;
};

// What the identity side knows of itself, for /status, /certs and the metrics. A value, taken at
// one moment; times that never came about are absl::InfinitePast().
struct IdentityStatus {
  std::string source = "none";  // "none", "files", "issuer"
  std::string spiffe_id;        // empty before the first certificate
  std::vector<CertificateFacts> certificates;
  uint64_t generation = 0;  // of the snapshot in use; 0: none
  absl::Time obtained = absl::InfinitePast();
  Version bundle_version;
  std::vector<std::string> trust_domains;  // that peers may be of

  // Issuer only.
  std::string issuer;                            // its address
  bool issuer_connected = false;                 // the stream stands
  std::string issuer_error;                      // why it does not; empty while it does
  absl::Time last_heard = absl::InfinitePast();  // on the stream, or by a certificate
  uint64_t renewals_ok = 0;
  uint64_t renewals_failed = 0;
  absl::Time next_renewal = absl::InfinitePast();
  std::string renewal_error;  // of the last attempt; empty when it succeeded
  absl::Duration clock_skew;  // this clock minus the issuer's
  // When the issuer last confirmed each kind (SinceBoot), and how long ago that is now.
  Freshness::Times confirmed;
  Freshness::Times ages;
  std::optional<absl::Duration> max_stale;  // --max-stale; unset: off
  std::string stale_error;                  // why new connections are refused by it; empty: not
  std::string state_error;                  // the state directory cannot be written: why
  std::string withheld;                     // why a certificate that came is not used yet

  // Files only, and --policy and --destinations with either.
  uint64_t reload_failures = 0;
  std::string reload_error;  // of the last re-reading; empty when it succeeded

  // Policy.
  std::string policy_source = "same-trust-domain";  // "file", "issuer"
  bool policy_loaded = false;                       // false: nothing is let in yet
  Version policy_version;                           // of the issuer's set in use
  uint64_t policy_revision = 0;                     // counts up with every policy of this process
  std::string policy_error;  // the last set that was refused; empty: none was

  // Revocation.
  Version revocation_version;  // of the issuer's list in use; both 0: none has come
  uint64_t revocations = 0;    // in it
  uint64_t crls = 0;           // of --crl, verified
  uint64_t crl_entries = 0;    // in these
  uint64_t crls_stale = 0;     // of these, past their nextUpdate
  std::string crl_error;       // of the last look at them; empty: none

  uint64_t roots_past_half_life = 0;  // of all bundles

  uint64_t endpoint_subscriptions = 0;
  uint64_t seen_in_mesh = 0;
};

}  // namespace postern::identity
