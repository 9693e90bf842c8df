// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "proxy/session/endpoint_health.h"

namespace postern::session {

// The endpoints that one connection may be dialled at, in the order in which it tries them. What
// becomes of each is told to the EndpointHealth, which outlives it. Owned by its session.
class Route {
 public:
  static constexpr size_t kMostAttempts = 3;

  Route(EndpointHealth& health, std::vector<Candidate> candidates);

  // The next one, which becomes the current one; only with left() > 0.
  const Candidate& Next();
  // How many more may be tried.
  size_t left() const { return order_.size() - next_; }

  // Of the current one.
  void Failed();
  void Succeeded();

 private:
  const Candidate& current() const { return candidates_[order_[next_ - 1]]; }

  EndpointHealth& health_;
  std::vector<Candidate> candidates_;
  std::vector<size_t> order_;
  size_t next_ = 0;
  EndpointHealth::Use use_;
};

}  // namespace postern::session
