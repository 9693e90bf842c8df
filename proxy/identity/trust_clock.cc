// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/trust_clock.h"

#include <array>
#include <string_view>

#include "common/base/strings.h"

namespace postern::identity {
namespace {

// Below the delay of a message nobody can tell which of two clocks is right.
constexpr absl::Duration kAgrees = absl::Seconds(2);

// "95 s", "7 min", "3 h", "2 d": in the largest unit of which there are two, for a person.
std::string Roughly(absl::Duration duration) {
  struct Unit {
    absl::Duration size;
    std::string_view name;
  };
  constexpr int64_t kLeast = 2;
  for (const Unit& unit : std::array<Unit, 3>{
           {{absl::Hours(24), " d"}, {absl::Hours(1), " h"}, {absl::Minutes(1), " min"}}}) {
    if (duration / unit.size >= kLeast) {
      return base::StrCat((duration + unit.size / 2) / unit.size, unit.name);
    }
  }
  return base::StrCat(absl::ToInt64Seconds(duration), " s");
}

std::optional<absl::Duration> Read(const std::atomic<int64_t>& value, int64_t none) {
  const int64_t nanoseconds = value.load(std::memory_order_relaxed);
  return nanoseconds == none ? std::nullopt : std::optional(absl::Nanoseconds(nanoseconds));
}

}  // namespace

std::string SkewText(absl::Duration skew) {
  const absl::Duration size = absl::AbsDuration(skew);
  if (size < kAgrees) {
    return "this clock agrees with the issuer's";
  }
  return base::StrCat("this clock is ", Roughly(size),
                      skew > absl::ZeroDuration() ? " ahead of" : " behind", " the issuer's");
}

void TrustClock::SetSkew(std::optional<absl::Duration> skew) {
  skew_ns_.store(skew.has_value() ? absl::ToInt64Nanoseconds(*skew) : kNone,
                 std::memory_order_relaxed);
}

std::optional<absl::Duration> TrustClock::skew() const {
  return Read(skew_ns_, kNone);
}

void TrustClock::SetConfirmed(std::optional<absl::Duration> since_boot) {
  confirmed_ns_.store(since_boot.has_value() ? absl::ToInt64Nanoseconds(*since_boot) : kNone,
                      std::memory_order_relaxed);
}

std::optional<absl::Duration> TrustClock::confirmed() const {
  return Read(confirmed_ns_, kNone);
}

bool TrustClock::WasConfirmedWithin(absl::Duration age, absl::Duration since_boot) const {
  const std::optional<absl::Duration> last = confirmed();
  return last.has_value() && since_boot - *last <= age;
}

bool TrustClock::IsStale(absl::Duration since_boot) const {
  return max_stale_ != absl::InfiniteDuration() && !WasConfirmedWithin(max_stale_, since_boot);
}

std::string TrustClock::SkewRemark() const {
  const std::optional<absl::Duration> measured = skew();
  return measured.has_value() ? base::StrCat("; ", SkewText(*measured)) : std::string();
}

std::string TrustClock::StaleText(absl::Duration since_boot) const {
  const std::optional<absl::Duration> last = confirmed();
  return base::StrCat(
      "the issuer has not confirmed trust bundles, policy and revocations ",
      last.has_value() ? base::StrCat("for ", Roughly(since_boot - *last)) : std::string("yet"),
      ", and --max-stale is ", absl::FormatDuration(max_stale_));
}

}  // namespace postern::identity
