// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "common/base/strings.h"
#include "proxy/intercept/nft.h"

namespace postern::intercept {
namespace {

constexpr int kProbeMilliseconds = 2000;
constexpr in_addr_t kProbeAddress = 0xC0000201;  // 192.0.2.1, RFC 5737
constexpr uid_t kNobody = 65534;

// What the child says with its exit status.
enum ProbeOutcome : int { kAnswered = 0, kSilent = 1, kNoRoute = 2, kNotAllowed = 3 };

uint64_t OutboundCount(const TableState& state) {
  uint64_t packets = 0;
  for (const RuleState& rule : state.rules) {
    if (rule.comment == kOutboundRedirectComment) {
      packets += rule.packets;
    }
  }
  return packets;
}

absl::StatusOr<uint64_t> ReadOutboundCount(const std::string& name) {
  absl::StatusOr<std::optional<TableState>> state = ReadRules(name);
  if (!state.ok()) {
    return state.status();
  }
  if (!state->has_value()) {
    return absl::FailedPreconditionError("the rules are not in force");
  }
  return OutboundCount(**state);
}

// A user whose connections are the application's: the first that was named, else this one, unless
// the rules leave this one out.
uid_t ProbeUser(const InterceptConfig& config) {
  if (!config.app_uids.empty()) {
    return config.app_uids.front();
  }
  const auto left_out = [&config](uid_t uid) {
    const auto has = [uid](const std::vector<uid_t>& uids) {
      return std::find(uids.begin(), uids.end(), uid) != uids.end();
    };
    return has(config.proxy_uids) || has(config.exclude_uids);
  };
  uid_t user = geteuid();
  if (left_out(user)) {
    user = kNobody;
  }
  while (left_out(user)) {
    --user;
  }
  return user;
}

uint16_t ProbePort(const InterceptConfig& config) {
  return config.outbound_ports.empty() ? uint16_t{15002} : config.outbound_ports.front().first;
}

// Runs in the forked child: only calls that are safe there.
ProbeOutcome ConnectOnce(uid_t user, uint16_t port) {
  if (geteuid() != user && setresuid(user, user, user) != 0) {
    return kNotAllowed;
  }
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return kNotAllowed;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(kProbeAddress);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return kAnswered;
  }
  const auto judge = [](int error) {
    if (error == 0 || error == ECONNREFUSED || error == ECONNRESET) {
      return kAnswered;
    }
    return error == ENETUNREACH || error == EHOSTUNREACH ? kNoRoute : kSilent;
  };
  if (errno != EINPROGRESS) {
    return judge(errno);
  }
  pollfd wait{fd, POLLOUT, 0};
  if (poll(&wait, 1, kProbeMilliseconds) != 1) {
    return kSilent;
  }
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return judge(error);
}

absl::StatusOr<ProbeOutcome> ConnectAs(uid_t user, uint16_t port) {
  const pid_t child = fork();
  if (child < 0) {
    return absl::ErrnoToStatus(errno, "starting the probe");
  }
  if (child == 0) {
    _exit(ConnectOnce(user, port));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status)) {
    return absl::InternalError("the probe died");
  }
  return static_cast<ProbeOutcome>(WEXITSTATUS(status));
}

}  // namespace

absl::Status ProbeOutbound(const InterceptConfig& config) {
  if (!config.outbound) {
    return absl::UnavailableError("outbound is not intercepted, so there is nothing to probe");
  }
  if (config.app_uids.empty() && !(config.app_gids.empty() && config.app_cgroups.empty())) {
    return absl::UnavailableError(
        "the application is known by its group or control group, which the probe does not join; "
        "nothing is proved");
  }
  absl::StatusOr<uint64_t> before = ReadOutboundCount(config.name);
  if (!before.ok()) {
    return before.status();
  }
  absl::StatusOr<ProbeOutcome> outcome = ConnectAs(ProbeUser(config), ProbePort(config));
  if (!outcome.ok()) {
    return outcome.status();
  }
  absl::StatusOr<uint64_t> after = ReadOutboundCount(config.name);
  if (!after.ok()) {
    return after.status();
  }

  if (*outcome == kNotAllowed) {
    return absl::UnavailableError(
        base::StrCat("the probe could not become user ", ProbeUser(config), "; nothing is proved"));
  }
  if (*outcome == kNoRoute) {
    return absl::UnavailableError(
        "there is no route to 192.0.2.1 (no default route), so nothing is proved");
  }
  if (*after > *before && *outcome == kAnswered) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      base::StrCat("a connection to 192.0.2.1:", ProbePort(config), " was not caught",
                   *after > *before ? " on this host" : "",
                   "; is 192.0.2.0/24 excluded, or are other rules in "
                   "the way (`nft list ruleset`)?"));
}

}  // namespace postern::intercept
