// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/bench/issuer/issuer_under_test.h"
#include "tests/bench/issuer/swarm.h"

namespace postern::bench {

// Keys and their requests, made once: the client's cost of making them is not the issuer's.
struct RequestPool {
  std::vector<x509::PkeyPtr> keys;
  std::vector<std::string> csrs;
};
absl::StatusOr<RequestPool> MakeRequestPool(size_t size);

// Registers `count` workloads by join token and gets the first certificate of each.
absl::StatusOr<std::vector<Credential>> Enroll(IssuerUnderTest& issuer, const RequestPool& pool,
                                               size_t count);

struct CertifyResult {
  size_t concurrency = 0;
  bool fresh = false;  // a connection for each renewal, as the proxy makes it
  size_t certificates = 0;
  size_t failures = 0;
  std::string first_failure;
  absl::Duration wall;
  absl::Duration cpu;  // the issuer's
  absl::Duration median;
  absl::Duration p99;
};

// Renews by certificate, `concurrency` calls at a time, each on a connection of its own. The new
// certificates replace those in `credentials`, which the next renewals present.
struct CertifyPlan {
  size_t concurrency = 1;
  bool fresh = false;
  absl::Duration warm_up = absl::Milliseconds(300);
  absl::Duration duration = absl::Seconds(5);
};
CertifyResult RunCertify(IssuerUnderTest& issuer, const RequestPool& pool,
                         std::vector<Credential>& credentials, const CertifyPlan& plan);

// One more certificate for each connection of the mesh load.
absl::StatusOr<std::vector<Credential>> RenewEach(IssuerUnderTest& issuer, const RequestPool& pool,
                                                  std::vector<Credential>& credentials,
                                                  size_t count);

}  // namespace postern::bench
