// SPDX-License-Identifier: Apache-2.0
#include "cli/unix_client.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::cli {

absl::StatusOr<base::UniqueFd> ConnectUnix(const UnixServer& server, const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(base::StrCat(server.flag, " '", base::Printable(path),
                                                   "': a unix socket's path has 1 to ",
                                                   sizeof(address.sun_path) - 1, " bytes"));
  }
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  base::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.is_open())
    return absl::ErrnoToStatus(errno, "making a unix socket");
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &server.timeout, sizeof(server.timeout));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &server.timeout, sizeof(server.timeout));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return ExplainUnix(server, errno, path);
  return fd;
}

absl::Status ExplainUnix(const UnixServer& server, int error, const std::string& path) {
  const std::string flag = base::StrCat(server.flag, " ", base::Printable(path), ": ");
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(base::StrCat(flag, "no such socket; ", server.missing));
    case EACCES:
      return absl::PermissionDeniedError(
          base::StrCat(flag, "this user may not open it; ", server.denied));
    case ECONNREFUSED:
      return absl::UnavailableError(
          base::StrCat(flag, "nobody listens there any more; ", server.gone));
    default:
      return absl::UnavailableError(base::StrCat(flag, std::strerror(error)));
  }
}

}  // namespace postern::cli
