// SPDX-License-Identifier: Apache-2.0
#include "common/x509/key_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "common/x509/key.h"

namespace postern::x509 {
namespace {

// The heap is made once in a process, and other tests need theirs without it: each test has a
// child. Returns the child's exit status; -1: it crashed.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    _exit(body());
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// What did not hold, as bits of a child's exit status.
enum Fault : int { kSetUp = 1, kMade = 2, kPkcs8 = 4, kSec1 = 8, kDer = 16, kStays = 32 };

size_t LockedKilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmLck:") {
      size_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes;
    }
  }
  return 0;
}

PkeyPtr FromDer(EVP_PKEY* key) {
  std::array<uint8_t, 512> der{};
  uint8_t* end = der.data();
  const int size = i2d_PrivateKey(key, &end);
  const uint8_t* at = der.data();
  return PkeyPtr(d2i_AutoPrivateKey(nullptr, &at, size));
}

// SEC1, as other tools write it.
std::string Sec1Pem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_secmem()));
  PEM_write_bio_PrivateKey_traditional(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

// Whether `make` gives a key that takes room in the locked memory and gives it back.
bool LivesInside(const std::function<PkeyPtr()>& make) {
  const size_t before = CRYPTO_secure_used();
  PkeyPtr key = make();
  const bool inside = key != nullptr && CRYPTO_secure_used() >= before + 32;
  key.reset();
  return inside && CRYPTO_secure_used() == before;
}

int KeysOutside() {
  std::array<uint8_t, 1> warm{};
  RAND_priv_bytes(warm.data(), 1);  // the generators take their room now
  const PkeyPtr key = GenerateP256Key().value();
  const std::string pkcs8 = PrivateKeyToPem(key.get()).value();
  const std::string sec1 = Sec1Pem(key.get());
  int faults = 0;
  faults |= LivesInside([] { return GenerateP256Key().value(); }) ? 0 : kMade;
  faults |= LivesInside([&] { return PrivateKeyFromPem(pkcs8).value(); }) ? 0 : kPkcs8;
  faults |= LivesInside([&] { return PrivateKeyFromPem(sec1).value(); }) ? 0 : kSec1;
  faults |= LivesInside([&] { return FromDer(key.get()); }) ? 0 : kDer;
  return faults;
}

TEST(KeyMemoryTest, HoldsKeysThatAreMadeAndRead) {
  EXPECT_EQ(InChild([] {
              const absl::Status status = LockKeyMemory(0);
              const bool there = status.ok() || absl::IsFailedPrecondition(status);
              return (there ? 0 : kSetUp) | KeysOutside();
            }),
            0)
      << "bits of enum Fault";
}

TEST(KeyMemoryTest, IsLockedWhereTheSystemAllowsIt) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  if (geteuid() != 0 && limit.rlim_cur < KeyMemorySize(0)) {
    GTEST_SKIP() << "this user may not lock " << KeyMemorySize(0) << " bytes";
  }
  EXPECT_EQ(InChild([] {
              const size_t before = LockedKilobytes();
              const bool ok = LockKeyMemory(0).ok();
              return ok && LockedKilobytes() == before + KeyMemorySize(0) / 1024 ? 0 : kSetUp;
            }),
            0);
}

TEST(KeyMemoryTest, SaysSoAndGoesOnWhereNothingMayBeLocked) {
  EXPECT_EQ(InChild([] {
              const rlimit none{0, 0};
              setrlimit(RLIMIT_MEMLOCK, &none);
              if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) {  // root is not limited
                return int{kSetUp};
              }
              const absl::Status status = LockKeyMemory(0);
              const bool said = absl::IsFailedPrecondition(status) &&
                                status.message().find("LimitMEMLOCK=") != absl::string_view::npos;
              return (said ? 0 : kSetUp) | KeysOutside();
            }),
            0)
      << "bits of enum Fault";
}

// A proxy renews for years: what a key took comes back when its certificate goes.
TEST(KeyMemoryTest, KeysOfManyRenewalsDoNotAddUp) {
  EXPECT_EQ(InChild([] {
              LockKeyMemory(0).IgnoreError();
              PkeyPtr current = GenerateP256Key().value();
              const size_t after_first = CRYPTO_secure_used();
              for (int i = 0; i < 10'000; ++i) {
                current = GenerateP256Key().value();
              }
              return CRYPTO_secure_used() == after_first ? 0 : kStays;
            }),
            0);
}

// OpenSSL has no way out into ordinary memory: that is why the size goes with the connections.
TEST(KeyMemoryTest, IsLargeEnoughForItsConnectionsAndRefusesBeyond) {
  EXPECT_EQ(KeyMemorySize(0), 128U << 10U);
  EXPECT_EQ(KeyMemorySize(1), 256U << 10U);
  EXPECT_EQ(KeyMemorySize(100'000), 8U << 20U);
  EXPECT_EQ(InChild([] {
              LockKeyMemory(2000).IgnoreError();
              std::vector<PkeyPtr> keys;  // as many as 2,000 clients' key shares
              for (int i = 0; i < 4000; ++i) {
                absl::StatusOr<PkeyPtr> key = GenerateP256Key();
                if (!key.ok()) {
                  return int{kMade};
                }
                keys.push_back(*std::move(key));
              }
              bool refused = false;
              for (int i = 0; i < 8192 && !refused; ++i) {
                absl::StatusOr<PkeyPtr> key = GenerateP256Key();
                refused = !key.ok();
                if (key.ok()) {
                  keys.push_back(*std::move(key));
                }
              }
              return refused && ERR_peek_error() == 0 ? 0 : int{kStays};
            }),
            0);
}

}  // namespace
}  // namespace postern::x509
