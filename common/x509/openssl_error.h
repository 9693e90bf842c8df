// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/err.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postern::x509 {

// OpenSSL keeps a queue of errors for each thread, and SSL_get_error misreads what an earlier call
// left there. Every function of this module that calls OpenSSL holds one of these: the queue is
// empty when it begins and when it returns.
class ErrorQueueGuard {
 public:
  ErrorQueueGuard() { Empty(); }
  ~ErrorQueueGuard() { Empty(); }
  ErrorQueueGuard(const ErrorQueueGuard&) = delete;
  ErrorQueueGuard& operator=(const ErrorQueueGuard&) = delete;

 private:
  // Wiping the queue's sixteen places costs four times a look at it.
  static void Empty() {
    if (ERR_peek_error() != 0) {
      ERR_clear_error();
    }
  }
};

// OpenSSL's reason for the last failed call, printable; "no reason given" if the queue is empty.
// Empties the queue.
std::string TakeOpensslReason();

// Internal: "<what>: <OpenSSL's reason>".
absl::Status OpensslFailure(std::string_view what);

}  // namespace postern::x509
