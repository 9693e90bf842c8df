// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/x509/spiffe_id.h"
#include "proxy/identity/snapshot.h"
#include "proxy/identity/status.h"
#include "proxy/identity/watched_file.h"
#include "proxy/policy/policy_set.h"

namespace postern::identity {

// Compiles the policy of this workload from where it comes from, and publishes each set that
// differs:
// - from a file (--policy): the file alone decides; what the issuer sends is refused, and says so;
// - from the issuer: nothing is let in until its first set has come;
// - from neither: the workload's own trust domain is let in.
// A set that does not compile leaves the last good one in use. Before the workload's identity is
// known nothing can be compiled and nothing is let in. Main loop only.
class PolicyKeeper {
 public:
  enum class From : uint8_t { kFile, kIssuer, kSameTrustDomain };
  using Publish = std::function<void(std::shared_ptr<const policy::PolicySet>)>;

  // `file`: for kFile.
  PolicyKeeper(const base::Clock& clock, From from, std::string file, Publish publish);

  // Reads the file for the first time and compiles it for nobody in particular, so that its faults
  // are found before anything starts. InvalidArgument names file and line.
  absl::Status LoadFirst();

  // Publishes the set that counts before anything is known.
  void Start();

  // Who this workload is; compiles anew when that changes.
  void SetWorkload(const x509::SpiffeId& workload);

  // The issuer's full set. An error is for the issuer (nack).
  absl::Status SetDocuments(std::vector<policy::NamedYaml> documents, const Version& version);

  void Poll();    // once a second: the file, if it changed
  void Reload();  // the file, now

  void Describe(IdentityStatus& status) const;

 private:
  absl::Status ReadFile();
  absl::Status Compile(const std::vector<policy::NamedYaml>& documents);
  void Note(const absl::Status& status, bool is_file);
  void Use(std::shared_ptr<const policy::PolicySet> set);

  const From from_;
  const std::string file_;
  const Publish publish_;
  WatchedFiles watched_;
  std::optional<x509::SpiffeId> workload_;
  std::vector<policy::NamedYaml>
      documents_;  // the last good ones, or those that wait for an identity
  bool has_documents_ = false;
  Version version_;
  uint64_t revision_ = 0;
  uint64_t file_failures_ = 0;
  bool loaded_ = false;
  std::string last_content_;  // of the file, as it was read last
  absl::Status last_result_;  // of the last set or file
};

}  // namespace postern::identity
