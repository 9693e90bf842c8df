// SPDX-License-Identifier: Apache-2.0
// A disk that becomes read-only under an open store, and writable again: by the system calls that
// SQLite lets be replaced, for a file system refuses to change while files are open for writing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cerrno>
#include <memory>
#include <string>

#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::store {
namespace {

using ::testing::SizeIs;

constexpr const char* kWriting[] = {"write", "pwrite", "pwrite64", "ftruncate", "fallocate"};

int FailReadOnly() {
  errno = EROFS;
  return -1;
}

// While it lives, whatever SQLite writes fails as on a read-only file system.
class ReadOnlyDisk {
 public:
  ReadOnlyDisk() { Replace(reinterpret_cast<sqlite3_syscall_ptr>(&FailReadOnly)); }
  ~ReadOnlyDisk() { Replace(nullptr); }
  ReadOnlyDisk(const ReadOnlyDisk&) = delete;
  ReadOnlyDisk& operator=(const ReadOnlyDisk&) = delete;

 private:
  static void Replace(sqlite3_syscall_ptr call) {
    sqlite3_vfs* const files = sqlite3_vfs_find(nullptr);
    for (const char* name : kWriting) {
      EXPECT_EQ(files->xSetSystemCall(files, name, call), SQLITE_OK) << name;
    }
  }
};

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}

TEST(ReadOnlyDiskTest, IsRefusedForAndRecoveredFromWithoutARestart) {
  const postern::testing::TempDir dir;
  const fakes::FakeClock clock;
  auto store = OpenSqliteStore(dir.path(), ExampleOrg(), clock);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto append = [&](const std::string& serial) {
    return (*store)->certificates().Append(
        IssuedCertificate{.serial = serial,
                          .spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/a"),
                          .not_after = clock.Now() + absl::Hours(1)});
  };
  const auto revoke = [&](const std::string& serial) {
    return (*store)
        ->revocations()
        .Revoke({.by = x509::RevokedBy::kSerial, .subject = serial, .reason = "stolen"})
        .status();
  };
  ASSERT_TRUE(append("01").ok());
  ASSERT_TRUE(revoke("a1").ok());
  const Entry web{.spiffe_id = *x509::SpiffeId::Parse("spiffe://example.org/web"),
                  .selectors = {"unix:uid:1"}};
  {
    const ReadOnlyDisk disk;
    const uint64_t errors = (*store)->error_count();
    for (const absl::Status& refused :
         {append("02"), revoke("a2"), (*store)->revocations().Lift(2).status(),
          (*store)->entries().CreateEntry(web).status(), (*store)->Probe()}) {
      EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
      EXPECT_FALSE(refused.message().empty());
    }
    EXPECT_EQ((*store)->error_count(), errors + 5);
    EXPECT_THAT((*store)->revocations().ListRevocations()->revocations, SizeIs(1)) << "it is read";
    EXPECT_TRUE((*store)->certificates().FindBySerial("01").ok());
  }
  EXPECT_TRUE((*store)->Probe().ok());
  EXPECT_TRUE(append("02").ok());
  EXPECT_TRUE(revoke("a2").ok());
  EXPECT_TRUE((*store)->entries().CreateEntry(web).ok());
  store->reset();
  store = OpenSqliteStore(dir.path(), ExampleOrg(), clock);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(*(*store)->certificates().CountIssued(), 2U);
  EXPECT_THAT((*store)->revocations().ListRevocations()->revocations, SizeIs(2));
  EXPECT_THAT(*(*store)->entries().ListEntries(), SizeIs(1));
}

}  // namespace
}  // namespace postern::store
