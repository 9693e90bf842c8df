// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/x509/openssl_ptr.h"
#include "control/store/types.h"

namespace postern::ca {

// The directory of CA keys, <state_dir>/keys: PKCS#8 PEM files, 0600 in a directory of 0700. While
// this lives, no other process or thread makes or adopts keys there. A new CA's keys stand under a
// preliminary name until the store has the CA: so a crash leaves either nothing that counts
// (Discard) or everything (Adopt). Internal to control/ca.
class KeyFiles {
 public:
  // Makes the directory if it is missing and waits for its lock. PermissionDenied: not private.
  static absl::StatusOr<KeyFiles> Open(const std::string& state_dir);

  KeyFiles(KeyFiles&& other) noexcept;
  KeyFiles& operator=(KeyFiles&&) = delete;
  ~KeyFiles();

  // "root-<first 16 digits of the id>.pem"
  static std::string FileName(store::CaRole role, std::string_view id);

  // Whether keys lie here that were adopted.
  absl::StatusOr<bool> HasKeys() const;
  bool HasKey(const std::string& name) const;

  // Writes a key under its preliminary name, synced.
  absl::Status Write(const std::string& name, EVP_PKEY* key) const;
  // Gives a key its name, if it still stands under the preliminary one.
  absl::Status Adopt(const std::string& name) const;
  // The reverse, before the store forgets the CA: a crash in between is mended by Adopt. OK when
  // there is no such key.
  absl::Status SetAside(const std::string& name) const;
  // Deletes what stands under preliminary names: left by a crash before the store had the CA, or of
  // a CA that it has forgotten.
  absl::Status Discard() const;

  // NotFound, PermissionDenied (readable by others) or InvalidArgument (no key).
  absl::StatusOr<x509::PkeyPtr> Read(const std::string& name) const;

  const std::string& directory() const { return directory_; }

 private:
  KeyFiles(std::string directory, int fd);
  std::string directory_;
  int fd_;  // of the directory; holds the lock
};

}  // namespace postern::ca
