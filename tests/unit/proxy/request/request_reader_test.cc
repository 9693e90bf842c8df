// SPDX-License-Identifier: Apache-2.0
#include "proxy/request/request_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "common/base/strings.h"
#include "tests/testing/cpu_time.h"

namespace postern::request {
namespace {

using State = RequestReader::State;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace std::string_literals;

struct Outcome {
  State state = State::kNeedMore;
  std::string reply, destination, rest, fault;
  bool operator==(const Outcome&) const = default;
};

// What a reader makes of `bytes` that come in pieces of this size.
Outcome Read(std::string_view bytes, size_t piece) {
  RequestReader reader;
  Outcome outcome;
  size_t at = 0;
  while (at < bytes.size() && outcome.state == State::kNeedMore) {
    const RequestReader::Step step = reader.Feed(base::AsBytes(bytes.substr(at, piece)));
    at = std::min(at + piece, bytes.size());
    outcome.state = step.state;
    outcome.reply += step.reply;
  }
  if (outcome.state == State::kDone) {
    outcome.destination = reader.destination().ToString();
    outcome.rest = std::string(base::AsText(reader.rest())) + std::string(bytes.substr(at));
  }
  outcome.fault = std::string(base::Message(reader.fault()));
  return outcome;
}

// The same whatever the pieces are.
Outcome Read(std::string_view bytes) {
  const Outcome whole = Read(bytes, bytes.size() + 1);
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{7}, size_t{64}}) {
    EXPECT_EQ(Read(bytes, piece), whole) << piece;
  }
  return whole;
}

const std::string kHello = "\x05\x01\x00"s;
const std::string kTakesNone = "\x05\x00"s;

std::string Name(std::string_view name, uint16_t port) {
  return kHello + "\x05\x01\x00\x03"s + static_cast<char>(name.size()) + std::string(name) +
         static_cast<char>(port >> 8U) + static_cast<char>(port & 0xFFU);
}

TEST(SocksRequestTest, AsksForAnIpv4Address) {
  const Outcome read = Read(kHello + "\x05\x01\x00\x01\xc0\x00\x02\x07\x15\x38"s + "early"s);
  EXPECT_EQ(read.state, State::kDone);
  EXPECT_EQ(read.reply, kTakesNone);
  EXPECT_EQ(read.destination, "192.0.2.7:5432");
  EXPECT_EQ(read.rest, "early");
}

TEST(SocksRequestTest, AsksForAnIpv6Address) {
  const std::string ip = "\xfd\x00\x00\x5b"s + std::string(11, '\0') + "\x01";
  EXPECT_EQ(Read(kHello + "\x05\x01\x00\x04"s + ip + "\x00\x50"s).destination, "[fd00:5b::1]:80");
  const std::string mapped = std::string(10, '\0') + "\xff\xff\xc0\x00\x02\x07"s;
  EXPECT_EQ(Read(kHello + "\x05\x01\x00\x04"s + mapped + "\x00\x50"s).destination, "192.0.2.7:80");
}

TEST(SocksRequestTest, AsksForAName) {
  EXPECT_EQ(Read(Name("DB.Example.org", 5432)).destination, "db.example.org:5432");
  EXPECT_EQ(Read(Name("db.example.org.", 1)).destination, "db.example.org:1");
  EXPECT_EQ(Read(Name("192.0.2.7", 1)).destination, "192.0.2.7:1") << "an address in letters";
  EXPECT_EQ(Read(Name("fd00::7", 1)).destination, "[fd00::7]:1");
}

TEST(SocksRequestTest, KeepsTheFinalDotForTheLookup) {
  RequestReader reader;
  ASSERT_EQ(reader.Feed(base::AsBytes(Name("Db.example.", 7))).state, State::kDone);
  EXPECT_EQ(reader.destination().name, "db.example");
  EXPECT_EQ(reader.destination().lookup, "db.example.");
  EXPECT_EQ(reader.protocol(), Protocol::kSocks5);
}

TEST(SocksRequestTest, KeepsTheDestinationWithoutTheBytes) {
  RequestReader reader;
  ASSERT_EQ(reader.Feed(base::AsBytes(Name("db", 7) + "early")).state, State::kDone);
  reader.ForgetBytes();
  EXPECT_TRUE(reader.rest().empty());
  EXPECT_EQ(reader.destination().ToString(), "db:7");
}

TEST(SocksRequestTest, TakesAClientThatCouldAuthenticateButNeedNot) {
  const Outcome read = Read("\x05\x03\x02\x00\x01\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"s);
  EXPECT_EQ(read.state, State::kDone);
  EXPECT_EQ(read.reply, kTakesNone);
}

