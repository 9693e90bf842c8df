// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/strings.h"
#include "nlohmann/json.hpp"
#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/json_writer.h"
#include "proxy/telemetry/tls_alerts.h"

namespace postern::telemetry {
namespace {

using base::CloseReason;
using nlohmann::json;
using testing::HasSubstr;

AccessRecord Record(uint64_t id) {
  AccessRecord record;
  record.connection_id = id;
  record.opened = absl::FromUnixSeconds(1'700'000'000);
  record.duration = std::chrono::milliseconds(1500);
  record.security = Security::kMutualTls;
  record.downstream_address = "198.18.0.1:40000";
  record.destination = "198.18.0.2:5432";
  record.peer_id = "spiffe://td/web";
  record.end.reason = CloseReason::kOk;
  return record;
}

AccessRecord Failed(CloseReason reason) {
  AccessRecord record = Record(7);
  record.end.reason = reason;
  record.end.side = base::Side::kDownstream;
  record.end.detail = absl::PermissionDeniedError("certificate has expired");
  record.end.x509_error = 10;
  record.end.x509_depth = 0;
  record.end.alert_sent = 45;
  return record;
}

// A directory of one test, removed at its end.
class AccessLogTest : public testing::Test {
 protected:
  AccessLogTest() {
    std::string pattern = testing::TempDir() + "/access_log_XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~AccessLogTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static bool Await(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) {
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  std::string directory_;
};

TEST_F(AccessLogTest, WritesOneLineForEachRecord) {
  const std::string path = Path("access.log");
  {
    auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status();
    for (uint64_t id = 0; id < 100; ++id) {
      (*log)->Add(Record(id));
    }
  }
  const std::string text = Read(path);
  const auto lines = base::Split(text, '\n');
  ASSERT_EQ(lines.size(), 101u);
  for (uint64_t id = 0; id < 100; ++id) {
    EXPECT_EQ(json::parse(lines[id]).at("connection"), id);
  }
  struct stat facts {};
  ASSERT_EQ(stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0640U);
}

TEST_F(AccessLogTest, WritesWhileRunningWithoutBeingClosed) {
  const std::string path = Path("access.log");
  auto log = AccessLog::Open(path);
  ASSERT_TRUE(log.ok());
  for (int round = 0; round < 20; ++round) {
    const size_t before = Read(path).size();
    (*log)->Add(Record(1));
    ASSERT_TRUE(Await([&] { return Read(path).size() > before; })) << round;
  }
}

TEST_F(AccessLogTest, ReopensAfterTheFileWasMovedAway) {
  const std::string path = Path("access.log");
  auto log = AccessLog::Open(path);
  ASSERT_TRUE(log.ok());
  (*log)->Add(Record(1));
  ASSERT_TRUE(Await([&] { return !Read(path).empty(); }));
  std::filesystem::rename(path, Path("access.log.1"));
  (*log)->Reopen();
  ASSERT_TRUE(Await([&] { return std::filesystem::exists(path); }));
  (*log)->Add(Record(2));
  ASSERT_TRUE(Await([&] { return Read(path).find("\"connection\":2") != std::string::npos; }));
  EXPECT_EQ(Read(Path("access.log.1")).find("\"connection\":2"), std::string::npos);
}

TEST_F(AccessLogTest, AppendsToAFileThatIsThere) {
  const std::string path = Path("access.log");
  std::ofstream(path) << "earlier\n";
  { (*AccessLog::Open(path))->Add(Record(3)); }
  EXPECT_THAT(Read(path), testing::StartsWith("earlier\n{"));
}

TEST_F(AccessLogTest, NamesThePathThatCannotBeOpened) {
  const auto log = AccessLog::Open(Path("missing/access.log"));
  EXPECT_EQ(log.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(log.status().message()), HasSubstr(Path("missing/access.log")));
}

TEST_F(AccessLogTest, DropsAndCountsWhenTheReaderDoesNotRead) {
  const std::string path = Path("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const int reader = open(path.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto log = AccessLog::Open(path);
  ASSERT_TRUE(log.ok());
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t id = 0; id < 20'000; ++id) {
    (*log)->Add(Record(id));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_GT((*log)->dropped(), 1'000u);
  log->reset();  // ends although nobody reads
  close(reader);
}

TEST_F(AccessLogTest, TakesRecordsFromManyThreads) {
  const std::string path = Path("access.log");
  uint64_t dropped = 0;
  {
    auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok());
    std::vector<std::thread> workers;
    for (int i = 0; i < 4; ++i) {
      workers.emplace_back([&log] {
        for (uint64_t id = 0; id < 1000; ++id) {
          (*log)->Add(Record(id));
        }
      });
    }
    for (std::thread& worker : workers) {
      worker.join();
    }
    dropped = (*log)->dropped();
  }
  EXPECT_EQ(base::Split(Read(path), '\n').size() - 1 + dropped, 4000u);
}

TEST_F(AccessLogTest, DoesNothingWithoutATarget) {
  auto log = AccessLog::Open("");
  ASSERT_TRUE(log.ok());
  (*log)->Add(Record(1));
  (*log)->Reopen();
  EXPECT_EQ((*log)->dropped(), 0u);
}

TEST(AccessRecordTest, JsonHoldsTheFacts) {
  AccessRecord record = Failed(CloseReason::kPeerExpired);
  record.tls_version = "TLSv1.3";
  record.bytes_from_downstream = 12;
  const json line = json::parse(AccessLog::ToJson(record));
  EXPECT_EQ(line.at("time"), "2023-11-14T22:13:21.500000Z");
  EXPECT_EQ(line.at("duration_us"), 1'500'000);
  EXPECT_EQ(line.at("security"), "mutual_tls");
  EXPECT_EQ(line.at("reason"), "peer_expired");
  EXPECT_EQ(line.at("side"), "downstream");
  EXPECT_EQ(line.at("detail"), "certificate has expired");
  EXPECT_EQ(line.at("x509_error"), 10);
  EXPECT_EQ(line.at("alert_sent"), 45);
  EXPECT_EQ(line.at("peer_id"), "spiffe://td/web");
  EXPECT_EQ(line.at("tls_resumed"), false);
  EXPECT_EQ(line.at("bytes_from_downstream"), 12);
  EXPECT_FALSE(line.contains("tunnel"));
}

TEST(AccessRecordTest, EscapesWhatAPeerChose) {
  AccessRecord record = Record(1);
  record.sni = "evil\n{\"a\":1}\x1b[31m\xff\x7f";
  record.sni += std::string(1, '\0');
  const std::string line = AccessLog::ToJson(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  for (const char c : line) {
    EXPECT_GE(c, 0x20);
    EXPECT_LT(c, 0x7F);
  }
  EXPECT_EQ(json::parse(line).at("sni"),
            std::string("evil\n{\"a\":1}\x1b[31m\xef\xbf\xbd\x7f\0", 22));
}

TEST(JsonWriterTest, WritesTextThatAnyParserReadsBack) {
  for (const std::string& text :
       {std::string("plain"), std::string("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
        std::string("\"\\/\b\f\n\r\t"), std::string("\xe2\x80\xae")}) {
    std::string out;
    AppendJsonString(out, text);
    EXPECT_EQ(json::parse(out).get<std::string>(), text);
  }
}

TEST(JsonWriterTest, ReplacesBytesThatAreNoUtf8) {
  for (const std::string text : {"\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    std::string out;
    AppendJsonString(out, text);
    const auto read = json::parse(out).get<std::string>();
    EXPECT_THAT(read, testing::StartsWith("\xef\xbf\xbd"));
  }
}

TEST(FailureRingTest, KeepsTheNewestFirstAndNoMore) {
  FailureRing ring(3);
  for (uint64_t id = 1; id <= 5; ++id) {
    AccessRecord record = Failed(CloseReason::kPeerUntrusted);
    record.connection_id = id;
    ring.Add(record);
  }
  const json list = json::parse(ring.ToJson());
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].at("connection"), 5);
  EXPECT_EQ(list[2].at("connection"), 3);
}

TEST(FailureRingTest, SaysWhatHappenedAndTheMend) {
  FailureRing ring;
  ring.Add(Failed(CloseReason::kPeerExpired));
  const json failure = json::parse(ring.ToJson()).at(0);
  EXPECT_EQ(failure.at("reason"), "peer_expired");
  EXPECT_EQ(failure.at("what"), std::string(Describe(CloseReason::kPeerExpired)));
  EXPECT_EQ(failure.at("mend"), std::string(Mend(CloseReason::kPeerExpired)));
  EXPECT_EQ(failure.at("direction"), "inbound");
  EXPECT_EQ(failure.at("side"), "downstream");
  EXPECT_EQ(failure.at("x509_error"), 10);
  EXPECT_EQ(failure.at("x509_depth"), 0);
  EXPECT_EQ(failure.at("alert_sent"), 45);
  EXPECT_EQ(failure.at("alert_sent_name"), "certificate_expired");
  EXPECT_EQ(failure.at("peer_id"), "spiffe://td/web");
}

TEST(FailureRingTest, LeavesOutWhatEndedWell) {
  FailureRing ring;
  ring.Add(Record(1));
  EXPECT_EQ(ring.ToJson(), "[]");
}

TEST(FailureRingTest, LogsAFloodOfOneReasonOnlyInPart) {
  testing::internal::CaptureStdout();  // where the default logger of the tests writes
  FailureRing ring;
  for (int i = 0; i < 10'000; ++i) {
    ring.Add(Failed(CloseReason::kPeerUntrusted));
  }
  const std::string logged = testing::internal::GetCapturedStdout();
  EXPECT_LT(logged.size(), 20'000u);
  EXPECT_THAT(logged, HasSubstr("peer_untrusted"));
  EXPECT_EQ(json::parse(ring.ToJson()).size(), 256u);
}

TEST(TlsAlertNameTest, NamesTheAlertsOfTheRfc) {
  EXPECT_EQ(TlsAlertName(42), "bad_certificate");
  EXPECT_EQ(TlsAlertName(116), "certificate_required");
  EXPECT_EQ(TlsAlertName(255), "");
}

TEST(TokenTest, EachSecurityAndReasonHasOneOfItsOwn) {
  std::set<std::string_view> tokens;
  for (size_t i = 0; i < kSecurityCount; ++i) {
    EXPECT_TRUE(tokens.insert(Token(static_cast<Security>(i))).second);
  }
  tokens.clear();
  for (size_t i = 0; i < kPlaintextReasonCount; ++i) {
    EXPECT_TRUE(tokens.insert(Token(static_cast<PlaintextReason>(i))).second);
  }
}

}  // namespace
}  // namespace postern::telemetry
