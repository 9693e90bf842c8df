// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/nft_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>

#include "absl/status/status.h"
#include "common/base/strings.h"

namespace postern::intercept {
namespace {

struct Pipe {
  Descriptor read, write;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "making a pipe for nft");
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

absl::StatusOr<std::string> FindNft() {
  for (const char* path : {"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"}) {
    if (access(path, X_OK) == 0) {
      return std::string(path);
    }
  }
  return absl::NotFoundError(
      "the nft program is in none of /usr/sbin, /sbin and /usr/bin; install the package nftables");
}

}  // namespace

absl::StatusOr<NftProcess> NftProcess::Start(const std::vector<std::string>& arguments) {
  absl::StatusOr<std::string> program = FindNft();
  if (!program.ok()) {
    return program.status();
  }
  absl::StatusOr<Pipe> in = MakePipe();
  if (!in.ok()) {
    return in.status();
  }
  absl::StatusOr<Pipe> out = MakePipe();
  if (!out.ok()) {
    return out.status();
  }
  absl::StatusOr<Pipe> err = MakePipe();
  if (!err.ok()) {
    return err.status();
  }

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in->read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out->write.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err->write.get(), STDERR_FILENO);

  std::vector<std::string> words = {*program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::string locale = "LC_ALL=C";  // its messages are looked into
  std::array<char*, 2> environment = {locale.data(), nullptr};

  NftProcess child;
  const int failed =
      posix_spawn(&child.pid, program->c_str(), &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    return absl::ErrnoToStatus(failed, base::StrCat("starting ", *program));
  }
  child.input = std::move(in->write);
  child.output = std::move(out->read);
  child.error = std::move(err->read);
  return child;
}

int NftProcess::Wait() const {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace postern::intercept
