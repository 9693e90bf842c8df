// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "common/x509/openssl_ptr.h"

namespace postern::rpc {

// A STACK_OF(X509) that borrows its certificates: freeing it leaves them alone.
struct StackDelete {
  void operator()(STACK_OF(X509) * stack) const noexcept { sk_X509_free(stack); }
};
using BorrowedStack = std::unique_ptr<STACK_OF(X509), StackDelete>;

// Null when memory is short.
inline BorrowedStack MakeBorrowedStack() {
  return BorrowedStack(sk_X509_new_null());
}

// Adds `certificates` from index `first` on. False when memory is short.
inline bool PushBorrowed(STACK_OF(X509) * stack, const std::vector<x509::X509Ptr>& certificates,
                         size_t first = 0) {
  for (size_t i = first; i < certificates.size(); ++i) {
    if (sk_X509_push(stack, certificates[i].get()) == 0) {
      return false;
    }
  }
  return true;
}

}  // namespace postern::rpc