TEST(SocksRequestTest, RefusesWithTheCodeThatFits) {
  struct Row {
    std::string bytes, reply, fault;
  };
  const std::string tail = "\x01\xc0\x00\x02\x07\x00\x50"s;
  const auto failed = [](uint8_t code) {
    return kTakesNone + "\x05"s + static_cast<char>(code) + "\x00\x01"s + std::string(6, '\0');
  };
  const std::vector<Row> rows = {
      {"\x05\x01\x02"s, "\x05\xff"s, "authenticate"},
      {"\x05\x00"s, "\x05\xff"s, "authenticate"},
      {kHello + "\x04\x01\x00"s + tail, failed(1), "wrong version"},
      {kHello + "\x05\x01\x01"s + tail, failed(1), "reserved"},
      {kHello + "\x05\x02\x00"s + tail, failed(7), "CONNECT"},
      {kHello + "\x05\x03\x00"s + tail, failed(7), "CONNECT"},
      {kHello + "\x05\x01\x00\x02"s + "abcdef", failed(8), "type of address"},
      {kHello + "\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x00"s, failed(1), "no host and port"},
      {kHello + "\x05\x01\x00\x01\x00\x00\x00\x00\x00\x50"s, failed(1), "no host and port"},
      {Name("", 80), failed(1), "no host and port"},
      {Name("a b", 80), failed(1), "no host and port"},
      {Name("a\0b"s, 80), failed(1), "no host and port"},
      {Name("2130706433", 80), failed(1), "no host and port"},
  };
  for (const Row& row : rows) {
    const Outcome read = Read(row.bytes);
    EXPECT_EQ(read.state, State::kRefused) << row.fault;
    EXPECT_EQ(read.reply, row.reply) << row.fault;
    EXPECT_THAT(read.fault, HasSubstr(row.fault));
  }
}

TEST(SocksRequestTest, IsNotWholeBeforeItsLastByte) {
  const std::string whole = Name("db.example.org", 5432);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Read(whole.substr(0, size)).state, State::kNeedMore) << size;
  }
}

TEST(RequestReaderTest, RefusesWhatIsOfNeitherLanguageWithoutAWord) {
  for (const std::string& bytes :
       {"\x04\x01\x00\x50"s, "\x16\x03\x01"s, "get / HTTP/1.1\r\n"s, "\r\n"s}) {
    const Outcome read = Read(bytes);
    EXPECT_EQ(read.state, State::kRefused);
    EXPECT_EQ(read.reply, "");
    EXPECT_THAT(read.fault, HasSubstr("neither SOCKS5 nor HTTP"));
  }
}

std::string Connect(const std::string& target, const std::string& headers = "Host: x\r\n") {
  return "CONNECT " + target + " HTTP/1.1\r\n" + headers + "\r\n";
}

TEST(HttpConnectTest, AsksForAddressesAndNames) {
  EXPECT_EQ(Read(Connect("192.0.2.7:443")).destination, "192.0.2.7:443");
  EXPECT_EQ(Read(Connect("[fd00:5b::1]:443")).destination, "[fd00:5b::1]:443");
  const Outcome read = Read(
      Connect("Db.example.org:5432", "Host: Db.example.org:5432\r\nUser-Agent: \xc3\xa9\t \r\n") +
      "early");
  EXPECT_EQ(read.state, State::kDone);
  EXPECT_EQ(read.destination, "db.example.org:5432");
  EXPECT_EQ(read.rest, "early");
  EXPECT_EQ(read.reply, "");
}

TEST(HttpConnectTest, TakesHttp10WithoutAHost) {
  EXPECT_EQ(Read("CONNECT db:1 HTTP/1.0\r\n\r\n").destination, "db:1");
}

