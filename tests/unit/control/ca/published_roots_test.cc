// SPDX-License-Identifier: Apache-2.0
#include "control/ca/published_roots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::ca {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestCa;

class PublishedRootsTest : public ::testing::Test {
 protected:
  std::vector<PublishedRoot> Three() const {
    std::vector<PublishedRoot> roots;
    roots.push_back({one_.Root(), true, absl::InfiniteFuture()});
    roots.push_back({two_.Root(), false, absl::InfiniteFuture()});
    roots.push_back({three_.Root(), false, absl::FromUnixSeconds(1'800'000'000), true});
    return roots;
  }
  const testing::TempDir dir_;
  const TestCa one_{"example.org"};
  const TestCa two_{"example.org"};
  const TestCa three_{"example.org"};
};

TEST_F(PublishedRootsTest, AreReadAsTheyWereWritten) {
  ASSERT_TRUE(WritePublishedRoots(dir_.path(), Three()).ok());
  const auto read = ReadPublishedRoots(dir_.path());
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_THAT(*read, SizeIs(3));
  const std::vector<PublishedRoot> three = Three();
  EXPECT_TRUE(SameRoots(*read, three));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(X509_cmp((*read)[i].certificate.get(), three[i].certificate.get()), 0);
    EXPECT_EQ((*read)[i].signs, three[i].signs);
    EXPECT_EQ((*read)[i].until, three[i].until);
    EXPECT_EQ((*read)[i].retired, three[i].retired);
  }
  EXPECT_EQ(FindRoot(*read, two_.root()), &(*read)[1]);
  EXPECT_EQ(FindRoot(*read, TestCa("example.org").root()), nullptr);
}

TEST_F(PublishedRootsTest, NoFileIsNoRoots) {
  const auto read = ReadPublishedRoots(dir_.path());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(*read, IsEmpty());
}

TEST_F(PublishedRootsTest, SetsAreComparedWithoutOrder) {
  std::vector<PublishedRoot> turned = Three();
  std::swap(turned[0], turned[2]);
  EXPECT_TRUE(SameRoots(turned, Three()));
  turned[0].retired = false;
  EXPECT_FALSE(SameRoots(turned, Three())) << "trusted again";
  turned[0].retired = true;
  turned.pop_back();
  EXPECT_FALSE(SameRoots(turned, Three()));
  turned.push_back({TestCa("example.org").Root(), false, absl::InfiniteFuture()});
  EXPECT_FALSE(SameRoots(turned, Three()));
}

TEST_F(PublishedRootsTest, ADamagedFileIsNoEmptyOne) {
  ASSERT_TRUE(WritePublishedRoots(dir_.path(), Three()).ok());
  const std::string path = dir_.Path(kPublishedRootsFile);
  const std::string whole = *base::ReadFile(path);
  const size_t second = whole.find("root signs=0");
  const std::string damaged[] = {
      "",
      whole.substr(1),
      whole.substr(0, whole.size() - 20),
      whole.substr(0, second + 9),
      whole + "root signs=x until=0 retired=0\n",
      whole + "more\n",
      whole.substr(0, second) + "root signs=1 until=0 retired=0\n" + whole.substr(second)};
  for (const std::string& text : damaged) {
    dir_.Write(kPublishedRootsFile, text);
    const auto read = ReadPublishedRoots(dir_.path());
    EXPECT_TRUE(absl::IsDataLoss(read.status())) << text.size() << ": " << read.status();
    EXPECT_THAT(std::string(base::Message(read.status())), HasSubstr(path));
  }
}

}  // namespace
}  // namespace postern::ca
