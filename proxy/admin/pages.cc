// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/pages.h"

#include "absl/strings/str_join.h"
#include "common/base/strings.h"

namespace postern::admin {
namespace {

using http::kJson;
using http::kPrometheus;
using http::kText;
using http::Ok;
using http::Reply;

constexpr std::string_view kIndex =
    "/status       what this proxy is doing, in one JSON object\n"
    "/config       the effective configuration\n"
    "/certs        certificate chain and trust bundles\n"
    "/connections  what is open\n"
    "/failures     the last failed connections, with reason and mend\n"
    "/seen         destinations that were ever seen in the mesh\n"
    "/live /ready /metrics\n"
    "POST /drain /shutdown /logging?level=LEVEL /seen/forget?destination=IP:PORT|NAME:PORT|all: over the "
    "unix socket (--admin-socket) alone\n";

}  // namespace

std::optional<Reply> ReadPage(const Pages& pages, std::string_view path) {
  if (path == "/") {
    return Ok(kText, std::string(kIndex));
  }
  if (path == "/status") {
    return Ok(kJson, pages.status());
  }
  if (path == "/config") {
    return Ok(kJson, pages.config());
  }
  if (path == "/certs") {
    return Ok(kJson, pages.certs());
  }
  if (path == "/connections") {
    return Ok(kJson, pages.connections());
  }
  if (path == "/failures") {
    return Ok(kJson, pages.failures());
  }
  if (path == "/seen") {
    return Ok(kJson, pages.seen());
  }
  return ReadHealthPage(pages, path);
}

std::optional<Reply> ReadHealthPage(const Pages& pages, std::string_view path) {
  if (path == "/live") {
    return Ok(kText, "live\n");
  }
  if (path == "/ready") {
    const std::vector<std::string> missing = pages.missing();
    if (missing.empty()) {
      const std::vector<std::string> hints =
          pages.hints ? pages.hints() : std::vector<std::string>();
      return Ok(kText, hints.empty()
                           ? "ready\n"
                           : base::StrCat("ready, but ", absl::StrJoin(hints, "; "), "\n"));
    }
    return Reply{503, std::string(kText),
                 base::StrCat("not ready: ", absl::StrJoin(missing, "; "), "\n")};
  }
  if (path == "/metrics") {
    return Ok(kPrometheus, pages.metrics());
  }
  return std::nullopt;
}

}  // namespace postern::admin
