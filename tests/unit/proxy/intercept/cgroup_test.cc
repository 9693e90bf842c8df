// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/cgroup.h"

#include <gtest/gtest.h>

namespace postern::intercept {
namespace {

TEST(Cgroup2MountTest, FindsWhereTheHierarchyIsBelowNftsRoot) {
  constexpr const char* kTmpfs = "23 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n";
  EXPECT_EQ(*Cgroup2Mount("24 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"),
            "");
  EXPECT_EQ(*Cgroup2Mount(std::string(kTmpfs) +
                          "24 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"),
            "unified");
  for (const std::string& none :
       {std::string(), std::string(kTmpfs),
        std::string("24 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"),
        std::string("24 1 0:26 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n"),
        std::string("24 1 0:26 / /sys/fs/cgroups rw - cgroup2 cgroup2 rw\n")}) {
    EXPECT_EQ(Cgroup2Mount(none).status().code(), absl::StatusCode::kNotFound) << none;
  }
}

TEST(CgroupTest, RefusesWhatCannotBeOrIsNotThere) {
  for (const char* text : {"", "/", "../system.slice", "a/./b", "a\"b", "no-such.slice"}) {
    EXPECT_FALSE(Cgroup::Find(text).ok()) << text;
  }
}

}  // namespace
}  // namespace postern::intercept
