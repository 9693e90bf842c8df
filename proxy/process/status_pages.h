// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proxy/identity/status.h"
#include "proxy/session/worker.h"

namespace postern::process {

// What /status says beside the identity's own facts. A value.
struct ProcessFacts {
  std::string phase;                 // "starting", "running", "draining", "ended"
  std::vector<std::string> missing;  // for readiness
  absl::Time started;
  absl::Time now;
  unsigned workers = 0;
  uint64_t connections_open = 0;
  std::vector<session::Worker::BoundListener> listeners;
  std::vector<std::string> hints;  // beside readiness
  struct Interception {
    std::string mode;        // "redirect", "tproxy"
    std::string ipv4, ipv6;  // Token(SelfProbe::Verdict)
    std::optional<bool> ok;  // nullopt: not known
  };
  std::optional<Interception> interception;  // nullopt: there is none
};

// The pages as JSON. Pure. No secret can be in them: keys are not part of the values.
std::string StatusPage(const ProcessFacts& facts, const identity::IdentityStatus& identity);
std::string CertificatesPage(const identity::IdentityStatus& identity, absl::Time now);
std::string ConnectionsPage(const std::vector<session::ConnectionInfo>& connections);

// Destinations that were ever seen in the mesh.
std::string SeenPage(const std::vector<std::string>& destinations);

}  // namespace postern::process
