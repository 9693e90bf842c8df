// SPDX-License-Identifier: Apache-2.0
#include "common/base/time_text.h"

#include <gtest/gtest.h>

namespace postern::base {
namespace {

TEST(TimeTextTest, IsInUtcAndCutsOffWhatItDoesNotShow) {
  const absl::Time time = absl::FromUnixMicros(1'767'323'045'678'901);
  EXPECT_EQ(TimeText(time), "2026-01-02T03:04:05Z");
  EXPECT_EQ(EventTimeText(time), "2026-01-02T03:04:05.678901Z");
  EXPECT_EQ(EventTimeText(absl::FromUnixSeconds(0)), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(TimeText(absl::InfiniteFuture()), "infinite-future");
}

}  // namespace
}  // namespace postern::base
