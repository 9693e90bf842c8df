// SPDX-License-Identifier: Apache-2.0
#include "control/ca/ca_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "common/base/strings.h"
#include "tests/testing/ca_mount.h"
#include "tests/testing/temp_dir.h"

namespace postern::ca {
namespace {

using testing::CaFileNames;
using testing::CaMount;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TestCa;

class CaLayoutTest : public ::testing::Test {
 protected:
  absl::StatusOr<CaFiles> Read(const CaMount& mount, const std::string& roots = "",
                               bool holds_key = true) {
    return ReadCaFiles({mount.path(), roots, holds_key});
  }
  std::string Refusal(const CaMount& mount) {
    return std::string(base::Message(Read(mount).status()));
  }

  const testing::TempDir dir_;
  const TestCa root_{"example.org"};
  const TestCa ca_ = root_.Intermediate();
};

TEST_F(CaLayoutTest, ReadsEachLayout) {
  const std::pair<CaFileNames, CaLayout> layouts[] = {{CaFileNames::kIstio, CaLayout::kIstio},
                                                      {CaFileNames::kTls, CaLayout::kTls},
                                                      {CaFileNames::kLinkerd, CaLayout::kLinkerd}};
  for (const auto& [names, layout] : layouts) {
    const CaMount mount(dir_.Path(NameOf(layout).substr(0, 5)), names);
    mount.Write(ca_);
    const absl::StatusOr<CaFiles> files = Read(mount);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->layout, layout);
    EXPECT_EQ(files->signing_pem, mount.Read(mount.signing_name()));
    EXPECT_EQ(files->roots_pem, root_.RootPem());
    EXPECT_EQ(files->key_pem, testing::KeyPem(ca_.key()));
    EXPECT_EQ(files->chain_pem.empty(), layout != CaLayout::kIstio);
  }
}

TEST_F(CaLayoutTest, ReadsIstiosWithoutAChain) {
  const CaMount mount(dir_.Path("ca"));
  mount.Write(ca_);
  std::filesystem::remove(mount.Path("cert-chain.pem"));
  const absl::StatusOr<CaFiles> files = Read(mount);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->chain_pem, IsEmpty());
}

TEST_F(CaLayoutTest, TakesRootsFromElsewhere) {
  const CaMount mount(dir_.Path("ca"), CaFileNames::kLinkerd);
  mount.Write(ca_);
  std::filesystem::remove(mount.Path("ca-bundle.crt"));
  EXPECT_THAT(Refusal(mount), HasSubstr("--ca-roots"));
  const absl::StatusOr<CaFiles> files = Read(mount, dir_.Write("roots.pem", root_.RootPem()));
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->roots_pem, root_.RootPem());
}

TEST_F(CaLayoutTest, LeavesAKeyAloneThatIsElsewhere) {
  const CaMount mount(dir_.Path("ca"));
  mount.Write(ca_);
  chmod(mount.Path("ca-key.pem").c_str(), 0644);
  const absl::StatusOr<CaFiles> files = Read(mount, "", false);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->key_pem, IsEmpty());
}

TEST_F(CaLayoutTest, RefusesWhatIsMissingAmbiguousOrNotPrivate) {
  const CaMount empty(dir_.Path("empty"));
  EXPECT_TRUE(absl::IsNotFound(Read(empty).status()));
  EXPECT_THAT(Refusal(empty), HasSubstr("holds no CA"));
  EXPECT_TRUE(absl::IsNotFound(Read(CaMount(dir_.Path("other"))).status()));

  const CaMount both(dir_.Path("both"));
  both.Write(ca_);
  CaMount(dir_.Path("both"), CaFileNames::kTls).Write(ca_);
  EXPECT_TRUE(absl::IsFailedPrecondition(Read(both).status()));
  EXPECT_THAT(Refusal(both), HasSubstr("ca-cert.pem and tls.crt"));

  const CaMount mount(dir_.Path("ca"));
  for (const char* name : {"ca-key.pem", "root-cert.pem"}) {
    mount.Write(ca_);
    std::filesystem::remove(mount.Path(name));
    EXPECT_TRUE(absl::IsNotFound(Read(mount).status())) << name;
    EXPECT_THAT(Refusal(mount), HasSubstr(name));
  }
  mount.Write(ca_);
  chmod(mount.Path("ca-key.pem").c_str(), 0604);
  EXPECT_TRUE(absl::IsPermissionDenied(Read(mount).status()));
  EXPECT_THAT(Refusal(mount), HasSubstr("ca-key.pem"));
}

