// SPDX-License-Identifier: Apache-2.0
// What no proxy in user space can do without: for each readiness one recv, AES-128-GCM over what
// came in records of 16 KiB, and one send. There is no handshake, no framing, no policy and no
// limit; what goes out is the bytes as they came, so that a pair of these carries what a pair of
// proxies does.
//
//   postern-bench-floor epoll|uv_poll|uv_tcp LISTEN-PORT DIAL-PORT
//
// Both ports are on 127.0.0.1; it runs until a signal.
#include <csignal>
#include <string_view>

#include "floor.h"

int main(int argc, char** argv) {
  using namespace postern::bench;
  std::signal(SIGPIPE, SIG_IGN);  // libuv writes without MSG_NOSIGNAL
  if (argc == 4) {
    const std::string_view way = argv[1];
    const auto listen_port = static_cast<uint16_t>(std::atoi(argv[2]));
    const auto dial_port = static_cast<uint16_t>(std::atoi(argv[3]));
    if (way == "epoll") {
      RelayByEpoll(listen_port, dial_port);
    } else if (way == "uv_poll") {
      RelayByUvPoll(listen_port, dial_port);
    } else if (way == "uv_tcp") {
      RelayByUvTcp(listen_port, dial_port);
    }
  }
  std::fputs("postern-bench-floor epoll|uv_poll|uv_tcp LISTEN-PORT DIAL-PORT\n", stderr);
  return 2;
}
