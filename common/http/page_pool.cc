// SPDX-License-Identifier: Apache-2.0
#include "common/http/page_pool.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/strings.h"

namespace postern::http {

absl::StatusOr<std::unique_ptr<PagePool>> PagePool::Start(size_t threads, ReadPage read_page) {
  base::UniqueFd ready(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!ready.is_open()) {
    return absl::UnavailableError(base::StrCat("cannot make an eventfd: ", std::strerror(errno)));
  }
  std::unique_ptr<PagePool> pool(new PagePool(std::move(ready), std::move(read_page)));
  for (size_t i = 0; i < threads; ++i) {
    pool->threads_.emplace_back([working = pool.get()] { working->Work(); });
  }
  return pool;
}

PagePool::PagePool(base::UniqueFd ready, ReadPage read_page)
    : ready_(std::move(ready)), read_page_(std::move(read_page)) {}

PagePool::~PagePool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  asked_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void PagePool::Ask(uint64_t connection, std::string_view path) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    questions_.push_back({connection, std::string(path)});
  }
  asked_.notify_one();
}

std::vector<PagePool::Answer> PagePool::Take() {
  eventfd_t count = 0;
  eventfd_read(ready_.get(), &count);
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(answers_, {});
}

void PagePool::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    asked_.wait(lock, [this] { return stopping_ || !questions_.empty(); });
    if (stopping_) {
      return;
    }
    const Question question = std::move(questions_.front());
    questions_.pop_front();
    lock.unlock();
    Reply reply = read_page_(question.path).value_or(ErrorReply(404, "no such page"));
    lock.lock();
    answers_.push_back({question.connection, std::move(reply)});
    eventfd_write(ready_.get(), 1);
  }
}

}  // namespace postern::http
