// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/crl_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "common/x509/certificate.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_ca.h"
#include "tests/testing/test_crl.h"

namespace postern::identity {
namespace {

using testing::CrlDer;
using testing::CrlPem;
using testing::CrlSpec;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeCrl;
using ::testing::SizeIs;
using testing::TestCa;

class CrlFilesTest : public ::testing::Test {
 protected:
  std::string Pem(const CrlSpec& spec) const { return CrlPem(MakeCrl(root_, spec).get()); }
  std::unique_ptr<CrlFiles> Make(std::vector<std::string> paths) {
    auto files = std::make_unique<CrlFiles>(clock_, std::move(paths));
    EXPECT_TRUE(files->LoadFirst().ok());
    files->SetTrust(std::make_shared<const x509::TrustBundleSet>(root_.BundleSet()), nullptr);
    return files;
  }
  // Looks again, as after a minute.
  bool Look(CrlFiles& files) {
    clock_.Advance(absl::Minutes(1));
    return files.Poll();
  }

  fakes::FakeClock clock_{absl::Now()};
  const testing::TempDir dir_;
  const TestCa root_;
  const TestCa team_ = root_.Intermediate();  // of which only the root is in the bundle
};

TEST_F(CrlFilesTest, AFileIsReadAgainWhenItChanges) {
  const std::string path = dir_.Write("ca.crl", Pem({.serials = {"01"}}));
  const auto files = Make({path});
  ASSERT_THAT(files->verified(), SizeIs(1));
  EXPECT_THAT(files->verified()[0]->revoked, SizeIs(1));
  EXPECT_FALSE(Look(*files)) << "nothing has changed";
  dir_.Write("ca.crl", Pem({.serials = {"01", "02"}}));
  EXPECT_TRUE(Look(*files));
  EXPECT_THAT(files->verified()[0]->revoked, SizeIs(2));
  EXPECT_EQ(files->failures(), 0U);
}

TEST_F(CrlFilesTest, ADirectoryHoldsCrlsAndTheCertificatesOfTheirCas) {
  ASSERT_EQ(mkdir(dir_.Path("crls").c_str(), 0700), 0);
  dir_.Write("crls/root.crl", CrlDer(MakeCrl(root_, {}).get()));
  dir_.Write("crls/team.crl", CrlPem(MakeCrl(team_, {.serials = {"07"}}).get()));
  dir_.Write("crls/team.pem", x509::CertificateToPem(team_.certificate()));
  dir_.Write("crls/.hidden", "no CRL");
  const auto files = Make({dir_.Path("crls")});
  EXPECT_THAT(files->verified(), SizeIs(2));
  EXPECT_EQ(files->error(), "");
  ASSERT_EQ(unlink(dir_.Path("crls/root.crl").c_str()), 0);
  EXPECT_TRUE(Look(*files));
  EXPECT_THAT(files->verified(), SizeIs(1)) << "what is gone is withdrawn";
}

TEST_F(CrlFilesTest, ACrlOfAnUnknownCaIsNotUsedAndSaidLoudly) {
  const auto files = Make({dir_.Write("team.crl", CrlPem(MakeCrl(team_, {}).get()))});
  EXPECT_THAT(files->verified(), IsEmpty());
  EXPECT_THAT(files->error(), HasSubstr("put its certificate beside the CRL"));
  EXPECT_EQ(files->failures(), 1U);
  EXPECT_FALSE(Look(*files));
  EXPECT_EQ(files->failures(), 1U) << "said once";
}

TEST_F(CrlFilesTest, DamageAForeignSignatureAndARollbackLeaveTheLastGoodOne) {
  const absl::Time now = absl::Now();
  const std::string path =
      dir_.Write("ca.crl", Pem({.serials = {"01"}, .this_update = now - absl::Minutes(5)}));
  const auto files = Make({path});
  const auto good = files->verified();
  ASSERT_THAT(good, SizeIs(1));
  uint64_t failures = 0;
  const TestCa impostor;
  for (const std::string& bad : {std::string("-----BEGIN X509 CRL-----\nMII"),
                                 CrlPem(MakeCrl(root_, {}, impostor.key()).get()),
                                 Pem({.this_update = now - absl::Minutes(10)})}) {
    dir_.Write("ca.crl", bad);
    EXPECT_FALSE(Look(*files));
    EXPECT_EQ(files->verified(), good);
    EXPECT_EQ(files->failures(), ++failures);
    EXPECT_NE(files->error(), "");
  }
  dir_.Write("ca.crl", Pem({.this_update = now}));
  EXPECT_TRUE(Look(*files));
  EXPECT_EQ(files->error(), "");
  EXPECT_THAT(files->verified()[0]->revoked, IsEmpty());
}

TEST_F(CrlFilesTest, ACrlPastItsNextUpdateIsCounted) {
  const auto files =
      Make({dir_.Write("ca.crl", Pem({.next_update = clock_.Now() + absl::Minutes(30)}))});
  EXPECT_EQ(files->stale(), 0U);
  clock_.Advance(absl::Hours(1));
  EXPECT_FALSE(files->Poll());
  EXPECT_EQ(files->stale(), 1U);
  EXPECT_THAT(files->verified(), SizeIs(1)) << "what it lists stays revoked";
}

TEST_F(CrlFilesTest, TheFirstReadingNamesTheFile) {
  CrlFiles missing(clock_, {dir_.Path("none.crl")});
  EXPECT_THAT(std::string(missing.LoadFirst().message()), HasSubstr("none.crl"));
  CrlFiles damaged(clock_, {dir_.Write("bad.crl", "nothing")});
  EXPECT_THAT(std::string(damaged.LoadFirst().message()), HasSubstr("bad.crl"));
}

}  // namespace
}  // namespace postern::identity
