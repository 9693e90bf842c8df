// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/port_memory.h"

#include <gtest/gtest.h>

#include <memory>

namespace postern::session {
namespace {

using Fact = PortMemory::Fact;

TEST(PortMemoryTest, RemembersEachFactOfEachPortByItself) {
  const auto memory = std::make_unique<PortMemory>();
  for (const uint16_t port : {0, 1, 25, 63, 64, 3306, 65535}) {
    EXPECT_FALSE(memory->Knows(Fact::kServerFirst, port));
    memory->Note(Fact::kServerFirst, port);
    memory->Note(Fact::kServerFirst, port);
    EXPECT_TRUE(memory->Knows(Fact::kServerFirst, port));
    EXPECT_FALSE(memory->Knows(Fact::kMesh, port));
  }
  EXPECT_FALSE(memory->Knows(Fact::kServerFirst, 26));
  EXPECT_FALSE(memory->Knows(Fact::kServerFirst, 65534));
  memory->Note(Fact::kMesh, 25);
  EXPECT_TRUE(memory->Knows(Fact::kMesh, 25));
}

}  // namespace
}  // namespace postern::session
