// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "cli/run/event_loop.h"
#include "common/base/unique_fd.h"
#include "common/handover/handover.h"

namespace postern::run {

// This end of the channel to the proxy. What finds no room waits here, in its order. When the proxy
// is gone, so is everything that waits: its descriptors are closed, which resets the connections.
// The loop's thread.
class ProxyLink {
 public:
  struct Callbacks {
    std::function<void()> ready;  // the proxy has what it needs
    std::function<void()> gone;   // once
  };
  ProxyLink(EventLoop& loop, base::UniqueFd channel, Callbacks callbacks);
  ~ProxyLink();
  ProxyLink(const ProxyLink&) = delete;
  ProxyLink& operator=(const ProxyLink&) = delete;

  // Whether there is a proxy to hand anything over to.
  bool is_open() const { return channel_.is_open(); }
  void Hand(const handover::Message& message, std::vector<base::UniqueFd> descriptors);
  // The proxy has ended, or is to be given nothing more.
  void Close();

 private:
  struct Waiting {
    handover::Message message;
    std::vector<base::UniqueFd> descriptors;
  };
  void Watch();
  void OnEvent();
  void Flush();

  EventLoop& loop_;
  base::UniqueFd channel_;
  Callbacks callbacks_;
  std::deque<Waiting> waiting_;
  bool awaits_room_ = false;
};

}  // namespace postern::run
