// SPDX-License-Identifier: Apache-2.0
// What the store does on a real disk: locks, damage, crashes, migrations.
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "control/store/schema.h"
#include "control/store/store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"

namespace postern::store {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

x509::TrustDomain ExampleOrg() {
  return *x509::TrustDomain::Parse("example.org");
}
x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}

class SqliteFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Store>> Open() {
    return OpenSqliteStore(dir_.path(), ExampleOrg(), clock_);
  }
  IssuedCertificate Certificate(std::string serial) {
    return IssuedCertificate{.serial = std::move(serial),
                             .spiffe_id = Id("/a"),
                             .not_after = clock_.Now() + absl::Hours(1)};
  }
  // Makes a store with a few pages of rows, and closes it.
  void Fill() {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE((*store)->certificates().Append(Certificate(std::to_string(i))).ok());
    }
  }
  std::string DatabasePath() const { return dir_.Path(kDatabaseFile); }

  postern::testing::TempDir dir_;
  fakes::FakeClock clock_;
};

// Runs `work` in a child; its return value is the exit status. Returns what waitpid gives.
template <typename Work>
int InChild(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    _exit(work());
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST_F(SqliteFileTest, KeepsEverythingOverARestart) {
  std::string id;
  uint64_t epoch = 0;
  {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    const auto entry =
        (*store)->entries().CreateEntry(Entry{.spiffe_id = Id("/a"), .selectors = {"unix:uid:1"}});
    ASSERT_TRUE(entry.ok());
    id = entry->id;
    epoch = (*store)->epoch();
    ASSERT_TRUE((*store)->policy().PutPolicy({{.name = "p", .yaml = "y"}}).ok());
  }
  clock_.Advance(absl::Hours(1));
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE((*store)->entries().GetEntry(id).ok());
  EXPECT_EQ((*store)->epoch(), epoch);
  EXPECT_THAT((*store)->policy().GetPolicy()->documents, SizeIs(1));
}

TEST_F(SqliteFileTest, RefusesATokenThatWasUsedBeforeTheRestart) {
  base::Sha256Digest digest{};
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(
        (*store)
            ->tokens()
            .CreateToken(digest, Entry{.spiffe_id = Id("/a")}, clock_.Now() + absl::Minutes(10))
            .ok());
    ASSERT_TRUE((*store)->tokens().UseToken(digest, clock_.Now()).ok());
  }
  auto store = Open();
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE(absl::IsNotFound((*store)->tokens().UseToken(digest, clock_.Now()).status()));
}

TEST_F(SqliteFileTest, LetsNobodyElseReadItsFiles) {
  const mode_t old = umask(0);
  auto store = Open();
  umask(old);
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->Probe().ok());
  for (const auto& file : std::filesystem::directory_iterator(dir_.path())) {
    struct stat facts {};
    ASSERT_EQ(stat(file.path().c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 077, 0U) << file.path();
  }
}

TEST_F(SqliteFileTest, RefusesASecondIssuerOnOneStateDirectory) {
  auto first = Open();
  ASSERT_TRUE(first.ok());
  auto second = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(base::StrCat("another issuer (pid ", getpid(), ")")));
  const int in_other_process =
      InChild([this] { return absl::IsFailedPrecondition(Open().status()) ? 0 : 1; });
  EXPECT_EQ(in_other_process, 0);
  first->reset();
  EXPECT_TRUE(Open().ok()) << "the lock outlived its store";
}

TEST_F(SqliteFileTest, RefusesTheStoreOfAnotherTrustDomain) {
  ASSERT_TRUE(Open().ok());
  auto other = OpenSqliteStore(dir_.path(), *x509::TrustDomain::Parse("other.org"), clock_);
  EXPECT_TRUE(absl::IsFailedPrecondition(other.status()));
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("--trust-domain"));
}

TEST_F(SqliteFileTest, RefusesAMissingDirectoryASymlinkAndAReadableFile) {
  EXPECT_FALSE(OpenSqliteStore(dir_.Path("none"), ExampleOrg(), clock_).ok());
  dir_.Write("target", "");
  ASSERT_EQ(symlink(dir_.Path("target").c_str(), DatabasePath().c_str()), 0);
  EXPECT_FALSE(Open().ok());
  ASSERT_EQ(unlink(DatabasePath().c_str()), 0);
  dir_.Write(kDatabaseFile, "", 0644);
  ASSERT_EQ(chmod(DatabasePath().c_str(), 0644), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(Open().status()));
}

