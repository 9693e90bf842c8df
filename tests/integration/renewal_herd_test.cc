// SPDX-License-Identifier: Apache-2.0
// Five hundred proxies and one issuer, simulated: the proxies' real schedule, the issuer's real
// admission, and a clock that jumps from event to event.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "control/service/certify_service.h"
#include "control/service/come_back.h"
#include "control/service/rate_limiter.h"
#include "proxy/identity/renewal_schedule.h"
#include "tests/fakes/fake_clock.h"

namespace postern {
namespace {

constexpr int kProxies = 500;
constexpr absl::Duration kLifetime = absl::Hours(1);

class Herd {
 public:
  // `pace`: certificates a second that the issuer can make.
  explicit Herd(double pace) : service_(absl::Seconds(1 / pace)), come_back_(clock_) {
    const auto random = [this] {
      return std::uniform_real_distribution<double>(0.0, 1.0)(engine_);
    };
    for (int i = 0; i < kProxies; ++i) {
      proxies_.emplace_back(random);
      proxies_.back().OnCertificate(Now(), absl::ZeroDuration(), kLifetime);
      Plan(i);
    }
  }

  void TakeIssuerAway() { away_ = true; }
  void BringIssuerBack() { away_ = false; }

  void RunFor(absl::Duration time) {
    const absl::Duration end = Now() + time;
    while (!events_.empty() && events_.top().at <= end) {
      const Event event = events_.top();
      events_.pop();
      clock_.Advance(event.at - Now());
      if (event.is_end) {
        OnServed(event);
      } else {
        OnRequest(event.proxy);
      }
    }
    clock_.Advance(end - Now());
  }

  absl::Duration Now() const { return clock_.SinceBoot(); }
  // When requests reached the issuer, and when certificates were made.
  const std::vector<absl::Duration>& requests() const { return requests_; }
  const std::vector<absl::Duration>& served() const { return served_; }
  void Forget() {
    requests_.clear();
    served_.clear();
  }

 private:
  struct Event {
    absl::Duration at;
    int proxy = 0;
    bool is_end = false;
    absl::Duration begun;
    bool operator<(const Event& other) const { return at > other.at; }  // the soonest on top
  };

  void Plan(int proxy) { events_.push({proxies_[At(proxy)].due(), proxy, false, {}}); }
  static size_t At(int proxy) { return static_cast<size_t>(proxy); }

  void OnRequest(int proxy) {
    if (away_) {
      proxies_[At(proxy)].OnFailure(Now(), absl::ZeroDuration());
      Plan(proxy);
      return;
    }
    requests_.push_back(Now());
    absl::Duration wait = limiter_.Take("198.18.0." + std::to_string(proxy));
    if (at_work_ >= service::kMaxCertifyAtOnce) {
      wait = std::max(wait, come_back_.Next());
    }
    if (wait > absl::ZeroDuration()) {
      proxies_[At(proxy)].OnFailure(Now(), wait);
      Plan(proxy);
      return;
    }
    ++at_work_;
    busy_until_ = std::max(busy_until_, Now()) + service_;
    events_.push({busy_until_, proxy, true, Now()});
  }

  void OnServed(const Event& event) {
    come_back_.OnServed(Now() - event.begun, at_work_);
    --at_work_;
    served_.push_back(Now());
    proxies_[At(event.proxy)].OnCertificate(Now(), absl::ZeroDuration(), kLifetime);
    Plan(event.proxy);
  }

  fakes::FakeClock clock_;
  std::mt19937_64 engine_{42};
  const absl::Duration service_;
  service::ComeBack come_back_;
  service::RateLimiter limiter_{500, clock_};
  std::vector<identity::RenewalSchedule> proxies_;
  std::priority_queue<Event> events_;
  absl::Duration busy_until_;
  int at_work_ = 0;
  bool away_ = false;
  std::vector<absl::Duration> requests_, served_;
};

// The largest number of `times` in one window, over the mean from the first to the last window.
double PeakOverMean(const std::vector<absl::Duration>& times, absl::Duration window) {
  std::map<int64_t, int> windows;
  int peak = 0;
  for (const absl::Duration time : times) {
    peak = std::max(peak, ++windows[time / window]);
  }
  const auto count = windows.rbegin()->first - windows.begin()->first + 1;
  const double mean = static_cast<double>(times.size()) / static_cast<double>(count);
  return peak / mean;
}

TEST(RenewalHerdTest, ProxiesOfOneBirthSecondDoNotRenewTogether) {
  Herd herd(1000);
  herd.RunFor(absl::Minutes(37));
  ASSERT_EQ(herd.served().size(), static_cast<size_t>(kProxies));
  EXPECT_LE(PeakOverMean(herd.requests(), absl::Seconds(30)), 3);
  EXPECT_GT(herd.requests().back() - herd.requests().front(), absl::Minutes(11));
  herd.RunFor(absl::Hours(2));
  herd.Forget();
  herd.RunFor(absl::Hours(6));
  EXPECT_LE(PeakOverMean(herd.requests(), absl::Seconds(60)), 3);
  EXPECT_EQ(herd.requests().size(), herd.served().size()) << "nobody is turned away";
}

// All certificates have ended, so everybody asks every few seconds, and the issuer comes back with
// room for an eighth of them.
TEST(RenewalHerdTest, AfterAnOutageEachIsServedSoonAndNobodyComesForNothingManyTimes) {
  constexpr double kPace = 25;
  Herd herd(kPace);
  herd.RunFor(absl::Minutes(20));
  herd.TakeIssuerAway();
  herd.RunFor(absl::Minutes(70));
  ASSERT_TRUE(herd.served().empty());
  herd.BringIssuerBack();
  const absl::Duration back = herd.Now();
  herd.RunFor(absl::Seconds(60));
  ASSERT_EQ(herd.served().size(), static_cast<size_t>(kProxies)) << "all within a minute";
  const double took = absl::ToDoubleSeconds(herd.served().back() - back);
  EXPECT_LT(took, 2 * kProxies / kPace);
  EXPECT_LE(PeakOverMean(herd.requests(), absl::Seconds(1)), 3);
  EXPECT_LT(herd.requests().size(), 3U * kProxies);
  RecordProperty("seconds", std::to_string(took));
  RecordProperty("requests", std::to_string(herd.requests().size()));
  RecordProperty("peak_over_mean", std::to_string(PeakOverMean(herd.requests(), absl::Seconds(1))));
}

TEST(RenewalHerdTest, TheOutageDoesNotEchoInTheRenewalsThatFollow) {
  Herd herd(25);
  herd.RunFor(absl::Minutes(20));
  herd.TakeIssuerAway();
  herd.RunFor(absl::Minutes(70));
  herd.BringIssuerBack();
  herd.RunFor(absl::Minutes(3));
  herd.Forget();
  herd.RunFor(absl::Minutes(36));
  EXPECT_EQ(herd.served().size(), static_cast<size_t>(kProxies));
  EXPECT_LE(PeakOverMean(herd.requests(), absl::Seconds(30)), 3);
}

}  // namespace
}  // namespace postern
