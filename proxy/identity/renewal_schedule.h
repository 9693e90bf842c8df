// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "proxy/identity/backoff.h"

namespace postern::identity {

// When the next certificate is to be asked for. Pure: all times are given, on the clock that goes
// on through suspend (base::Clock::SinceBoot), so that neither a jump of the wall clock nor a
// night's sleep moves a renewal. A value; lives in IssuerSource.
//
// - Without a certificate: now.
// - With one: at half of its lifetime, give or take a tenth, counted from its issuing.
// - After a failure: 1 s to 60 s later, and never later than a quarter of the lifetime that is
// left;
//   without a usable certificate at most 10 s later, because traffic stands still. Where the issuer
//   says when to come back, that holds instead, up to kLongestRetryAfter: it gives each of those
//   that it turns away a time of its own, and who comes later than told leaves its place empty.
// - After the machine slept or its clock was set: at once.
class RenewalSchedule {
 public:
  static constexpr absl::Duration kLongestWithoutCertificate = absl::Seconds(10);
  static constexpr absl::Duration kLongestRetryAfter = absl::Minutes(5);
  static constexpr absl::Duration kSoonest = absl::Seconds(1);  // after one that just came
  // "At once", for machines that woke together.
  static constexpr absl::Duration kWakeSpread = absl::Seconds(1);

  explicit RenewalSchedule(RandomFraction random);

  // A certificate is in use. `age`: how long ago it was issued (0 for one that just came),
  // `lifetime`: from issuing to its end. Any values: clocks that disagree make negative ones.
  void OnCertificate(absl::Duration now, absl::Duration age, absl::Duration lifetime);
  // An attempt failed. `retry_after`: what the issuer asked for, zero if nothing.
  void OnFailure(absl::Duration now, absl::Duration retry_after);
  // The clocks did not go on together. `left`: of the certificate's lifetime, by the wall clock of
  // now; nothing that was planned before counts any more.
  void OnClockBreak(absl::Duration now, absl::Duration left);
  // The certificate in use has to be replaced at once (its root is going away).
  void RenewNow(absl::Duration now) { due_ = now; }

  absl::Duration due() const { return due_; }
  int failures() const { return backoff_.failures(); }

 private:
  RandomFraction random_;
  Backoff backoff_;
  absl::Duration due_ = absl::ZeroDuration();
  std::optional<absl::Duration> ends_;  // of the certificate in use
};

}  // namespace postern::identity
