// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/x509/svid.h"
#include "common/x509/trust_bundle.h"
#include "control/ca/ca_signer.h"
#include "control/federation/foreign_bundles.h"
#include "control/mesh/mesh_state.h"
#include "control/service/issuer_config.h"
#include "control/store/store.h"

namespace postern::service {

// A bundle's roots, and those that were withdrawn in order, as the mesh tells them.
mesh::TrustDomainRoots RootsOf(const x509::TrustBundle& bundle);

// Which bundles the mesh has: our own roots and those of the federated trust domains, put together
// under one version; and the endpoint at which others fetch ours. Made, ticked and destroyed by
// main; the rest from any thread. What it is made with outlives it.
class Federation {
 public:
  // Reads what is held of other trust domains, publishes the bundles for the first time, and
  // listens if there is an endpoint. Errors name the flag. Fetches nothing yet.
  static absl::StatusOr<std::unique_ptr<Federation>> Open(const IssuerConfig& config,
                                                          const ca::CaSigner& ca,
                                                          store::Store& store,
                                                          mesh::MeshState& mesh,
                                                          const base::Clock& clock);
  ~Federation();  // as Stop
  Federation(const Federation&) = delete;
  Federation& operator=(const Federation&) = delete;

  // Begins to fetch, on a thread of its own.
  void Start();
  // Ends that: what is being fetched is given up.
  void Stop();

  // Gives the mesh and the endpoint what is to be trusted now. Call after each change of our own
  // roots. On an error (the store's) the old set stays; Tick tries again.
  absl::Status Publish();

  // The endpoint's certificate where none is configured (https_spiffe): the issuer's own.
  absl::Status SetOwnSvid(const x509::Svid& svid);

  // About once a second: what failed to be published, and the endpoint's certificate files.
  void Tick();

  absl::Status Refresh(std::string_view trust_domain, bool accept_older);
  std::vector<federation::ForeignStatus> Foreign() const;

  uint16_t endpoint_port() const;    // 0: no endpoint
  uint64_t endpoint_served() const;  // bundles given out there

 private:
  struct Impl;
  explicit Federation(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::service
