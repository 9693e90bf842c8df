// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "common/base/unique_fd.h"

namespace postern::handover {

// What `postern run` and the proxy that it has started say to each other, over a pair of connected
// SOCK_SEQPACKET sockets that nobody else has. One message is one packet with its descriptors. Both
// ends are of one release: the format is no promise to anybody.
enum class Kind : uint8_t {
  // To the proxy: a connection that the command has begun. `ip` and `port`: where to. Descriptors:
  // the accepted end, and where the command waits for the outcome the writing end of a pipe.
  kOutbound = 1,
  // To the proxy: a port that the command listens at. `ip` and `port`: where the command itself
  // accepts, on loopback. Descriptor: the listening socket that the outside reaches.
  kListener = 2,
  // To `postern run`: there is a certificate and a policy.
  kReady = 3,
};

struct Message {
  Kind kind = Kind::kReady;
  base::IpAddress ip;
  uint16_t port = 0;

  bool operator==(const Message&) const = default;
};

struct Received {
  Message message;
  std::vector<base::UniqueFd> descriptors;  // close-on-exec
};

// Two ends, close-on-exec and non-blocking. Internal: the system's error.
absl::StatusOr<std::pair<base::UniqueFd, base::UniqueFd>> MakeChannel();

// Whether `fd` is such an end, and sets it close-on-exec and non-blocking. InvalidArgument if not.
absl::Status AdoptChannel(int fd);

// Sends without waiting; the descriptors stay the caller's. ResourceExhausted: no room at present.
// Unavailable: the other end is gone, or the system's error.
absl::Status Send(int channel, const Message& message, std::span<const int> descriptors);

// Receives without waiting; nullopt: nothing is there. Unavailable: the other end is gone.
// InvalidArgument: a packet that no program of this release sends.
absl::StatusOr<std::optional<Received>> Receive(int channel);

// The outcome of a connection that the command waits for: 0 for connected, else an errno. Written
// once into the pipe that came with it. A pipe that ends without one stands for ECONNREFUSED.
void WriteOutcome(int pipe, int error);
// nullopt: not there yet.
std::optional<int> ReadOutcome(int pipe);

}  // namespace postern::handover
