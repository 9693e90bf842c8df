// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"

namespace postern::intercept {

// An empty network namespace that the calling thread, and what it starts, is in while this lives;
// then the thread is back in its own. Made and destroyed on one thread.
class ScratchNamespace {
 public:
  // PermissionDenied without CAP_SYS_ADMIN.
  static absl::StatusOr<std::unique_ptr<ScratchNamespace>> Enter();
  ~ScratchNamespace();
  ScratchNamespace(const ScratchNamespace&) = delete;
  ScratchNamespace& operator=(const ScratchNamespace&) = delete;

 private:
  explicit ScratchNamespace(int home) : home_(home) {}
  const int home_;
};

}  // namespace postern::intercept