TEST(HttpConnectTest, RefusesWithTheStatusThatFits) {
  struct Row {
    std::string bytes;
    int status;
    std::string fault;
  };
  std::string many = "Host: x\r\n";
  for (int i = 0; i < 100; ++i) {
    many += base::StrCat("X-", i, ": 1\r\n");
  }
  const std::vector<Row> rows = {
      {"GET http://db/ HTTP/1.1\r\nHost: db\r\n\r\n", 405, "other than CONNECT"},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"},
      {"CONNECT db:1 HTTP/1.2\r\nHost: x\r\n\r\n", 505, "version"},
      {"CONNECT db:1 XTTP/1.1\r\nHost: x\r\n\r\n", 400, "no request line"},
      {"CONNECT  db:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no request line"},
      {"CONNECT db:1\r\n\r\n", 400, "no request line"},
      {Connect("db"), 400, "no host:port"},
      {Connect("db:"), 400, "no host:port"},
      {Connect("db:0"), 400, "no host:port"},
      {Connect("db:65536"), 400, "no host:port"},
      {Connect("db:+1"), 400, "no host:port"},
      {Connect("db:080"), 400, "no host:port"},
      {Connect(":1"), 400, "no host:port"},
      {Connect("fd00::1:80"), 400, "no host:port"},
      {Connect("[192.0.2.7]:80"), 400, "no host:port"},
      {Connect("[fd00::1%25lo]:80"), 400, "no host:port"},
      {Connect("0.0.0.0:80"), 400, "no host:port"},
      {Connect("[::]:80"), 400, "no host:port"},
      {Connect("user@db:80"), 400, "no host:port"},
      {Connect("http://db:80/"), 400, "no host:port"},
      {Connect("db:1", ""), 400, "one Host header"},
      {Connect("db:1", "Host: a\r\nhost: b\r\n"), 400, "one Host header"},
      {Connect("db:1", "Host: a\r\n folded\r\n"), 400, "without a name"},
      {Connect("db:1", "Host : a\r\n"), 400, "without a name"},
      {Connect("db:1", "nothing\r\n"), 400, "without a name"},
      {Connect("db:1", "Host: a\x01\r\n"), 400, "control character"},
      {Connect("db:1", "Host: a\rb\r\n"), 400, "control character"},
      {Connect("db:1", "Host: a\r\nTransfer-Encoding: chunked\r\n"), 400, "with content"},
      {Connect("db:1", "Host: a\r\nContent-Length: 5\r\n"), 400, "with content"},
      {Connect("db:1", many), 431, "too many headers"},
      {"CONNECT db:1 HTTP/1.1\nHost: x\n\n", 400, "CRLF"},
      {Connect("db:1", "Host: x\r\nX: " + std::string(kMaxHttpHead, 'a') + "\r\n"), 431,
       "too long"},
  };
  for (const Row& row : rows) {
    const Outcome read = Read(row.bytes);
    EXPECT_EQ(read.state, State::kRefused) << row.bytes;
    EXPECT_THAT(read.reply, StartsWith(base::StrCat("HTTP/1.1 ", row.status, " "))) << row.bytes;
    EXPECT_THAT(read.reply, HasSubstr("Postern-Close-Reason: bad_proxy_request\r\n"));
    EXPECT_THAT(read.fault, HasSubstr(row.fault)) << row.bytes;
  }
  EXPECT_EQ(Read(Connect("db:1", "Host: a\r\nContent-Length: 0\r\n")).state, State::kDone);
}

TEST(HttpConnectTest, NamesTheMethodThatItTakes) {
  EXPECT_THAT(Read("GET / HTTP/1.1\r\nHost: db\r\n\r\n").reply,
              HasSubstr("\r\nAllow: CONNECT\r\n"));
}

TEST(HttpConnectTest, HoldsNoMoreThanItsLimit) {
  RequestReader reader;
  const std::string line = "CONNECT db:1 HTTP/1.1\r\nX: ";
  EXPECT_EQ(reader.Feed(base::AsBytes(line)).state, State::kNeedMore);
  const std::string rest(kMaxHttpHead - line.size() - 1, 'a');
  EXPECT_EQ(reader.Feed(base::AsBytes(rest)).state, State::kNeedMore);
  EXPECT_EQ(reader.Feed(base::AsBytes("a")).state, State::kRefused);
}

// Each of its bytes is looked at once, not once more for each byte that comes behind it: ten heads
// take some milliseconds, and took more than a second.
TEST(RequestReaderTest, AHeadInSingleBytesCostsWhatItsBytesCost) {
  const std::string head = "CONNECT db:1 HTTP/1.1\r\nX: ";
  const absl::Duration begin = testing::CpuTime();
  for (int i = 0; i < 10; ++i) {
    RequestReader reader;
    for (size_t at = 0; at + 1 < kMaxHttpHead; ++at) {
      const char byte = at < head.size() ? head[at] : '\r';
      ASSERT_EQ(reader.Feed(base::AsBytes({&byte, 1})).state, State::kNeedMore);
    }
  }
  EXPECT_LT(testing::CpuTime() - begin, absl::Milliseconds(500));
}

}  // namespace
}  // namespace postern::request
