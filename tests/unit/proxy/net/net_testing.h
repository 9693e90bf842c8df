// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/base/bytes.h"
#include "proxy/net/connector.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"
#include "proxy/net/stream.h"
#include "proxy/net/timer.h"

namespace postern::net {

// Turns the loop until `condition` holds; false after `limit`.
inline bool RunUntil(Loop& loop, const std::function<bool()>& condition,
                     std::chrono::milliseconds limit = std::chrono::seconds(20)) {
  bool held = false;
  const auto deadline = std::chrono::steady_clock::now() + limit;
  Timer poll(loop, [&] {
    held = condition();
    if (held || std::chrono::steady_clock::now() > deadline) {
      loop.Stop();
    }
  });
  poll.StartRepeating(std::chrono::milliseconds(1));
  loop.Run();
  return held;
}

// Turns the loop for about `time`.
inline void RunFor(Loop& loop, std::chrono::milliseconds time) {
  Timer end(loop, [&loop] { loop.Stop(); });
  end.Start(time);
  loop.Run();
}

// Reads until there is nothing left; remembers all bytes and how it ended.
struct Collector final : Stream::Handler {
  void OnReadable(Stream& stream) noexcept override {
    uint8_t buffer[4096];
    const IoResult result = stream.Read(buffer);
    last = result;
    ++reads;
    if (result.outcome == IoOutcome::kDone) {
      bytes.append(reinterpret_cast<const char*>(buffer), result.bytes);
    } else if (result.outcome != IoOutcome::kWouldBlock) {
      ended = true;
      stream.WantRead(false);
    }
  }
  void OnWritable(Stream& stream) noexcept override {
    ++writables;
    stream.WantWrite(false);
  }
  std::string bytes;
  IoResult last;
  int reads = 0;
  int writables = 0;
  bool ended = false;
};

inline SocketAddress Loopback(uint16_t port = 0) {
  return SocketAddress(base::IpAddress::Parse("127.0.0.1").value(), port);
}

// Two ends of one TCP connection over loopback.
struct Pair {
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
};
inline Pair Connect(Loop& loop, const SocketAddress& at = Loopback()) {
  Pair pair;
  auto listener = Listener::Listen(
      loop, at, {}, [&](std::unique_ptr<Stream> s, const auto&) { pair.server = std::move(s); });
  EXPECT_TRUE(listener.ok()) << listener.status();
  Connector connector(loop, (*listener)->LocalAddress(), {}, [&](auto stream) {
    EXPECT_TRUE(stream.ok()) << stream.status();
    pair.client = *std::move(stream);
  });
  EXPECT_TRUE(RunUntil(loop, [&] { return pair.client && pair.server; }));
  return pair;
}

inline void WriteText(Stream& stream, std::string_view text) {
  const IoResult result = stream.Write(base::AsBytes(text));
  EXPECT_EQ(result.outcome, IoOutcome::kDone);
  EXPECT_EQ(result.bytes, text.size());
}

}  // namespace postern::net
