// SPDX-License-Identifier: Apache-2.0
#include "cli/run/output_tail.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/status/status.h"

namespace postern::run {
namespace {

constexpr size_t kKept = 8192;

}  // namespace

OutputTail::~OutputTail() {
  if (pipe_.is_open()) {
    loop_.Forget(pipe_.get());
  }
}

absl::StatusOr<base::UniqueFd> OutputTail::Open() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "pipe");
  }
  pipe_.Reset(ends[0]);
  base::UniqueFd writing(ends[1]);
  // This end alone: the child's writes may block.
  fcntl(pipe_.get(), F_SETFL, O_NONBLOCK);
  loop_.Watch(pipe_.get(), EPOLLIN, [this] { Read(); });
  return writing;
}

void OutputTail::Read() {
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = read(pipe_.get(), buffer.data(), buffer.size());
    if (got <= 0) {
      if (got == 0) {
        loop_.Forget(pipe_.get());
        pipe_.Reset();
      }
      return;
    }
    text_.append(buffer.data(), static_cast<size_t>(got));
    if (text_.size() > 2 * kKept) {
      text_.erase(0, text_.size() - kKept);
    }
  }
}

std::string OutputTail::Text() {
  if (pipe_.is_open()) {
    Read();
  }
  return text_;
}

}  // namespace postern::run
