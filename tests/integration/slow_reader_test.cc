// SPDX-License-Identifier: Apache-2.0
// A reader that does not read stops the writer at the other end of the mesh; the proxies' memory
// does not grow with what is offered.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/proxy_fixture.h"

namespace postern::testing {
namespace {

constexpr int kReaders = 60;
// What a sanitizer adds to the program's memory: AddressSanitizer holds freed memory back (256
// MiB), ThreadSanitizer keeps two bytes or more for each byte.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kHeldBack = size_t{256} << 20U;
constexpr size_t kOverhead = 1;
#elif defined(__SANITIZE_THREAD__)
constexpr size_t kHeldBack = 0;
constexpr size_t kOverhead = 4;
#else
constexpr size_t kHeldBack = 0;
constexpr size_t kOverhead = 1;
#endif

TEST(SlowReaderTest, KeepsMemoryFlatWhateverIsOffered) {
  std::atomic<uint64_t> offered = 0;
  ProxyPair pair([&](Socket socket) {
    socket.SetTimeout(std::chrono::milliseconds(300));
    const std::string block(1U << 16U, 'x');
    while (socket.Send(block)) {
      offered += block.size();
    }
    socket.SetTimeout(std::chrono::seconds(20));
    socket.DrainToEnd();
  });
  pair.Start();
  std::vector<Socket> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.push_back(Socket::Connect("127.0.0.1", pair.client.Port(), /*receive_buffer=*/4096));
  }
  ASSERT_TRUE(Await([&] { return pair.app.accepted() == kReaders; }));
  const size_t before = ResidentBytes();
  // Everything stands still once each writer waits: both proxies are full to their watermarks.
  uint64_t last = 0;
  ASSERT_TRUE(Await([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    return std::exchange(last, offered.load()) == offered.load();
  }));
  const size_t after = ResidentBytes();  // read once: it goes down meanwhile
  const size_t grown = after - std::min(before, after);
  // Two proxies, a watermark and one read each, and the growth of a vector.
  EXPECT_LT(grown, kHeldBack + kOverhead * kReaders * 2 * (size_t{1} << 20U))
      << "after " << last << " bytes";
  for (Socket& reader : readers) {
    reader.Reset();
  }
  EXPECT_TRUE(pair.client.AwaitIdle());
  EXPECT_TRUE(pair.server.AwaitIdle());
}

TEST(SlowReaderTest, GetsEverythingInTheEnd) {
  const std::string data = Pattern(3U << 20U, 9);
  ProxyPair pair([&](Socket socket) { socket.Send(data); });
  pair.Start();
  Socket socket = Socket::Connect("127.0.0.1", pair.client.Port(), /*receive_buffer=*/4096);
  std::string got;
  while (got.size() < data.size()) {
    const std::string some = socket.Read(7000);
    ASSERT_FALSE(some.empty()) << Name(socket.last_end()) << " after " << got.size();
    got += some;
  }
  EXPECT_TRUE(got == data);
  EXPECT_EQ(socket.DrainToEnd(), ReadEnd::kEnd);
}

}  // namespace
}  // namespace postern::testing
