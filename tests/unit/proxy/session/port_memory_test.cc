// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/port_memory.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace postern::session {
namespace {

using Fact = PortMemory::Fact;

TEST(PortMemoryTest, RemembersEachFactOfEachPortByItself) {
  const auto memory = std::make_unique<PortMemory>();
  for (const uint16_t port : std::vector<uint16_t>{0, 1, 25, 63, 64, 3306, 65535}) {
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

TEST(PortMemoryTest, RemembersWhoWasGreeted) {
  const auto memory = std::make_unique<PortMemory>();
  const auto one = base::IpAddress::Parse("192.0.2.1").value();
  EXPECT_FALSE(memory->WasGreeted(one));
  memory->NoteGreeted(one);
  EXPECT_TRUE(memory->WasGreeted(one));
  int others = 0;
  for (int i = 2; i < 252; ++i) {
    others += memory->WasGreeted(base::IpAddress::Parse("192.0.2." + std::to_string(i)).value());
  }
  EXPECT_LT(others, 10);
  memory->ForgetGreeted(one);
  EXPECT_FALSE(memory->WasGreeted(one));
}

}  // namespace
}  // namespace postern::session
