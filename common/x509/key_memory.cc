// SPDX-License-Identifier: Apache-2.0
#include "common/x509/key_memory.h"

#include <openssl/crypto.h>

#include <bit>

#include "common/base/strings.h"

namespace postern::x509 {
namespace {

// Keys, their text while it is written, random generators (768 bytes), bignums of signatures under
// way: some kilobytes. The keys of earlier renewals go with the last connection that used them.
constexpr size_t kReserve = size_t{128} << 10U;
// Measured on OpenSSL 3.0 and 3.5: 32 for each key share that an end keeps while the connection is
// open; a client that is asked for another one has two.
constexpr size_t kPerConnection = 64;
constexpr size_t kSmallestBlock = 32;

}  // namespace

size_t KeyMemorySize(size_t connections) {
  return std::bit_ceil(kReserve + connections * kPerConnection);
}

absl::Status LockKeyMemory(size_t connections) {
  const size_t size = KeyMemorySize(connections);
  switch (CRYPTO_secure_malloc_init(size, kSmallestBlock)) {
    case 1:
      return absl::OkStatus();
    case 2:
      return absl::FailedPreconditionError(base::StrCat(
          "private keys may be swapped out: ", size,
          " bytes of memory cannot be locked; allow it "
          "(RLIMIT_MEMLOCK: LimitMEMLOCK= of systemd, --ulimit memlock of containers), or encrypt "
          "or switch off swap"));
    default:
      return absl::InternalError(
          base::StrCat("private keys live in ordinary memory: OpenSSL cannot set ", size,
                       " bytes aside for them"));
  }
}

}  // namespace postern::x509
