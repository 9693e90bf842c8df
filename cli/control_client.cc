// SPDX-License-Identifier: Apache-2.0
#include "cli/control_client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {
namespace {

constexpr size_t kLargestReply = 16U << 20U;  // a page of ten thousand connections and some
constexpr timeval kTimeout = {5, 0};          // for one read or write

class Socket {
 public:
  Socket() : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0)
      close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::Status Explain(int error, const std::string& path) {
  const std::string flag = base::StrCat("--admin-socket ", base::Printable(path), ": ");
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(base::StrCat(
          flag, "no such socket; is the proxy running, and with that --admin-socket?"));
    case EACCES:
      return absl::PermissionDeniedError(
          base::StrCat(flag, "this user may not open it; run as root or as the proxy's user"));
    case ECONNREFUSED:
      return absl::UnavailableError(
          base::StrCat(flag, "nobody listens there any more; start the proxy"));
    default:
      return absl::UnavailableError(base::StrCat(flag, std::strerror(error)));
  }
}

absl::Status Connect(int fd, const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(base::StrCat("--admin-socket '", base::Printable(path),
                                                   "': a unix socket's path has 1 to ",
                                                   sizeof(address.sun_path) - 1, " bytes"));
  }
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout));
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0
             ? absl::OkStatus()
             : Explain(errno, path);
}

// Everything until the other side's end: the socket answers one request for each connection.
absl::StatusOr<std::string> Exchange(int fd, std::string_view request, const std::string& path) {
  while (!request.empty()) {
    const ssize_t sent = send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    if (sent <= 0)
      return Explain(errno, path);
    request.remove_prefix(static_cast<size_t>(sent));
  }
  std::string reply;
  std::array<char, 16384> chunk{};
  while (reply.size() <= kLargestReply) {
    const ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
    if (got < 0)
      return Explain(errno, path);
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
  const Socket socket;
  if (socket.fd() < 0)
    return absl::ErrnoToStatus(errno, "making a unix socket");
  if (absl::Status connected = Connect(socket.fd(), socket_path); !connected.ok())
    return connected;
  const absl::StatusOr<std::string> text = Exchange(
      socket.fd(), base::StrCat(method, " ", target, " HTTP/1.1\r\nHost: localhost\r\n\r\n"),
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
