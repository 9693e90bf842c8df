// SPDX-License-Identifier: Apache-2.0
#include "cli/run/late_answers.h"

namespace postern::run {
namespace {

// A call that comes again, comes at once.
constexpr std::chrono::seconds kKeptFor{10};
constexpr size_t kMostKept = 1024;

}  // namespace

void LateAnswers::Answer(const Call& call, ino_t inode, int error) {
  if (notifier_.Answer(call.id, error)) {
    return;
  }
  if (kept_.size() >= kMostKept) {
    kept_.clear();
  }
  kept_[inode] = {call.thread, call.number, error, std::chrono::steady_clock::now()};
}

bool LateAnswers::AnswerAgain(const Call& call, ino_t inode) {
  const auto found = kept_.find(inode);
  if (found == kept_.end()) {
    return false;
  }
  const Kept kept = found->second;
  kept_.erase(found);
  if (kept.thread != call.thread || kept.number != call.number ||
      std::chrono::steady_clock::now() - kept.since >= kKeptFor) {
    return false;
  }
  Answer(call, inode, kept.error);
  return true;
}

}  // namespace postern::run
