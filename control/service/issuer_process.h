// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "control/service/issuer_config.h"

namespace postern::service {

// The whole issuer: store, CA, servers, in the order in which they need each other. Made, ticked
// and destroyed by main on one thread; the tests run it in process.
class IssuerProcess {
 public:
  // Opens the state directory (making the CA on first start), signs its own certificate, listens
  // and serves. Errors name the flag, file or address. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<IssuerProcess>> Start(const IssuerConfig& config,
                                                              const base::Clock& clock);
  ~IssuerProcess();  // stops the servers, giving calls at work two seconds
  IssuerProcess(const IssuerProcess&) = delete;
  IssuerProcess& operator=(const IssuerProcess&) = delete;

  // Renews the issuer's own certificate at half its life, drives the automatic rotation of the CA,
  // cleans the store up once a minute. Call about once a second.
  void Tick();

  // Why it cannot issue right now; OK when it can. Any thread.
  absl::Status CheckReady() const;

  std::string Metrics() const;  // any thread
  uint16_t grpc_port() const;   // as bound, for port 0
  uint16_t admin_port() const;
  uint16_t bundle_endpoint_port() const;  // 0: none

 private:
  struct Impl;
  explicit IssuerProcess(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::service
