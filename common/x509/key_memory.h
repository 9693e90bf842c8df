// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/status/status.h"

namespace postern::x509 {

// Memory for private keys that is never swapped out, left out of core dumps, fenced by guard pages
// and wiped when it is freed (OpenSSL's secure heap). One for the process.
//
// OpenSSL takes from it, without being asked, the private numbers of keys that are made or read,
// the seeds of its random generator and, while a TLS connection is open, the private half of its
// key exchange. When it is full there is no way out into ordinary memory: handshakes and signatures
// fail. So it is sized by the connections that may be open at once.

// The size for so many TLS connections, in bytes: a power of two.
size_t KeyMemorySize(size_t connections);

// Makes it. Call once, before the first key exists and before threads. FailedPrecondition: it is
// there, but the system does not allow to lock so much (RLIMIT_MEMLOCK); Internal: it is not there,
// and keys live in ordinary memory. Both are for a warning that goes on: the message says what
// is lost and the mend.
absl::Status LockKeyMemory(size_t connections);

}  // namespace postern::x509
