// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postern::base {

inline constexpr size_t kMaxFileBytes = 4U << 20U;

// The whole content of a regular file. NotFound, PermissionDenied, ResourceExhausted (larger than
// `limit` bytes) or Internal; the message names the path. Blocks: never on a worker loop.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit = kMaxFileBytes);

// ReadFile for keys and tokens: opened with O_NOFOLLOW unless `allow_symlink` (mounted secrets are
// symlinks); PermissionDenied when group or others may read it, or it belongs to neither root nor
// this user.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path, bool allow_symlink = false,
                                           size_t limit = kMaxFileBytes);

// Whether ReadSecretFile would take the file, a symlink refused: the same errors, and nothing read.
absl::Status CheckSecretFile(const std::string& path);

// ReadSecretFile for secrets that an orchestrator mounts: symlinks are followed, and a file of
// root's may also be readable, not writable, by a group that this process is in (Kubernetes'
// fsGroup).
absl::StatusOr<std::string> ReadMountedSecret(const std::string& path,
                                              size_t limit = kMaxFileBytes);

// Replaces `path` so that a crash at any moment leaves the old content or the new: temporary name
// in the same directory, written, fsync, rename, directory fsync.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content, mode_t mode);

// Makes the directory (0700) if it is missing. PermissionDenied when it belongs to another user, or
// group or others may enter it.
absl::Status EnsurePrivateDirectory(const std::string& path);

}  // namespace postern::base
