// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "proxy/config/destinations.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket_address.h"

namespace postern::identity {

// Answers, on any worker, whether a destination address is in the mesh and whom to expect there.
// Learns on demand, so that memory follows what the application dials. Owned by main, outlives the
// workers; Lookup may be called from any loop's thread.
class EndpointDirectory {
 public:
  // nullopt: known not to be of the mesh. FailedPrecondition: it was of the mesh once and is not
  // now, so plaintext is refused (mesh_downgrade). Unavailable: nobody to ask.
  using Answer = absl::StatusOr<std::optional<config::MeshDestination>>;

  // Destroying it cancels: the callback will not come any more. Loop thread of its Lookup only.
  class Query {
   public:
    virtual ~Query() = default;
  };

  virtual ~EndpointDirectory() = default;

  // Calls `done` once on `loop`: at once, inside this call, when the answer is cached for this
  // thread, and otherwise later. There is no deadline here: the caller has one.
  virtual std::unique_ptr<Query> Lookup(net::Loop& loop, const net::SocketAddress& destination,
                                        std::function<void(Answer)> done) = 0;

  // What is known of a name that a client asked for; nullopt: nothing, and its addresses are looked
  // up. Any thread.
  virtual std::optional<config::MeshDestination> FindName(std::string_view /*name*/,
                                                          uint16_t /*port*/) const {
    return std::nullopt;
  }

  // A client asked for a name (in its one spelling) that leads into the mesh: plaintext to it is to
  // be refused from now on, wherever it leads then. Any thread.
  virtual void NoteName(std::string_view /*name*/, uint16_t /*port*/) {}
  // Whether a name ever led into the mesh, unless an operator has said that it left. Any thread.
  virtual bool WasInMesh(std::string_view /*name*/, uint16_t /*port*/) const { return false; }

  // Whether `ip` is the address of a known mesh member: such a client is waited for in permissive
  // mode, not answered in plaintext. Any thread.
  virtual bool IsMeshMember(const base::IpAddress& ip) const = 0;
  // Whether that is still being found out: IsMeshMember said no because nobody has answered yet.
  virtual bool AwaitsAnswer(const base::IpAddress& /*ip*/) const { return false; }
};

}  // namespace postern::identity
