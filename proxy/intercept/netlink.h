// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace postern::intercept {

// A netlink socket of the calling thread's network namespace, and one question at a time. Blocks
// for 5 s at most; not on a worker loop.
class Netlink {
 public:
  // One message of an answer: its body and how long that is.
  using OnMessage = std::function<void(const nlmsghdr& header, const void* body, size_t size)>;

  explicit Netlink(int protocol);
  ~Netlink();
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;

  // Sends `header` with what follows it in memory (nlmsg_len bytes in all; NLM_F_REQUEST is added)
  // and reads to the end of the answer, or to the acknowledgement. 0 or the errno.
  int Ask(nlmsghdr& header, const OnMessage& on_message);

 private:
  int Take(size_t size, const OnMessage& on_message);

  const int fd_;
  alignas(nlmsghdr) std::array<char, 32768> buffer_{};
};

}  // namespace postern::intercept
