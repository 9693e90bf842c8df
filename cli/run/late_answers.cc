// SPDX-License-Identifier: Apache-2.0
#include "cli/run/late_answers.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace postern::run {
namespace {

using std::chrono::steady_clock;

// A call that comes again, comes at once: after the signal's handler.
constexpr std::chrono::seconds kKeptFor{10};
constexpr std::chrono::milliseconds kDoubtedFor{100};
constexpr size_t kMostKept = 1024;

// What a second try would answer otherwise. A failure may be tried again.
bool CannotBeDoneTwice(int error) {
  return error == 0 || error == EINPROGRESS;
}

}  // namespace

void LateAnswers::Keep(ino_t inode, Kept kept) {
  if (kept_.size() >= kMostKept) {
    std::erase_if(
        kept_, [now = steady_clock::now()](const auto& each) { return now >= each.second.until; });
  }
  if (kept_.size() >= kMostKept) {
    kept_.clear();
  }
  kept_.insert_or_assign(inode, std::move(kept));
}

void LateAnswers::Answer(const Call& call, ino_t inode, base::ByteSpan address, int error) {
  const bool taken = notifier_.Answer(call.id, error);
  if (taken && !CannotBeDoneTwice(error)) {
    return;
  }
  Kept kept{call.thread, call.number, {address.begin(), address.end()}, error, {}, taken};
  kept.until = steady_clock::now();
  if (taken) {
    kept.until += kDoubtedFor;
  } else {
    kept.until += kKeptFor;
  }
  Keep(inode, std::move(kept));
}

LateAnswers::Again LateAnswers::AnswerAgain(const Call& call, ino_t inode, base::ByteSpan address) {
  const auto found = kept_.find(inode);
  if (found == kept_.end()) {
    return Again::kNo;
  }
  Kept kept = std::move(found->second);
  kept_.erase(found);
  if (call.thread != kept.thread || call.number != kept.number ||
      steady_clock::now() >= kept.until || !std::ranges::equal(address, kept.address)) {
    return Again::kNo;
  }
  if (kept.in_doubt && kept.error == EINPROGRESS) {
    return Again::kBegun;
  }
  // In its own time, for another signal may have come.
  if (!notifier_.Answer(call.id, kept.error) || kept.in_doubt) {
    Keep(inode, std::move(kept));
  }
  return Again::kAnswered;
}

}  // namespace postern::run
