// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/route.h"

#include <utility>

namespace postern::session {

Route::Route(EndpointHealth& health, std::vector<Candidate> candidates)
    : health_(health),
      candidates_(std::move(candidates)),
      order_(health_.Order(candidates_, kMostAttempts)) {}

const Candidate& Route::Next() {
  ++next_;
  use_ = EndpointHealth::Use(health_, current().address);
  return current();
}

void Route::Failed() {
  health_.Failed(current().address);
}

void Route::Succeeded() {
  health_.Succeeded(current().address);
}

}  // namespace postern::session
