// SPDX-License-Identifier: Apache-2.0
#include "cli/http_client.h"

#include <httplib.h>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "proxy/config/proxy_config.h"

namespace postern::cli {
namespace {

constexpr time_t kTimeoutSeconds = 5;

}  // namespace

absl::StatusOr<HttpReply> HttpGet(std::string_view flag, const std::string& address,
                                  const std::string& path) {
  absl::StatusOr<config::AddressSpec> spec = config::AddressSpec::Parse(address);
  if (!spec.ok() || spec->is_unix() || spec->port == 0) {
    return absl::InvalidArgumentError(base::StrCat(flag, " '", base::Printable(address),
                                                   "' is no address; write 127.0.0.1:15000"));
  }
  httplib::Client client(spec->host, spec->port);
  client.set_connection_timeout(kTimeoutSeconds);
  client.set_read_timeout(kTimeoutSeconds);
  const httplib::Result result = client.Get(path.c_str());
  if (!result) {
    return absl::UnavailableError(base::StrCat(flag, " ", address, ": nobody answers (",
                                               httplib::to_string(result.error()),
                                               "); is it running, in this network namespace?"));
  }
  return HttpReply{result->status, result->body};
}

absl::StatusOr<std::string> HttpPage(std::string_view flag, const std::string& address,
                                     const std::string& path) {
  absl::StatusOr<HttpReply> reply = HttpGet(flag, address, path);
  if (!reply.ok())
    return reply.status();
  if (reply->status == 200)
    return std::move(reply->body);
  return absl::UnavailableError(base::StrCat(flag, " ", address, ": ", path, " answered ",
                                             reply->status, ": ",
                                             base::Printable(reply->body, 200)));
}

}  // namespace postern::cli