TEST_F(CaLayoutTest, TakesAKeyThatRootGaveToOurGroup) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  const CaMount mount(dir_.Path("ca"));
  mount.Write(ca_);
  const std::string key = mount.Path("ca-key.pem");
  chmod(key.c_str(), 0440);
  EXPECT_TRUE(Read(mount).ok()) << Read(mount).status();
  chmod(key.c_str(), 0460);
  EXPECT_TRUE(absl::IsPermissionDenied(Read(mount).status()));
  chmod(key.c_str(), 0440);
  ASSERT_EQ(chown(key.c_str(), 0, 64999), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(Read(mount).status()));
}

TEST_F(CaLayoutTest, NoticesABundleThatIsCutWithinItsLastLine) {
  const CaMount mount(dir_.Path("ca"));
  mount.Write(ca_);
  const std::string two = root_.RootPem() + TestCa("example.org").RootPem();
  for (const size_t kept : {size_t{1}, size_t{12}, size_t{26}}) {
    mount.Put("root-cert.pem", two.substr(0, root_.RootPem().size() + kept));
    EXPECT_TRUE(absl::IsInvalidArgument(Read(mount).status())) << kept;
    EXPECT_THAT(Refusal(mount), HasSubstr("cut short"));
  }
  mount.Put("root-cert.pem", two);
  EXPECT_TRUE(Read(mount).ok());
}

TEST_F(CaLayoutTest, TheDigestIsOfEachFile) {
  const CaMount mount(dir_.Path("ca"));
  mount.Write(ca_);
  const base::Sha256Digest first = Read(mount)->digest;
  EXPECT_EQ(Read(mount)->digest, first);
  for (const char* name : {"ca-cert.pem", "cert-chain.pem", "root-cert.pem", "ca-key.pem"}) {
    const std::string before = mount.Read(name);
    mount.Put(name, before + "\n");
    EXPECT_NE(Read(mount)->digest, first) << name;
    mount.Put(name, before);
    EXPECT_EQ(Read(mount)->digest, first) << name;
  }
}

// The old one or the new one, and never a bit of both.
TEST_F(CaLayoutTest, ASymlinkSwapIsSeenAsAWhole) {
  const TestCa other = TestCa("example.org").Intermediate();
  CaMount mount(dir_.Path("ca"));
  mount.Swap(ca_);
  const base::Sha256Digest one = Read(mount)->digest;
  mount.Swap(other);
  const base::Sha256Digest two = Read(mount)->digest;
  ASSERT_NE(one, two);
  std::atomic<bool> done = false;
  std::atomic<int> whole = 0;
  std::thread swapper([&] {
    // On a busy machine the reader may not have had a turn after a hundred.
    for (int i = 0; i < 100 || (whole == 0 && i < 10'000); ++i) {
      mount.Swap(ca_);
      mount.Swap(other);
    }
    done = true;
  });
  while (!done) {
    const absl::StatusOr<CaFiles> files = Read(mount);
    if (files.ok()) {
      EXPECT_TRUE(files->digest == one || files->digest == two);
      ++whole;
    }
  }
  swapper.join();
  EXPECT_EQ(Read(mount)->digest, two);
  EXPECT_GT(whole, 0);
}

}  // namespace
}  // namespace postern::ca
