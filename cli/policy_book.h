// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/spiffe_id.h"
#include "proxy/config/proxy_config.h"
#include "proxy/policy/policy_set.h"

namespace postern::cli {

// Who wants to reach what, as it is written on a command line or in a file of expectations.
struct PolicyQuestion {
  std::string from;       // a SPIFFE ID, or "none"
  std::string to;         // "spiffe://td/db:5432"
  std::string source_ip;  // empty: unknown
  std::string tunnel;     // empty: an intercepted port
  // The mode of ports of which the documents say nothing (--peer-mode, --port-mode of that proxy).
  std::optional<config::PeerMode> peer_mode;
};

struct PolicyAnswer {
  policy::Decision decision;
  std::optional<config::PeerMode> mode;  // that was judged by; nullopt: nobody says, or a tunnel
};

// The policy documents of some files, compiled for each workload that is asked about, by the data
// plane's own code. One thread.
class PolicyBook {
 public:
  // Reads and checks the files. InvalidArgument: no such file, or "FILE:LINE: field: what".
  static absl::StatusOr<PolicyBook> Read(const std::vector<std::string>& files);

  // InvalidArgument names the part of the question that is wrong: "from: ...".
  absl::StatusOr<PolicyAnswer> Answer(const PolicyQuestion& question);

  // Where what a decision names stands: "FILE:LINE"; empty when no document says it.
  std::string PlaceOf(const std::string& rule) const;

  const std::vector<policy::NamedYaml>& documents() const { return documents_; }

 private:
  absl::StatusOr<std::shared_ptr<const policy::PolicySet>> SetOf(const x509::SpiffeId& workload);
  absl::Status NotePlaces();

  std::vector<policy::NamedYaml> documents_;
  std::map<std::string, std::string> places_;
  std::map<std::string, std::shared_ptr<const policy::PolicySet>> sets_;  // by workload
};

}  // namespace postern::cli
