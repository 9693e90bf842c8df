// SPDX-License-Identifier: Apache-2.0
#include "common/x509/spiffe_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/container/flat_hash_set.h"
#include "common/base/bytes.h"

namespace postern::x509 {
namespace {

using namespace std::string_view_literals;
using ::testing::HasSubstr;

SpiffeId Id(std::string_view text) {
  return SpiffeId::Parse(text).value();
}
SpiffeIdPattern Pattern(std::string_view text) {
  return SpiffeIdPattern::Parse(text).value();
}

// What go-spiffe accepts and refuses.
TEST(SpiffeIdTest, AcceptsWhatOtherImplementationsAccept) {
  for (const std::string_view text : {"spiffe://td", "spiffe://a.b-c_1/X/y.z", "spiffe://1.2.3.4/w",
                                      "spiffe://td/...", "spiffe://td/.a"}) {
    const absl::StatusOr<SpiffeId> id = SpiffeId::Parse(text);
    ASSERT_TRUE(id.ok()) << text << ": " << id.status();
    EXPECT_EQ(id->uri(), text);
  }
}

TEST(SpiffeIdTest, RefusesWhatOtherImplementationsRefuse) {
  for (const std::string_view text :
       {"", "td/x", "SPIFFE://td/x", "spiffe://", "spiffe:///x", "spiffe://TD/x", "spiffe://td/",
        "spiffe://td/a/", "spiffe://td//a", "spiffe://td/./a", "spiffe://td/../a",
        "spiffe://td/a%20b", "spiffe://td:80/a", "spiffe://u@td/a", "spiffe://td/a?q",
        "spiffe://td/a#f", "spiffe://[::1]/a", "spiffe://td/a~b"}) {
    EXPECT_EQ(SpiffeId::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(SpiffeIdTest, RefusesOddSpellings) {
  for (const std::string_view text : {"spiffe:/td/x"sv,
                                      "spiffe:td"sv,
                                      "Spiffe://td/x"sv,
                                      " spiffe://td/x"sv,
                                      "spiffe://td/x "sv,
                                      "spiffe://td/.."sv,
                                      "spiffe://td/."sv,
                                      "spiffe://td/a/.."sv,
                                      "spiffe://td/%61"sv,
                                      "spiffe://t%64/a"sv,
                                      "spiffe://td/\xc3\xa9"sv,
                                      "spiffe://t\xc3\xa9/a"sv,
                                      "spiffe://td/a\n"sv,
                                      "spiffe://td/a\\b"sv,
                                      "spiffe://td\\a"sv,
                                      "spiffe://td/a;b"sv,
                                      "spiffe://td/a:b"sv,
                                      "spiffe://td/*"sv,
                                      "spiffe://td?x"sv,
                                      "spiffe://td#x"sv,
                                      "spiffe://td."sv.substr(0, 0),
                                      "https://td/a"sv}) {
    EXPECT_FALSE(SpiffeId::Parse(text).ok()) << base::Printable(text);
  }
}

TEST(SpiffeIdTest, SeesBytesBehindANul) {
  EXPECT_FALSE(SpiffeId::Parse("spiffe://td/web\0"sv).ok());
  EXPECT_FALSE(SpiffeId::Parse("spiffe://td/web\0/admin"sv).ok());
  EXPECT_FALSE(SpiffeId::Parse("spiffe://td\0.evil/web"sv).ok());
}

TEST(SpiffeIdTest, LimitsTheLengths) {
  const std::string longest_td(255, 'a');
  EXPECT_TRUE(SpiffeId::Parse("spiffe://" + longest_td + "/x").ok());
  EXPECT_FALSE(SpiffeId::Parse("spiffe://" + longest_td + "a/x").ok());
  const std::string start = "spiffe://td/";
  EXPECT_TRUE(SpiffeId::Parse(start + std::string(2048 - start.size(), 'a')).ok());
  EXPECT_FALSE(SpiffeId::Parse(start + std::string(2049 - start.size(), 'a')).ok());
  EXPECT_LT(SpiffeId::Parse(std::string(1U << 20U, 'a')).status().message().size(), 1000U);
}

TEST(SpiffeIdTest, ShowsAPeersBytesEscaped) {
  const absl::Status status = SpiffeId::Parse("spiffe://td/\x1b[2J\n").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(R"(\x1b)"));
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

TEST(SpiffeIdTest, TakesItsPartsApart) {
  EXPECT_EQ(Id("spiffe://td/ns/a").trust_domain_name(), "td");
  EXPECT_EQ(Id("spiffe://td/ns/a").trust_domain(), TrustDomain::Parse("td").value());
  EXPECT_EQ(Id("spiffe://td/ns/a").path(), "/ns/a");
  EXPECT_TRUE(Id("spiffe://td/ns/a").IsWorkload());
  EXPECT_EQ(Id("spiffe://td").path(), "");
  EXPECT_EQ(Id("spiffe://td").trust_domain_name(), "td");
  EXPECT_FALSE(Id("spiffe://td").IsWorkload());
}

TEST(SpiffeIdTest, ComparesByteForByte) {
  EXPECT_EQ(Id("spiffe://td/a"), Id("spiffe://td/a"));
  EXPECT_NE(Id("spiffe://td/a"), Id("spiffe://td/A"));
  EXPECT_LT(Id("spiffe://td/a"), Id("spiffe://td/b"));
  const absl::flat_hash_set<SpiffeId> set = {Id("spiffe://td/a"), Id("spiffe://td/a"),
                                             Id("spiffe://td/b")};
  EXPECT_EQ(set.size(), 2U);
}

TEST(SpiffeIdTest, KeepsItsPartsWhenMovedAndCopied) {
  SpiffeId first = Id("spiffe://example.org/web");
  const SpiffeId copy = first;
  const SpiffeId moved = std::move(first);
  EXPECT_EQ(copy.path(), "/web");
  EXPECT_EQ(moved.trust_domain_name(), "example.org");
}

TEST(TrustDomainTest, AcceptsTheBareNameAndTheUri) {
  EXPECT_EQ(TrustDomain::Parse("example.org")->name(), "example.org");
  EXPECT_EQ(TrustDomain::Parse("spiffe://example.org")->name(), "example.org");
  EXPECT_EQ(TrustDomain::Parse("example.org")->ToUri(), "spiffe://example.org");
}

TEST(TrustDomainTest, RefusesWhatIsNoNameAndNamesTheByte) {
  for (const std::string_view text :
       {""sv, "spiffe://"sv, "Example.org"sv, "td:80"sv, "td/x"sv, "spiffe://td/x"sv, "u@td"sv,
        "td\0"sv, " td"sv, "t%64"sv, "spiffe://spiffe://td"sv, "*"sv}) {
    EXPECT_FALSE(TrustDomain::Parse(text).ok()) << base::Printable(text);
  }
  EXPECT_THAT(std::string(TrustDomain::Parse("exaMple").status().message()),
              HasSubstr("'M' at position 3"));
  EXPECT_THAT(std::string(TrustDomain::Parse("spiffe://td:80").status().message()),
              HasSubstr("':' at position 11"));
  EXPECT_FALSE(TrustDomain::Parse(std::string(256, 'a')).ok());
  EXPECT_TRUE(TrustDomain::Parse(std::string(255, 'a')).ok());
}

TEST(SpiffeIdPatternTest, MatchesOneIdExactly) {
  const SpiffeIdPattern pattern = Pattern("spiffe://td/ns/a");
  EXPECT_FALSE(pattern.is_wildcard());
  EXPECT_TRUE(pattern.Matches(Id("spiffe://td/ns/a")));
  for (const char* other : {"spiffe://td/ns/ab", "spiffe://td/ns", "spiffe://td/ns/a/b",
                            "spiffe://td/ns/A", "spiffe://td2/ns/a", "spiffe://td"}) {
    EXPECT_FALSE(pattern.Matches(Id(other))) << other;
  }
}

TEST(SpiffeIdPatternTest, MatchesWholeSegmentsBelowAWildcard) {
  const SpiffeIdPattern pattern = Pattern("spiffe://td/ns/*");
  EXPECT_TRUE(pattern.is_wildcard());
  EXPECT_TRUE(pattern.Matches(Id("spiffe://td/ns/a")));
  EXPECT_TRUE(pattern.Matches(Id("spiffe://td/ns/a/b")));
  for (const char* other : {"spiffe://td/ns", "spiffe://td/nsx", "spiffe://td/nsx/a",
                            "spiffe://td/x/ns/a", "spiffe://other/ns/a", "spiffe://td"}) {
    EXPECT_FALSE(pattern.Matches(Id(other))) << other;
  }
}

TEST(SpiffeIdPatternTest, MatchesEveryWorkloadOfATrustDomain) {
  const SpiffeIdPattern pattern = Pattern("spiffe://td/*");
  EXPECT_TRUE(pattern.Matches(Id("spiffe://td/a")));
  EXPECT_TRUE(pattern.Matches(Id("spiffe://td/a/b/c")));
  EXPECT_FALSE(pattern.Matches(Id("spiffe://td")));
  EXPECT_FALSE(pattern.Matches(Id("spiffe://td2/a")));
  EXPECT_FALSE(pattern.Matches(Id("spiffe://td.evil/a")));
}

TEST(SpiffeIdPatternTest, RefusesOddPatterns) {
  for (const std::string_view text :
       {"", "*", "spiffe://*", "spiffe://*/a", "spiffe://td/a*", "spiffe://td/*/a",
        "spiffe://td/*a", "spiffe://td/**", "spiffe://td/a/*/*", "spiffe://td*/a", "spiffe://td/",
        "spiffe://td//*", "spiffe://td/./*", "spiffe://td", "td/*", "/*"}) {
    EXPECT_FALSE(SpiffeIdPattern::Parse(text).ok()) << text;
  }
  EXPECT_THAT(std::string(SpiffeIdPattern::Parse("spiffe://td").status().message()),
              HasSubstr("spiffe://td/*"));
}

TEST(SpiffeIdPatternTest, WritesItselfAsItWasRead) {
  for (const std::string_view text : {"spiffe://td/a", "spiffe://td/*", "spiffe://td/ns/*"}) {
    EXPECT_EQ(Pattern(text).ToString(), text);
  }
  EXPECT_EQ(SpiffeIdPattern::Exactly(Id("spiffe://td/a")), Pattern("spiffe://td/a"));
}

}  // namespace
}  // namespace postern::x509
