// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/place_finder.h"

#include <algorithm>
#include <utility>

namespace postern::session {

PlaceFinder::PlaceFinder(net::Loop& loop, net::NameCache& names, std::vector<Place> places,
                         Done done)
    : loop_(loop),
      names_(names),
      places_(std::move(places)),
      done_(std::move(done)),
      found_(places_.size()) {}

void PlaceFinder::Start() {
  open_ = 1;
  for (size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].name.empty()) {
      found_[i].push_back({places_[i].address});
      continue;
    }
    ++open_;
    auto query = names_.Lookup(
        places_[i].name,
        [this, i](const absl::StatusOr<net::NameCache::Addresses>& got) { OnName(i, got); });
    if (query != nullptr) {
      queries_.push_back(std::move(query));
    }
  }
  --open_;
  OnProgress();
}

void PlaceFinder::OnName(size_t place, const absl::StatusOr<net::NameCache::Addresses>& addresses) {
  if (addresses.ok()) {
    const bool first_is_v4 = addresses->front().is_v4();
    for (const base::IpAddress& ip : *addresses) {
      const uint8_t rank = ip.is_v4() == first_is_v4 ? 0 : 1;
      found_[place].push_back({net::SocketAddress(ip, places_[place].address.port()), rank});
    }
  } else {
    fault_ = addresses.status();
  }
  --open_;
  OnProgress();
}

void PlaceFinder::OnProgress() {
  if (open_ == 0) {
    Finish();
    return;
  }
  const bool some = std::ranges::any_of(found_, [](const auto& place) { return !place.empty(); });
  if (some && !patience_.has_value()) {
    patience_.emplace(loop_, [this] { Finish(); });
    patience_->Start(kPatience);
  }
}

void PlaceFinder::Finish() {
  queries_.clear();  // who is late does not count
  std::vector<Candidate> all;
  for (std::vector<Candidate>& some : found_) {
    for (Candidate& candidate : some) {
      const bool known = std::ranges::any_of(
          all, [&](const Candidate& other) { return other.address == candidate.address; });
      if (!known) {
        all.push_back(std::move(candidate));
      }
    }
  }
  if (patience_.has_value()) {
    patience_->Stop();
  }
  const Done call = std::move(done_);
  if (all.empty()) {
    call(fault_);
  } else {
    call(std::move(all));
  }
}

}  // namespace postern::session