TEST_F(SqliteFileTest, SaysSoWhenItMayNotWriteTheDirectory) {
  ASSERT_EQ(chmod(dir_.path().c_str(), 0555), 0);
  const int status = InChild([this] {
    // Root writes anywhere: be somebody else.
    if (geteuid() == 0 &&
        (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
      return 2;
    }
    return absl::IsPermissionDenied(Open().status()) ? 0 : 1;
  });
  ASSERT_EQ(chmod(dir_.path().c_str(), 0700), 0);
  EXPECT_EQ(status, 0);
}

TEST_F(SqliteFileTest, AFullDiskIsAnErrorAndLosesNothingThatWasAcknowledged) {
  // A limit on the size of files stands for the full disk, in a child, as it cannot be lifted
  // again.
  const int status = InChild([this] {
    auto store = Open();
    if (!store.ok()) {
      return 2;
    }
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 400000, .rlim_max = 400000};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
      return 3;
    }
    int acknowledged = 0;
    absl::Status failed;
    for (int i = 0; i < 5000 && failed.ok(); ++i) {
      failed = (*store)->certificates().Append(Certificate(std::to_string(i)));
      acknowledged += failed.ok() ? 1 : 0;
    }
    if (!absl::IsUnavailable(failed) || (*store)->error_count() == 0) {
      return 4;
    }
    for (int i = 0; i < acknowledged; ++i) {
      if (!(*store)->certificates().FindBySerial(std::to_string(i)).ok()) {
        return 5;
      }
    }
    return *(*store)->certificates().CountIssued() == static_cast<uint64_t>(acknowledged) ? 0 : 6;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE((*store)->certificates().FindBySerial("0").ok());
  EXPECT_TRUE((*store)->Probe().ok()) << "with space again, it must go on";
}

TEST_F(SqliteFileTest, NoPageThatIsDamagedCrashesItOrIsTakenForSound) {
  Fill();
  const std::string whole = *base::ReadFile(DatabasePath());
  ASSERT_GT(whole.size(), 16384U);
  int refused = 0;
  for (size_t page = 0; page * 4096 < whole.size(); ++page) {
    std::string damaged = whole;
    std::fill_n(damaged.begin() + static_cast<std::ptrdiff_t>(page * 4096), 512, '\xa5');
    dir_.Write(kDatabaseFile, damaged);
    auto store = Open();
    if (!store.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(store.status())) << page << ": " << store.status();
      EXPECT_THAT(std::string(store.status().message()), HasSubstr("restore a backup"));
      ++refused;
    }
  }
  EXPECT_GT(refused, 4);
}

TEST_F(SqliteFileTest, ATruncatedDatabaseIsRefused) {
  Fill();
  const std::string whole = *base::ReadFile(DatabasePath());
  for (size_t size = 100; size + 1 < whole.size(); size += 5000) {
    dir_.Write(kDatabaseFile, whole.substr(0, size));
    EXPECT_TRUE(absl::IsDataLoss(Open().status())) << size << ": " << Open().status();
  }
}

TEST_F(SqliteFileTest, DamageWhileRunningIsAStatusAndNotACrash) {
  Fill();
  auto store = Open();
  ASSERT_TRUE(store.ok());
  const auto size = std::filesystem::file_size(DatabasePath());
  {
    std::fstream file(DatabasePath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(static_cast<size_t>(size) - 4096, '\xa5');
  }
  absl::Status seen;
  for (int i = 0; i < 200 && seen.ok(); ++i) {
    seen = (*store)->certificates().FindBySerial(std::to_string(i)).status();
  }
  EXPECT_TRUE(absl::IsDataLoss(seen)) << seen;
  EXPECT_FALSE((*store)->certificates().Append(Certificate("new")).ok());
  EXPECT_GT((*store)->error_count(), 0U);
}

// SQLite itself goes on writing into a file that has no name any more, and says that all is well.
TEST_F(SqliteFileTest, AFileThatIsGoneOrReplacedIsNotWrittenToAsIfItWereThere) {
  for (const char* suffix : {"", "-wal"}) {
    for (const bool replace : {false, true}) {
      const std::string file = DatabasePath() + suffix;
      auto store = Open();
      ASSERT_TRUE(store.ok()) << store.status();
      ASSERT_TRUE((*store)->Probe().ok());
      if (replace) {
        std::filesystem::copy_file(file, file + ".copy");
        std::filesystem::rename(file + ".copy", file);
      } else {
        std::filesystem::remove(file);
      }
      const std::string name = std::string(suffix) + (replace ? " replaced" : " removed");
      const absl::Status refused = (*store)->certificates().Append(Certificate("new"));
      EXPECT_TRUE(absl::IsDataLoss(refused)) << name << ": " << refused;
      EXPECT_THAT(std::string(refused.message()), HasSubstr(file)) << name;
      EXPECT_TRUE(absl::IsDataLoss((*store)->Probe())) << name;
      EXPECT_GT((*store)->error_count(), 0U) << name;
      (*store).reset();
      for (const char* left : {"", "-wal", "-shm"}) {
        std::filesystem::remove(DatabasePath() + left);
      }
    }
  }
}

TEST_F(SqliteFileTest, WhatWasAcknowledgedSurvivesKillMinusNine) {
  int next = 0;
  int acknowledged = 0;
  for (int round = 0; round < 20; ++round) {
    std::array<int, 2> pipe_fds{};
    ASSERT_EQ(pipe(pipe_fds.data()), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto store = Open();
      if (!store.ok()) {
        _exit(1);
      }
      for (int serial = next;; ++serial) {
        if (!(*store)->certificates().Append(Certificate(std::to_string(serial))).ok() ||
            write(pipe_fds[1], &serial, sizeof(serial)) != sizeof(serial)) {
          _exit(1);
        }
      }
    }
    close(pipe_fds[1]);
    // Killed in the middle of its work, after another number of writes in each round.
    for (int i = 0; i < 5 + 7 * round; ++i) {
      int serial = -1;
      ASSERT_EQ(read(pipe_fds[0], &serial, sizeof(serial)), static_cast<ssize_t>(sizeof(serial)));
      acknowledged = serial;
    }
    kill(child, SIGKILL);
    int serial = -1;
    while (read(pipe_fds[0], &serial, sizeof(serial)) == static_cast<ssize_t>(sizeof(serial))) {
      acknowledged = serial;
    }
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));

    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    for (int i = 0; i <= acknowledged; ++i) {
      ASSERT_TRUE((*store)->certificates().FindBySerial(std::to_string(i)).ok())
          << "round " << round << ": acknowledged, and lost: " << i;
    }
    next = acknowledged + 2;  // the one after may have been stored without its answer
    acknowledged = next - 1;
    ASSERT_TRUE((*store)->certificates().Append(Certificate(std::to_string(acknowledged))).ok() ||
                (*store)->certificates().FindBySerial(std::to_string(acknowledged)).ok());
  }
}

