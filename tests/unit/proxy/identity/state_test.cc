// SPDX-License-Identifier: Apache-2.0
// What a proxy keeps on disk: StateDir and SeenList.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "common/base/file.h"
#include "common/x509/certificate.h"
#include "common/x509/key.h"
#include "postern/v1/state.pb.h"
#include "proxy/identity/seen_list.h"
#include "proxy/identity/state_dir.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"

namespace postern::identity {
namespace {

using testing::TestCa;

AddressKey Key(const char* ip, uint16_t port) {
  return {base::IpAddress::Parse(ip).value(), port};
}

class StateDirTest : public ::testing::Test {
 protected:
  std::string path() const { return dir_.Path("state"); }
  testing::TempDir dir_;
  const TestCa ca_;
};

TEST_F(StateDirTest, GivesBackWhatItKept) {
  std::optional<StateDir> state = StateDir::Open(path()).value();
  const x509::Svid svid = ca_.Intermediate().Issue("spiffe://example.org/web");
  EXPECT_EQ(state->LoadConfirmed(), std::nullopt);
  ASSERT_TRUE(state->SaveSvid(svid).ok());
  ASSERT_TRUE(state->SaveBundles(ca_.BundleSet()).ok());
  v1::ProxyState kept;
  kept.set_issued_at(7);
  ASSERT_TRUE(state->SaveSnapshot(kept).ok());
  ASSERT_TRUE(state->SaveConfirmed(absl::FromUnixSeconds(1234)).ok());
  state.reset();

  const StateDir again = StateDir::Open(path()).value();
  EXPECT_EQ(again.LoadSvid()->serial(), svid.serial());
  EXPECT_EQ(again.LoadSvid()->chain().size(), 2U);
  EXPECT_NE(again.LoadBundles(ca_.trust_domain())->Find("example.org"), nullptr);
  v1::ProxyState read;
  ASSERT_TRUE(again.LoadSnapshot(&read).ok());
  EXPECT_EQ(read.issued_at(), 7);
  EXPECT_EQ(again.LoadConfirmed(), absl::FromUnixSeconds(1234));
}

TEST_F(StateDirTest, BelongsToOneProxyAtATime) {
  std::optional<StateDir> first = StateDir::Open(path()).value();
  const absl::Status refused = StateDir::Open(path()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_NE(refused.message().find("in use by another process"), std::string::npos) << refused;
  std::optional<StateDir> copy = first;
  first.reset();
  EXPECT_FALSE(StateDir::Open(path()).ok()) << "a copy holds it still";
  copy.reset();
  EXPECT_TRUE(StateDir::Open(path()).ok());
}

TEST_F(StateDirTest, RefusesFilesThatOthersCanReadAndSaysTheMend) {
  ASSERT_TRUE(StateDir::Open(path())->SaveSvid(ca_.Issue("spiffe://example.org/web")).ok());
  ASSERT_TRUE(StateDir::Open(path())->SaveBundles(ca_.BundleSet()).ok());
  for (const char* name : {"key.pem", "svid.pem", "bundle.json"}) {
    const std::string file = path() + "/" + name;
    for (const mode_t mode : {0640U, 0604U, 0660U, 0602U}) {
      ASSERT_EQ(chmod(file.c_str(), mode), 0);
      const absl::Status refused = StateDir::Open(path()).status();
      EXPECT_TRUE(absl::IsPermissionDenied(refused)) << name << ": " << refused;
      EXPECT_NE(refused.message().find(file), std::string::npos) << refused;
      EXPECT_NE(refused.message().find("chmod 600"), std::string::npos) << refused;
    }
    ASSERT_EQ(chmod(file.c_str(), 0600), 0);
    EXPECT_TRUE(StateDir::Open(path()).ok()) << name;
  }
}

TEST_F(StateDirTest, RefusesAKeyOfAnotherUser) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root: gives a file away";
  }
  ASSERT_TRUE(StateDir::Open(path())->SaveSvid(ca_.Issue("spiffe://example.org/web")).ok());
  ASSERT_EQ(chown((path() + "/key.pem").c_str(), 64901, 64901), 0);
  const absl::Status refused = StateDir::Open(path()).status();
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_NE(refused.message().find("belongs to uid 64901"), std::string::npos) << refused;
}

TEST_F(StateDirTest, KeepsItsFilesToItself) {
  const StateDir state = StateDir::Open(path()).value();
  ASSERT_TRUE(state.SaveSvid(ca_.Issue("spiffe://example.org/web")).ok());
  struct stat facts;
  ASSERT_EQ(stat((path() + "/key.pem").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0600U);
  ASSERT_EQ(stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0700U);
  EXPECT_NE(access((path() + "/key.pem.next").c_str(), F_OK), 0);
}

TEST_F(StateDirTest, RefusesADirectoryThatOthersMayEnter) {
  ASSERT_EQ(mkdir(path().c_str(), 0755), 0);
  ASSERT_EQ(chmod(path().c_str(), 0755), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(StateDir::Open(path()).status()));
}

TEST_F(StateDirTest, IsEmptyAtFirst) {
  const StateDir state = StateDir::Open(path()).value();
  v1::ProxyState read;
  EXPECT_TRUE(absl::IsNotFound(state.LoadSvid().status()));
  EXPECT_TRUE(absl::IsNotFound(state.LoadSnapshot(&read)));
}

TEST_F(StateDirTest, LoadsWhateverMomentACrashCameAt) {
  const StateDir state = StateDir::Open(path()).value();
  const x509::Svid old_one = ca_.Issue("spiffe://example.org/web");
  const x509::Svid new_one = ca_.Issue("spiffe://example.org/web");
  ASSERT_TRUE(state.SaveSvid(old_one).ok());
  // The steps of a second SaveSvid, one by one.
  const std::string next_key = x509::PrivateKeyToPem(new_one.key()).value();
  ASSERT_TRUE(base::WriteFileAtomically(path() + "/key.pem.next", next_key, 0600).ok());
  EXPECT_EQ(state.LoadSvid()->serial(), old_one.serial());
  ASSERT_TRUE(base::WriteFileAtomically(path() + "/svid.pem",
                                        x509::CertificatesToPem(new_one.chain()), 0600)
                  .ok());
  EXPECT_EQ(state.LoadSvid()->serial(), new_one.serial());
  ASSERT_TRUE(base::WriteFileAtomically(path() + "/key.pem", next_key, 0600).ok());
  EXPECT_EQ(state.LoadSvid()->serial(), new_one.serial());
}

TEST_F(StateDirTest, RefusesADamagedSnapshot) {
  const StateDir state = StateDir::Open(path()).value();
  ASSERT_TRUE(base::WriteFileAtomically(path() + "/snapshot.pb", "\xff\xff\xff", 0600).ok());
  v1::ProxyState read;
  EXPECT_TRUE(absl::IsDataLoss(state.LoadSnapshot(&read)));
}

TEST(SeenListTest, RemembersAcrossARestart) {
  const testing::TempDir dir;
  SeenList first(dir.Path("seen"));
  ASSERT_TRUE(first.Reload().ok());
  EXPECT_TRUE(first.Add(Key("192.0.2.1", 80)));
  EXPECT_TRUE(first.Add(Key("2001:db8::1", 443)));
  EXPECT_FALSE(first.Add(Key("192.0.2.1", 80)));
  ASSERT_TRUE(first.Save().ok());

  SeenList second(dir.Path("seen"));
  ASSERT_TRUE(second.Reload().ok());
  EXPECT_TRUE(second.Contains(Key("192.0.2.1", 80)));
  EXPECT_TRUE(second.Contains(Key("2001:db8::1", 443)));
  EXPECT_FALSE(second.Contains(Key("192.0.2.1", 81)));
}

TEST(SeenListTest, ForgetsWhatAnOperatorTookOut) {
  const testing::TempDir dir;
  SeenList list(dir.Path("seen"));
  list.Add(Key("192.0.2.1", 80));
  list.Add(Key("192.0.2.2", 80));
  ASSERT_TRUE(list.Save().ok());
  dir.Write("seen", "192.0.2.2:80\n");
  // Something new is seen before the list is read again: the line stays out.
  list.Add(Key("192.0.2.3", 80));
  ASSERT_TRUE(list.Save().ok());
  ASSERT_TRUE(list.Reload().ok());
  EXPECT_FALSE(list.Contains(Key("192.0.2.1", 80)));
  EXPECT_TRUE(list.Contains(Key("192.0.2.2", 80)));
  EXPECT_TRUE(list.Contains(Key("192.0.2.3", 80)));
}

TEST(SeenListTest, ForgetsOneOrAllOnAnOperatorsWordHereAndInTheFile) {
  const testing::TempDir dir;
  SeenList list(dir.Path("seen"));
  for (const uint16_t port : std::vector<uint16_t>{80, 81, 82}) {
    list.Add(Key("192.0.2.7", port));
  }
  ASSERT_TRUE(list.Save().ok());
  list.Add(Key("192.0.2.7", 83));  // not written yet
  EXPECT_TRUE(absl::IsNotFound(list.Forget(Key("192.0.2.7", 79))));
  EXPECT_TRUE(list.Forget(Key("192.0.2.7", 81)).ok());
  EXPECT_TRUE(list.Forget(Key("192.0.2.7", 83)).ok());
  ASSERT_TRUE(list.Save().ok());
  SeenList again(dir.Path("seen"));
  ASSERT_TRUE(again.Reload().ok());
  EXPECT_EQ(again.keys(),
            (absl::flat_hash_set<SeenKey>{Key("192.0.2.7", 80), Key("192.0.2.7", 82)}));
  EXPECT_TRUE(again.ForgetAll().ok());
  EXPECT_EQ(again.size(), 0U);
  ASSERT_TRUE(list.Reload().ok());
  EXPECT_EQ(list.size(), 0U);
}

TEST(SeenListTest, ReadsADestinationAsItWritesIt) {
  for (const std::string_view text :
       {"192.0.2.7:80", "192.0.2.7:0", "[2001:db8::7]:443", "db.example.org:5432"}) {
    const auto key = SeenList::ParseKey(text);
    ASSERT_TRUE(key.has_value()) << text;
    EXPECT_EQ(key->ToString(), text);
  }
  for (const std::string_view text :
       {"192.0.2.7", "db", "db:0", "[db]:80", "db:http", "192.0.2.7.9:80", "db:80:80", "d b:80",
        "*.example.org:80", "192.0.2.7:http", ":80", "", "2001:db8::7:443", "[192.0.2.7]:80",
        "192.0.2.7:080"}) {
    EXPECT_FALSE(SeenList::ParseKey(text).has_value()) << text;
  }
}

TEST(SeenListTest, RemembersNamesBesideTheAddressesOfAnOlderFile) {
  const testing::TempDir dir;
  SeenList first(dir.Write("seen", "# of a release without names\n192.0.2.1:80\n"));
  ASSERT_TRUE(first.Reload().ok());
  const NameKey db{"db.example.org", 5432};
  EXPECT_TRUE(first.Add(db));
  EXPECT_FALSE(first.Add(db));
  ASSERT_TRUE(first.Save().ok());

  SeenList second(dir.Path("seen"));
  ASSERT_TRUE(second.Reload().ok());
  EXPECT_EQ(second.keys(), (absl::flat_hash_set<SeenKey>{Key("192.0.2.1", 80), db}));
  EXPECT_FALSE(second.Contains(NameKey{"db.example.org", 5433}));
  EXPECT_TRUE(absl::IsNotFound(second.Forget(NameKey{"example.org", 5432})));
  ASSERT_TRUE(second.Forget(*SeenList::ParseKey("DB.Example.org.:5432")).ok());

  ASSERT_TRUE(first.Reload().ok());
  EXPECT_EQ(first.keys(), (absl::flat_hash_set<SeenKey>{Key("192.0.2.1", 80)}));
}

TEST(SeenListTest, NamesLeaveRoomForAddresses) {
  SeenList list("");
  for (size_t i = 0; i < SeenList::kMostNames; ++i) {
    ASSERT_TRUE(list.Add(NameKey{"n" + std::to_string(i) + ".test", 80}));
  }
  EXPECT_FALSE(list.Add(NameKey{"more.test", 80}));
  EXPECT_TRUE(list.Add(Key("192.0.2.1", 80)));
  ASSERT_TRUE(list.Forget(NameKey{"n0.test", 80}).ok());
  EXPECT_TRUE(list.Add(NameKey{"more.test", 80}));
  EXPECT_EQ(list.size(), SeenList::kMostNames + 1);
}

TEST(SeenListTest, PassesOverLinesThatAreNoDestination) {
  const testing::TempDir dir;
  SeenList list(
      dir.Write("seen", "# why\r\nho st:80\n192.0.2.1:80\r\n192.0.2.2:99999\n[::1]:x\n\n"));
  ASSERT_TRUE(list.Reload().ok());
  EXPECT_EQ(list.size(), 1U);
  EXPECT_TRUE(list.Contains(Key("192.0.2.1", 80)));
}

// As somebody may have written them by hand: an older release took them, so they still protect.
TEST(SeenListTest, KeepsWhatAnOlderReleaseTookForADestination) {
  const testing::TempDir dir;
  SeenList list(dir.Write(
      "seen", "2001:db8::7:443\n[192.0.2.7]:80\n192.0.2.8:0080\nDB.test:05432\n192.0.2.9:00\n"));
  ASSERT_TRUE(list.Reload().ok());
  EXPECT_EQ(list.keys(), (absl::flat_hash_set<SeenKey>{
                             Key("2001:db8::7", 443), Key("192.0.2.7", 80), Key("192.0.2.8", 80),
                             NameKey{"db.test", 5432}, Key("192.0.2.9", 0)}));
  ASSERT_TRUE(list.Forget(Key("2001:db8::7", 443)).ok());
  SeenList again(dir.Path("seen"));
  ASSERT_TRUE(again.Reload().ok());
  EXPECT_EQ(again.keys(), list.keys());
}

// A word about one destination is none about a line that cannot be read; all are all.
TEST(SeenListTest, ForgetsNoLineThatItCannotRead) {
  const testing::TempDir dir;
  const std::string unread = "192.0.2.2-192.0.2.9:80\n:\nx\n";
  SeenList list(dir.Write("seen", "192.0.2.1:80\n" + unread));
  ASSERT_TRUE(list.Reload().ok());
  ASSERT_TRUE(list.Forget(Key("192.0.2.1", 80)).ok());
  const auto kept = base::ReadFile(dir.Path("seen"));
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_TRUE(kept->ends_with(unread)) << *kept;
  ASSERT_TRUE(list.ForgetAll().ok());
  EXPECT_EQ(base::ReadFile(dir.Path("seen"))->find("192.0.2.2"), std::string::npos);
}

TEST(SeenListTest, KeepsTheOldListWhenTheFileCannotBeRead) {
  const testing::TempDir dir;
  SeenList list(dir.Path("seen"));
  list.Add(Key("192.0.2.1", 80));
  ASSERT_TRUE(list.Save().ok());
  unlink(dir.Path("seen").c_str());
  ASSERT_EQ(mkdir(dir.Path("seen").c_str(), 0700), 0);
  EXPECT_FALSE(list.Reload().ok());
  EXPECT_TRUE(list.Contains(Key("192.0.2.1", 80)));
}

}  // namespace
}  // namespace postern::identity
