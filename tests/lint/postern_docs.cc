// SPDX-License-Identifier: Apache-2.0
// postern-docs config|metrics: prints docs/CONFIG.md or docs/METRICS.md, made from the tables of
// the code. Not installed; tests/lint/docs_in_sync.py compares and writes the pages.
#include <iostream>
#include <string>
#include <string_view>

#include "control/service/issuer_config.h"
#include "control/service/issuer_metrics.h"
#include "proxy/config/proxy_config.h"
#include "proxy/telemetry/metrics_registry.h"

namespace {

std::string Metrics() {
  std::string page =
      "# Metrics\n\n"
      "<!-- Made by postern-docs from the metric tables; do not edit. -->\n\n"
      "Names and labels are stable: they change only with a new major version.\n\n";
  page += postern::telemetry::MetricsReference();
  page += "\n## postern-identity\n\nOn `/metrics` of `--admin` (127.0.0.1:15014).\n\n";
  page += postern::service::IssuerMetricsReference();
  return page;
}

std::string Config() {
  return postern::config::ConfigReference() +
         "\n# Configuration of postern-identity\n\n"
         "In the same three ways. Durations are written as `90s`, `10m` or `1h`.\n\n" +
         postern::service::IssuerConfigReference();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view page = argc == 2 ? argv[1] : "";
  if (page == "config") {
    std::cout << Config();
  } else if (page == "metrics") {
    std::cout << Metrics();
  } else {
    std::cerr << "usage: postern-docs config|metrics\n";
    return 2;
  }
  return std::cout.flush() ? 0 : 1;
}
