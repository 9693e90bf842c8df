// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/admin_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "common/base/strings.h"
#include "tests/testing/temp_dir.h"

namespace postern::process {
namespace {

using ::testing::HasSubstr;

class AdminPortsTest : public ::testing::Test {
 protected:
  AdminPortsTest() {
    config_.admin = "127.0.0.1:0";
    config_.metrics = "127.0.0.1:0";
  }
  std::string Error() {
    return std::string(base::Message(AdminPorts::Open(config_, pages_, verbs_).status()));
  }

  const testing::TempDir directory_;
  config::ProxyConfig config_;
  admin::Pages pages_;
  admin::Verbs verbs_;
};

TEST_F(AdminPortsTest, OpensWhatTheConfigNamesAndTakesItAwayAgain) {
  config_.admin_socket = directory_.Path("control");
  {
    const auto ports = AdminPorts::Open(config_, pages_, verbs_);
    ASSERT_TRUE(ports.ok()) << ports.status();
    EXPECT_NE((*ports)->admin_port(), 0);
    EXPECT_NE((*ports)->metrics_port(), 0);
    EXPECT_NE((*ports)->admin_port(), (*ports)->metrics_port());
    EXPECT_TRUE(std::filesystem::exists(config_.admin_socket));
  }
  EXPECT_FALSE(std::filesystem::exists(config_.admin_socket));
}

TEST_F(AdminPortsTest, AdminMayBeASocketAndThenHasNoPort) {
  config_.admin = "unix:" + directory_.Path("admin");
  const auto ports = AdminPorts::Open(config_, pages_, verbs_);
  ASSERT_TRUE(ports.ok()) << ports.status();
  EXPECT_EQ((*ports)->admin_port(), 0);
  EXPECT_TRUE(std::filesystem::exists(directory_.Path("admin")));
}

TEST_F(AdminPortsTest, AnErrorNamesItsFlag) {
  config_.admin_socket = directory_.Path("none/control");
  EXPECT_THAT(Error(), HasSubstr("--admin-socket: "));
  config_.metrics = "192.0.2.1:1";  // of no interface
  EXPECT_THAT(Error(), HasSubstr("--metrics: "));
  config_.admin = "192.0.2.1:1";
  EXPECT_THAT(Error(), HasSubstr("--admin: "));
}

}  // namespace
}  // namespace postern::process
