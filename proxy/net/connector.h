// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/ip.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"
#include "proxy/net/stream.h"

namespace postern::net {

struct ConnectOptions {
  uint32_t mark = 0;     // SO_MARK, so that interception rules pass it; 0 none
  uint8_t priority = 0;  // SO_PRIORITY up to 6, which rules can tell connections by; 0 none
  bool near = false;     // the target is on this host: see TakeAtOnce
  // Connect from this address, which is not this host's (tproxy): see BindAsClient. Of the target's
  // family, else it is not heeded. Null: from this host's own. Outlives the attempts.
  const base::IpAddress* client = nullptr;
};

// One connect attempt. Destroying it cancels; the callback comes once, never from inside the
// constructor. Errors: DeadlineExceeded is the caller's own timer; Unavailable holds the address
// and the system's error; ResourceExhausted for EMFILE and EADDRNOTAVAIL.
class Connector {
 public:
  using Done = std::function<void(absl::StatusOr<std::unique_ptr<Stream>>)>;
  Connector(Loop& loop, const SocketAddress& target, const ConnectOptions& options, Done done);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

  // Must be asked right after the constructor when options.near was set: the stream, if it is
  // connected already, and then the callback does not come; else null.
  std::unique_ptr<Stream> TakeAtOnce();

 private:
  struct Attempt;
  std::unique_ptr<Attempt> attempt_;
};

}  // namespace postern::net
