// SPDX-License-Identifier: Apache-2.0
#include "control/ca/key_files.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/key.h"

namespace postern::ca {
namespace {

constexpr std::string_view kEnding = ".pem";
constexpr std::string_view kPreliminary = ".pem.new";

absl::Status FileError(const std::string& path, int error) {
  return absl::UnavailableError(base::StrCat(path, ": ", std::strerror(error)));
}

absl::StatusOr<std::vector<std::string>> NamesEndingWith(const std::string& directory,
                                                         std::string_view ending) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator files(directory, error);
  for (; !error && files != std::filesystem::directory_iterator(); files.increment(error)) {
    std::string name = files->path().filename().string();
    if (std::string_view(name).ends_with(ending)) {
      names.push_back(std::move(name));
    }
  }
  if (error) {
    return FileError(directory, error.value());
  }
  return names;
}

}  // namespace

KeyFiles::KeyFiles(std::string directory, int fd) : directory_(std::move(directory)), fd_(fd) {}

KeyFiles::KeyFiles(KeyFiles&& other) noexcept
    : directory_(std::move(other.directory_)), fd_(std::exchange(other.fd_, -1)) {}

KeyFiles::~KeyFiles() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

absl::StatusOr<KeyFiles> KeyFiles::Open(const std::string& state_dir) {
  const std::string directory = base::StrCat(state_dir, "/keys");
  if (absl::Status status = base::EnsurePrivateDirectory(directory); !status.ok()) {
    return status;
  }
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return FileError(directory, errno);
  }
  KeyFiles files(directory, fd);
  int locked = flock(fd, LOCK_EX);
  while (locked != 0 && errno == EINTR) {
    locked = flock(fd, LOCK_EX);
  }
  if (locked != 0) {
    return FileError(directory, errno);
  }
  return files;
}

std::string KeyFiles::FileName(store::CaRole role, std::string_view id) {
  return base::StrCat(role == store::CaRole::kRoot ? "root-" : "intermediate-", id.substr(0, 16),
                      kEnding);
}

absl::StatusOr<bool> KeyFiles::HasKeys() const {
  const absl::StatusOr<std::vector<std::string>> names = NamesEndingWith(directory_, kEnding);
  if (!names.ok()) {
    return names.status();
  }
  return !names->empty();
}

bool KeyFiles::HasKey(const std::string& name) const {
  return faccessat(fd_, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

absl::Status KeyFiles::Write(const std::string& name, EVP_PKEY* key) const {
  absl::StatusOr<std::string> pem = x509::PrivateKeyToPem(key);
  if (!pem.ok()) {
    return pem.status();
  }
  absl::Status status =
      base::WriteFileAtomically(base::StrCat(directory_, "/", name, ".new"), *pem, 0600);
  OPENSSL_cleanse(pem->data(), pem->size());
  return status;
}

absl::Status KeyFiles::Adopt(const std::string& name) const {
  const std::string preliminary = name + ".new";
  if (renameat(fd_, preliminary.c_str(), fd_, name.c_str()) != 0) {
    return errno == ENOENT ? absl::OkStatus() : FileError(directory_ + "/" + name, errno);
  }
  return fsync(fd_) == 0 ? absl::OkStatus() : FileError(directory_, errno);
}

absl::Status KeyFiles::SetAside(const std::string& name) const {
  const std::string preliminary = name + ".new";
  if (renameat(fd_, name.c_str(), fd_, preliminary.c_str()) != 0) {
    return errno == ENOENT ? absl::OkStatus() : FileError(directory_ + "/" + name, errno);
  }
  return fsync(fd_) == 0 ? absl::OkStatus() : FileError(directory_, errno);
}

absl::Status KeyFiles::Discard() const {
  const absl::StatusOr<std::vector<std::string>> names = NamesEndingWith(directory_, kPreliminary);
  if (!names.ok()) {
    return names.status();
  }
  for (const std::string& name : *names) {
    if (unlinkat(fd_, name.c_str(), 0) != 0 && errno != ENOENT) {
      return FileError(directory_ + "/" + name, errno);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<x509::PkeyPtr> KeyFiles::Read(const std::string& name) const {
  absl::StatusOr<std::string> pem = base::ReadSecretFile(base::StrCat(directory_, "/", name));
  if (!pem.ok()) {
    return pem.status();
  }
  absl::StatusOr<x509::PkeyPtr> key = x509::PrivateKeyFromPem(*pem);
  OPENSSL_cleanse(pem->data(), pem->size());
  return key;
}

}  // namespace postern::ca
