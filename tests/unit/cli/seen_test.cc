// SPDX-License-Identifier: Apache-2.0
// `postern seen`: what a proxy answers over its unix socket becomes an exit status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <string>

#include "common/base/strings.h"
#include "tests/testing/sockets.h"
#include "tests/testing/temp_dir.h"
#include "tests/unit/cli/run_command.h"

namespace postern::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class SeenTest : public ::testing::Test {
 protected:
  static Outcome Forget(const std::string& socket, const std::string& destination) {
    return RunWith({"seen", "forget", "--admin-socket", socket, destination});
  }
  // Asks a proxy that answers so; `request_` is what it was asked.
  Outcome ForgetAt(int answer, const std::string& body) {
    const std::string path = directory_.Path(base::StrCat("admin", answer, ".sock"));
    testing::Server proxy(path, [&](testing::Socket socket) {
      std::string head;
      while (head.find("\r\n\r\n") == std::string::npos) {
        const std::string more = socket.Read(4096);
        if (more.empty()) {
          return;
        }
        head += more;
      }
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        request_ = head;
      }
      socket.Send(base::StrCat("HTTP/1.1 ", answer, " X\r\nContent-Length: ", body.size(),
                               "\r\nConnection: close\r\n\r\n", body));
    });
    return Forget(path, "192.0.2.7:5432");
  }

  testing::TempDir directory_;
  std::mutex mutex_;
  std::string request_;  // guarded by mutex_ while a proxy runs
};

TEST_F(SeenTest, TellsTheProxyWhichDestinationHasLeft) {
  const Outcome done = ForgetAt(200, "{}");
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr("192.0.2.7:5432 has left the mesh"));
  EXPECT_THAT(request_, StartsWith("POST /seen/forget?destination=192.0.2.7:5432 HTTP/1.1\r\n"));
}

TEST_F(SeenTest, SaysWhatTheProxyDislikes) {
  const Outcome unknown = ForgetAt(404, R"({"error":"db:80 was not seen in the mesh"})"
                                        "\n");
  EXPECT_EQ(unknown.status, 1);
  EXPECT_EQ(unknown.err, "postern: db:80 was not seen in the mesh\n");
  const Outcome wrong = ForgetAt(400, R"({"error":"write the destination as"})");
  EXPECT_EQ(wrong.status, 2);
  EXPECT_EQ(wrong.err, "postern: write the destination as\n");
  EXPECT_THAT(ForgetAt(500, "no page").err, HasSubstr("no page"));
}

TEST_F(SeenTest, SaysThatNobodyAnswers) {
  const Outcome nobody = Forget(directory_.Path("none.sock"), "all");
  EXPECT_EQ(nobody.status, 1);
  EXPECT_THAT(nobody.err, HasSubstr("--admin-socket"));
  EXPECT_EQ(Forget(directory_.Path("none.sock"), "all HTTP/1.1").status, 2);
}

}  // namespace
}  // namespace postern::cli
