// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/base/unique_fd.h"

namespace postern::base {
namespace {

absl::Status ErrnoError(int error, std::string_view verb, const std::string& path) {
  const std::string message =
      StrCat("cannot ", verb, " '", Printable(path, 512),
             "': ", std::error_code(error, std::generic_category()).message());
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    default:
      return absl::InternalError(message);
  }
}

// A path with a NUL inside would name another file than the one that the caller shows.
absl::Status CheckPath(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::NotFoundError(StrCat("'", Printable(path, 512), "' is not a file name"));
  }
  return absl::OkStatus();
}

struct OpenedFile {
  UniqueFd fd;
  struct stat facts;
};

absl::StatusOr<OpenedFile> OpenRegular(const std::string& path, int extra_flags) {
  if (absl::Status status = CheckPath(path); !status.ok()) {
    return status;
  }
  // O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for a regular file.
  OpenedFile file{
      UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | extra_flags)), {}};
  if (file.fd.get() < 0) {
    if (errno == ELOOP && (extra_flags & O_NOFOLLOW) != 0) {
      return absl::PermissionDeniedError(
          StrCat("'", Printable(path, 512), "' is a symbolic link; name the file itself"));
    }
    return ErrnoError(errno, "open", path);
  }
  if (fstat(file.fd.get(), &file.facts) != 0) {
    return ErrnoError(errno, "inspect", path);
  }
  if (!S_ISREG(file.facts.st_mode)) {
    return absl::InternalError(StrCat("'", Printable(path, 512), "' is not a regular file"));
  }
  return file;
}

bool IsOwnGroup(gid_t group) {
  if (group == getegid()) {
    return true;
  }
  std::vector<gid_t> groups(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<size_t>(std::max(count, 0)));
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

// `allowed`: the bits of group and others that may be set.
absl::Status CheckSecretFacts(const struct stat& facts, const std::string& path, mode_t allowed) {
  if ((facts.st_mode & (S_IRWXG | S_IRWXO) & ~allowed) != 0) {
    return absl::PermissionDeniedError(StrCat(
        "'", Printable(path, 512), "' may be read or written by group or others; chmod 600 it"));
  }
  if (facts.st_uid != 0 && facts.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        StrCat("'", Printable(path, 512), "' belongs to uid ", facts.st_uid,
               ", neither root nor this user; chown it to uid ", geteuid()));
  }
  return absl::OkStatus();
}

absl::Status TooLarge(const std::string& path, size_t limit) {
  return absl::ResourceExhaustedError(
      StrCat("'", Printable(path, 512), "' is larger than ", limit, " bytes"));
}

absl::StatusOr<std::string> ReadAll(const OpenedFile& file, const std::string& path, size_t limit) {
  const size_t announced = file.facts.st_size > 0 ? static_cast<size_t>(file.facts.st_size) : 0;
  if (announced > limit) {
    return TooLarge(path, limit);
  }
  // One byte more than announced, so that the end is seen without growing. Files of /proc announce
  // nothing, and others may grow meanwhile.
  std::string content(announced == 0 ? size_t{4096} : announced + 1, '\0');
  // It may be a secret: no copy of it stays behind in freed memory.
  absl::Cleanup wipe = [&content] { explicit_bzero(content.data(), content.size()); };
  size_t filled = 0;
  while (true) {
    if (filled == content.size()) {
      std::string larger(content.size() * 2, '\0');
      std::copy(content.begin(), content.end(), larger.begin());
      content.swap(larger);
      explicit_bzero(larger.data(), larger.size());
    }
    const ssize_t got = read(file.fd.get(), content.data() + filled, content.size() - filled);
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoError(errno, "read", path);
    }
    if (got == 0) {
      break;
    }
    filled += static_cast<size_t>(got);
    if (filled > limit) {
      return TooLarge(path, limit);
    }
  }
  std::move(wipe).Cancel();
  content.resize(filled);
  return content;
}

