// SPDX-License-Identifier: Apache-2.0
#include "common/base/host_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/strings.h"

namespace postern::base {
namespace {

using testing::HasSubstr;

constexpr HostPortRules kAll = {.names = true,
                                .final_dot = true,
                                .no_host = true,
                                .no_port = true,
                                .bare_v6 = true,
                                .port_0 = true,
                                .zone = true};

// "HOST|IP|PORT", with "-" for what is not there; or the error.
std::string Read(std::string_view text, const HostPortRules& rules = {}) {
  const auto parsed = HostPort::Parse(text, rules);
  if (!parsed.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status()));
    return std::string(Message(parsed.status()));
  }
  return StrCat(parsed->host, "|", parsed->ip ? parsed->ip->ToString() : "-", "|",
                parsed->port ? std::to_string(*parsed->port) : "-");
}

TEST(HostPortTest, ReadsAnAddressAndItsPortByEveryRule) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"192.0.2.1:80", "192.0.2.1|192.0.2.1|80"},
      {"192.0.2.1:65535", "192.0.2.1|192.0.2.1|65535"},
      {"0.0.0.0:1", "0.0.0.0|0.0.0.0|1"},
      {"[2001:DB8:0::1]:443", "2001:DB8:0::1|2001:db8::1|443"},
      {"[::]:80", "::|::|80"},
      {"[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1|192.0.2.1|80"},
  };
  for (const auto& [text, expected] : rows) {
    EXPECT_EQ(Read(text), expected);
    EXPECT_EQ(Read(text, kAll), expected);
  }
}

TEST(HostPortTest, TakesWhatARuleAllowsAndNothingElseDoes) {
  struct Row {
    std::string text;
    HostPortRules rules;
    std::string expected;
  };
  const std::vector<Row> rows = {
      {"db-1.my_ns.svc:1", {.names = true}, "db-1.my_ns.svc|-|1"},
      {"DB.example.org.:1", {.names = true, .final_dot = true}, "DB.example.org.|-|1"},
      {":9", {.no_host = true}, "|-|9"},
      {"192.0.2.1", {.no_port = true}, "192.0.2.1|192.0.2.1|-"},
      {"[fd00::8]", {.no_port = true}, "fd00::8|fd00::8|-"},
      {"db", {.names = true, .no_port = true}, "db|-|-"},
      {"fd00::8", {.no_port = true, .bare_v6 = true}, "fd00::8|fd00::8|-"},
      {"fd00::8:a", {.no_port = true, .bare_v6 = true}, "fd00::8:a|fd00::8:a|-"},
      {"1:2:3:4:5:6:7:8", {.no_port = true, .bare_v6 = true}, "1:2:3:4:5:6:7:8|1:2:3:4:5:6:7:8|-"},
      {"192.0.2.1:0", {.port_0 = true}, "192.0.2.1|192.0.2.1|0"},
      {"[fe80::1%eth0]:80", {.zone = true}, "fe80::1|fe80::1|80"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(Read(row.text, row.rules), row.expected);
    EXPECT_EQ(Read(row.text, kAll), row.expected);
    EXPECT_THAT(Read(row.text), HasSubstr("' is no address: ")) << "allowed without its rule";
  }
}

TEST(HostPortTest, SaysWhatIsWrongAndWhatToWrite) {
  struct Row {
    std::string text;
    HostPortRules rules;
    std::string reason;
  };
  const std::string missing_port = "its port is missing";
  const std::string bad_port = "its port is no number from 1 to 65535";
  const std::string zero = "its port begins with a zero";
  const std::string no_v6 = "what stands in brackets is no IPv6 address";
  const std::string colon = "a host with a colon is an IPv6 address and stands in brackets";
  const std::string ambiguous = "without brackets it is ambiguous where the IPv6 address ends";
  const std::string no_name = "its host is neither an IP address nor a name";
  const std::vector<Row> rows = {
      {"", {}, missing_port},
      {"", kAll, "its host is missing"},
      {"192.0.2.1", {}, missing_port},
      {"15000", {.names = true}, missing_port},
      {"192.0.2.1:", {}, missing_port},
      {"192.0.2.1:", kAll, missing_port},
      {":", kAll, missing_port},
      {"[::1]", {}, missing_port},
      {"[::1]:", kAll, missing_port},
      {"192.0.2.1:0", {}, bad_port},
      {"192.0.2.1:65536", {}, bad_port},
      {"192.0.2.1:65536", kAll, "its port is no number from 0 to 65535"},
      {"192.0.2.1:99999999999999999999", {}, bad_port},
      {"192.0.2.1:-1", {}, bad_port},
      {"192.0.2.1:+1", {}, bad_port},
      {"192.0.2.1: 1", {}, bad_port},
      {"192.0.2.1:1x", {}, bad_port},
      {"192.0.2.1:http", {}, bad_port},
      {"192.0.2.1:080", {}, zero},
      {"192.0.2.1:00", kAll, zero},
      {":80", {}, "its host is missing"},
      {"[]:80", kAll, "its host is missing"},
      {"db:80", {}, "its host is no IP address"},
      {"192.0.2.256:80", kAll, no_name},
      {"192.0.2.01:80", kAll, no_name},
      {"1.2.3:80", kAll, no_name},
      {"a..b:80", kAll, no_name},
      {".:80", kAll, no_name},
      {"a b:80", kAll, no_name},
      {"user@db:80", kAll, no_name},
      {"*.example.org:80", kAll, no_name},
      {"192.0.2.1/24:80", kAll, no_name},
      {std::string(64, 'a') + ":80", kAll, no_name},
      {std::string(50, 'a') + "." + std::string(60, 'b') + "." + std::string(60, 'c') + "." +
           std::string(60, 'd') + "." + std::string(60, 'e') + ":80",
       kAll, no_name},
      {"db.example.org.:80", {.names = true}, "its name ends in a dot"},
      {"[192.0.2.1]:80", kAll, no_v6},
      {"[db]:80", kAll, no_v6},
      {"[fe80::1%eth0]:80", {}, no_v6},
      {"[[::1]]:80", kAll, "something else than :port stands behind its bracket"},
      {"[::1]80", kAll, "something else than :port stands behind its bracket"},
      {"[::1:80", kAll, "its bracket is not closed"},
      {"[", kAll, "its bracket is not closed"},
      {"::1:80", kAll, ambiguous},
      {"::1:80", {}, ambiguous},
      {"2001:db8::1:80", {.names = true}, ambiguous},
      {"fd00::8:15432", kAll, ambiguous},
      {"1:2:3:4:5:6:7:8:80", kAll, ambiguous},
      {"::1:1:", kAll, colon},
      {"::1]:80", kAll, colon},
      {"192.0.2.1:80:80", kAll, colon},
      {"db:80:80", kAll, colon},
      {"http://a:80", kAll, colon},
      {"fd00::a", {}, missing_port},
      {"fd00::a", {.no_port = true}, "an IPv6 address stands in brackets"},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Read(row.text, row.rules), HasSubstr("' is no address: " + row.reason + "; write "))
        << row.text;
  }
}