TEST_F(SqliteFileTest, MigratesForwardAfterABackupCopy) {
  const std::array<const char*, 1> old_steps = {"CREATE TABLE a (x); INSERT INTO a VALUES (1);"};
  const std::array<const char*, 2> new_steps = {old_steps[0], "ALTER TABLE a ADD COLUMN y"};
  const std::string path = dir_.Write("m.db", "");
  auto connection = Connection::Open(path, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(connection.ok());
  ASSERT_TRUE(Migrate(**connection, old_steps, path, clock_.Now()).ok());
  ASSERT_TRUE(Migrate(**connection, old_steps, path, clock_.Now()).ok()) << "again: nothing to do";
  EXPECT_EQ(*(*connection)->Ask("PRAGMA user_version"), "1");
  ASSERT_TRUE(Migrate(**connection, new_steps, path, clock_.Now()).ok());
  EXPECT_EQ(*(*connection)->Ask("PRAGMA user_version"), "2");
  EXPECT_EQ(*(*connection)->Ask("SELECT count(y) FROM a"), "0");

  const std::string copy = base::StrCat(path, ".v1.", absl::ToUnixSeconds(clock_.Now()), ".bak");
  auto backup = Connection::Open(copy, SQLITE_OPEN_READONLY);
  ASSERT_TRUE(backup.ok()) << backup.status();
  EXPECT_EQ(*(*backup)->Ask("PRAGMA user_version"), "1");
  EXPECT_EQ(*(*backup)->Ask("SELECT x FROM a"), "1");

  const absl::Status back = Migrate(**connection, old_steps, path, clock_.Now());
  EXPECT_TRUE(absl::IsFailedPrecondition(back)) << "never backward: " << back;
}

TEST_F(SqliteFileTest, AMigrationThatFailsLeavesTheOldSchema) {
  const std::array<const char*, 1> old_steps = {"CREATE TABLE a (x)"};
  const std::array<const char*, 2> broken = {old_steps[0],
                                             "CREATE TABLE b (x); ALTER TABLE none ADD COLUMN y"};
  const std::string path = dir_.Write("m.db", "");
  auto connection = Connection::Open(path, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(Migrate(**connection, old_steps, path, clock_.Now()).ok());
  EXPECT_FALSE(Migrate(**connection, broken, path, clock_.Now()).ok());
  EXPECT_EQ(*(*connection)->Ask("PRAGMA user_version"), "1");
  EXPECT_EQ(*(*connection)->Ask("SELECT count(*) FROM sqlite_master WHERE name = 'b'"), "0");
}

TEST_F(SqliteFileTest, EntriesOfTheReleaseBeforeHaveNoServices) {
  const std::string path = dir_.Write("old.db", "");
  auto connection = Connection::Open(path, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(Migrate(**connection, Migrations().first(4), path, clock_.Now()).ok());
  ASSERT_TRUE((*connection)
                  ->Execute("INSERT INTO entries (id, spiffe_id, selectors, selector_count, "
                            "addresses, publish_source, ports, svid_ttl_ms, created_at) VALUES "
                            "('1', 'spiffe://example.org/web', 'unix:uid:1', 1, '', 0, '', 0, 0)")
                  .ok());
  ASSERT_TRUE(Migrate(**connection, Migrations(), path, clock_.Now()).ok());
  EXPECT_EQ(*(*connection)->Ask("SELECT spiffe_id || services FROM entries"),
            "spiffe://example.org/web");
}

}  // namespace
}  // namespace postern::store