absl::Status WriteAll(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = write(fd, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoError(errno, "write", path);
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

std::string DirectoryOf(const std::string& path) {
  const size_t last = path.find_last_not_of('/');
  const size_t slash = last == std::string::npos ? 0 : path.rfind('/', last);
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status SyncDirectory(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (fd.get() < 0) {
    return ErrnoError(errno, "open", path);
  }
  // EINVAL: a file system that cannot sync a directory has nothing to sync.
  if (fsync(fd.get()) != 0 && errno != EINVAL) {
    return ErrnoError(errno, "sync", path);
  }
  return absl::OkStatus();
}

absl::Status WriteAndSync(UniqueFd& fd, std::string_view content, mode_t mode,
                          const std::string& path) {
  if (absl::Status status = WriteAll(fd.get(), content, path); !status.ok()) {
    return status;
  }
  if (fchmod(fd.get(), mode) != 0) {  // exactly `mode`, whatever the umask
    return ErrnoError(errno, "set the mode of", path);
  }
  if (fsync(fd.get()) != 0) {
    return ErrnoError(errno, "sync", path);
  }
  // close() may be the first to report a failed write (NFS, quotas).
  if (close(fd.Release()) != 0) {
    return ErrnoError(errno, "close", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit) {
  absl::StatusOr<OpenedFile> file = OpenRegular(path, 0);
  if (!file.ok()) {
    return file.status();
  }
  return ReadAll(*file, path, limit);
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path, bool allow_symlink,
                                           size_t limit) {
  absl::StatusOr<OpenedFile> file = OpenRegular(path, allow_symlink ? 0 : O_NOFOLLOW);
  if (!file.ok()) {
    return file.status();
  }
  if (absl::Status status = CheckSecretFacts(file->facts, path, S_IXGRP | S_IXOTH); !status.ok()) {
    return status;
  }
  return ReadAll(*file, path, limit);
}

absl::StatusOr<std::string> ReadMountedSecret(const std::string& path, size_t limit) {
  absl::StatusOr<OpenedFile> file = OpenRegular(path, 0);
  if (!file.ok()) {
    return file.status();
  }
  const bool group_may_read = file->facts.st_uid == 0 && IsOwnGroup(file->facts.st_gid);
  const mode_t allowed = S_IXGRP | S_IXOTH | (group_may_read ? S_IRGRP : 0U);
  if (absl::Status status = CheckSecretFacts(file->facts, path, allowed); !status.ok()) {
    return status;
  }
  return ReadAll(*file, path, limit);
}

absl::Status CheckSecretFile(const std::string& path) {
  const absl::StatusOr<OpenedFile> file = OpenRegular(path, O_NOFOLLOW);
  return file.ok() ? CheckSecretFacts(file->facts, path, S_IXGRP | S_IXOTH) : file.status();
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view content, mode_t mode) {
  if (absl::Status status = CheckPath(path); !status.ok()) {
    return status;
  }
  std::string temporary = path + ".XXXXXX";
  UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));  // 0600 until the content stands
  if (fd.get() < 0) {
    return ErrnoError(errno, "make a temporary file for", path);
  }
  absl::Cleanup remove = [&temporary] { unlink(temporary.c_str()); };
  if (absl::Status status = WriteAndSync(fd, content, mode, path); !status.ok()) {
    return status;
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, "replace", path);
  }
  std::move(remove).Cancel();
  return SyncDirectory(DirectoryOf(path));
}

absl::Status EnsurePrivateDirectory(const std::string& path) {
  if (absl::Status status = CheckPath(path); !status.ok()) {
    return status;
  }
  if (mkdir(path.c_str(), S_IRWXU) == 0) {
    if (absl::Status status = SyncDirectory(DirectoryOf(path)); !status.ok()) {
      return status;
    }
  } else if (errno != EEXIST) {
    return ErrnoError(errno, "make directory", path);
  }
  // A symbolic link is followed: systemd's DynamicUser makes /var/lib/NAME one.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  struct stat facts {};
  if (fd.get() < 0 || fstat(fd.get(), &facts) != 0) {
    return ErrnoError(errno, "open directory", path);
  }
  if (facts.st_uid != geteuid()) {
    return absl::PermissionDeniedError(StrCat("directory '", Printable(path, 512),
                                              "' belongs to uid ", facts.st_uid,
                                              ", not to this user"));
  }
  if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return absl::PermissionDeniedError(
        StrCat("directory '", Printable(path, 512), "' is open to group or others; chmod 700 it"));
  }
  return absl::OkStatus();
}

}  // namespace postern::base