TEST(HostPortTest, NamesTheFormsThatThePlaceTakes) {
  EXPECT_EQ(Read("x"), "'x' is no address: its port is missing; write IP:port or [v6]:port");
  EXPECT_EQ(Read("x", {.names = true, .what = "door", .also = "unix:/path"}),
            "'x' is no door: its port is missing; write IP:port, [v6]:port, name:port or "
            "unix:/path");
  EXPECT_EQ(Read("[x", kAll),
            "'[x' is no address: its bracket is not closed; write IP:port, [v6]:port, name:port, "
            "one of these without its port or :port");
  EXPECT_THAT(Read("a\nb" + std::string(1000, 'x')), HasSubstr("'a\\x0abx"));
  EXPECT_LT(Read(std::string(100'000, 'x')).size(), 300U) << "a stranger's text is cut short";
}

TEST(HostPortTest, ReadsAPortAlone) {
  EXPECT_EQ(ParsePort("1"), 1);
  EXPECT_EQ(ParsePort("65535"), 65535);
  for (const std::string_view text : {"", "0", "080", "65536", "+1", "-1", " 1", "1 ", "http"}) {
    EXPECT_EQ(ParsePort(text), std::nullopt) << text;
  }
}

TEST(HostPortTest, IsReadAgainAsItIsWritten) {
  for (const std::string_view text : {"192.0.2.1:80", "[2001:db8::1]:443", "db.example.org:0"}) {
    const auto parsed = HostPort::Parse(text, kAll);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(JoinHostPort(parsed->host, *parsed->port), text);
    if (parsed->ip.has_value()) {
      EXPECT_EQ(JoinHostPort(*parsed->ip, *parsed->port), text);
    }
  }
}

}  // namespace
}  // namespace postern::base
