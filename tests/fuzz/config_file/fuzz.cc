// SPDX-License-Identifier: Apache-2.0
// What the operator writes: the --config file, addresses and tunnels.
#include "tests/fuzz/fuzz.h"

#include <string>
#include <string_view>

#include "common/base/strings.h"
#include "proxy/config/config_file.h"
#include "proxy/config/proxy_config.h"

using postern::config::AddressSpec;
using postern::config::ParseConfigFile;
using postern::config::TunnelSpec;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto settings = ParseConfigFile(text, "f");
  POSTERN_FUZZ_CHECK(settings.ok() || postern::base::Message(settings.status()).starts_with("f:"));
  // What was read is written in a form that reads as the same.
  if (const auto address = AddressSpec::Parse(text); address.ok()) {
    const auto again = AddressSpec::Parse(address->ToString());
    POSTERN_FUZZ_CHECK(again.ok() && again->ToString() == address->ToString());
  }
  if (const auto tunnel = TunnelSpec::Parse(text); tunnel.ok()) {
    POSTERN_FUZZ_CHECK(tunnel->client_auth == !tunnel->peers.empty());
  }
  return 0;
}
