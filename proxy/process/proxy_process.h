// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "proxy/config/proxy_config.h"
#include "proxy/session/worker.h"

namespace postern::process {

// The whole proxy: main loop, identity, workers, administration, in the order in which they need
// each other. Made, run and destroyed by main, on one thread.
class ProxyProcess {
 public:
  // Reads what the configuration names and opens every listener; nothing is accepted before Run.
  // InvalidArgument: a fault of configuration (exit status 2), naming flag, file and mend. Others
  // name the address or the file (exit status 1). `config` and `clock` outlive it.
  static absl::StatusOr<std::unique_ptr<ProxyProcess>> Start(const config::ProxyConfig& config,
                                                             const base::Clock& clock);
  ~ProxyProcess();
  ProxyProcess(const ProxyProcess&) = delete;
  ProxyProcess& operator=(const ProxyProcess&) = delete;

  // Serves until the end of a drain (SIGTERM, SIGINT, POST /drain) or a shutdown (POST /shutdown,
  // or a third signal). A second signal shortens the drain. SIGHUP reads files again.
  void Run();

  // Begins a drain, as SIGTERM does. Any thread.
  void Drain();

  // What is missing for readiness, a sentence each. Any thread.
  std::vector<std::string> Missing() const;

  uint16_t admin_port() const;  // as bound; 0 when --admin is a unix socket
  uint16_t metrics_port() const;
  const std::vector<session::Worker::BoundListener>& listeners() const;

 private:
  struct Impl;
  explicit ProxyProcess(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern::process
