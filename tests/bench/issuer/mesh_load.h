// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/bench/issuer/issuer_under_test.h"
#include "tests/bench/issuer/swarm.h"

namespace postern::bench {

// One policy change and how it spread.
struct ChangeResult {
  absl::Duration all;     // from asking for the change until the last stream had it
  absl::Duration median;  // until half of them had it
  absl::Duration cpu;     // the issuer's
};

struct MeshResult {
  size_t streams = 0;
  absl::Duration connect_wall;  // until each had its first documents
  absl::Duration connect_cpu;
  uint64_t pss_before_kib = 0;
  uint64_t pss_after_kib = 0;    // streams standing, before any change
  uint64_t pss_changed_kib = 0;  // after the changes
  absl::Duration idle_cpu;       // of a second in which nothing happens
  std::vector<ChangeResult> changes;
};

// Opens `count` Mesh streams, one TCP and TLS connection each, from an address of its own each and
// presenting `credentials` in turn; then changes the policy `changes` times through the issuer's
// admin socket. Each stream acknowledges what it gets, as a proxy does. Every connection is closed
// at the end. DeadlineExceeded says how many streams got how far.
absl::StatusOr<MeshResult> RunMesh(IssuerUnderTest& issuer,
                                   const std::vector<Credential>& credentials, size_t count,
                                   int changes);

}  // namespace postern::bench
