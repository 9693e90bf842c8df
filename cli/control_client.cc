// SPDX-License-Identifier: Apache-2.0
#include "cli/control_client.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <optional>

#include "cli/unix_client.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

constexpr size_t kLargestReply = 16U << 20U;  // a page of ten thousand connections and some

constexpr UnixServer kProxy = {.flag = "--admin-socket",
                               .missing = "is the proxy running, and with that --admin-socket?",
                               .denied = "run as root or as the proxy's user",
                               .gone = "start the proxy",
                               .timeout = {5, 0}};

// Everything until the other side's end: the socket answers one request for each connection.
absl::StatusOr<std::string> Exchange(int fd, std::string_view request, const std::string& path) {
  while (!request.empty()) {
    const ssize_t sent = send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    if (sent <= 0)
      return ExplainUnix(kProxy, errno, path);
    request.remove_prefix(static_cast<size_t>(sent));
  }
  std::string reply;
  std::array<char, 16384> chunk{};
  while (reply.size() <= kLargestReply) {
    const ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
    if (got < 0)
      return ExplainUnix(kProxy, errno, path);
    if (got == 0)
      return reply;
    reply.append(chunk.data(), static_cast<size_t>(got));
  }
  return absl::UnavailableError("the proxy's answer does not end");
}

// "HTTP/1.1 200 OK", the head, a blank line, the body.
std::optional<HttpReply> Parse(std::string_view text) {
  constexpr std::string_view kVersion = "HTTP/1.1 ";
  constexpr std::string_view kBlankLine = "\r\n\r\n";
  constexpr size_t kDigits = 3;
  const size_t body = text.find(kBlankLine);
  if (!text.starts_with(kVersion) || body == std::string_view::npos)
    return std::nullopt;
  const auto status = base::ParseNumber<int>(text.substr(kVersion.size(), kDigits));
  if (!status.has_value())
    return std::nullopt;
  return HttpReply{*status, std::string(text.substr(body + kBlankLine.size()))};
}

}  // namespace

absl::StatusOr<HttpReply> ControlRequest(const std::string& socket_path, std::string_view method,
                                         std::string_view target) {
  const absl::StatusOr<base::UniqueFd> fd = ConnectUnix(kProxy, socket_path);
  if (!fd.ok())
    return fd.status();
  const absl::StatusOr<std::string> text =
      Exchange(fd->get(), base::StrCat(method, " ", target, " HTTP/1.1\r\nHost: localhost\r\n\r\n"),
               socket_path);
  if (!text.ok())
    return text.status();
  std::optional<HttpReply> reply = Parse(*text);
  if (!reply.has_value()) {
    return absl::UnavailableError(base::StrCat("--admin-socket ", base::Printable(socket_path),
                                               ": who answers there is no proxy of ours"));
  }
  return *std::move(reply);
}

}  // namespace postern::cli
