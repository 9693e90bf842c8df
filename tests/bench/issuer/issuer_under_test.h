// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/admin_client.h"

namespace postern::bench {

// A real postern-identity on loopback with a state directory of its own, and what the kernel knows
// about it. Everything is gone when this is destroyed.
class IssuerUnderTest {
 public:
  // Starts `program` with its logs going into a file of the state directory, and waits until it
  // answers. Unavailable: it ended, or did not answer within 10 s.
  static absl::StatusOr<std::unique_ptr<IssuerUnderTest>> Start(const std::string& program);
  ~IssuerUnderTest();
  IssuerUnderTest(const IssuerUnderTest&) = delete;
  IssuerUnderTest& operator=(const IssuerUnderTest&) = delete;

  uint16_t port() const { return port_; }
  pid_t pid() const { return pid_; }
  cli::AdminClient& admin() { return *admin_; }

  absl::Duration Cpu() const;  // of all its threads, user and kernel, since its start
  uint64_t PssKib() const;     // its proportional memory

 private:
  IssuerUnderTest() = default;
  absl::Status Launch(const std::string& program);
  absl::Status Await();

  std::string directory_;
  pid_t pid_ = -1;
  uint16_t port_ = 0;
  std::unique_ptr<cli::AdminClient> admin_;
};

}  // namespace postern::bench
