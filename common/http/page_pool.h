// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unique_fd.h"
#include "common/http/http_server.h"

namespace postern::http {

// The few threads that make pages, since a page may wait for a loop. Holds as many questions as its
// owner asks. Owned by the server; Ask and Take are called from the server's thread alone.
class PagePool {
 public:
  struct Answer {
    uint64_t connection;
    Reply reply;
  };

  // Unavailable: the system has no descriptor left.
  static absl::StatusOr<std::unique_ptr<PagePool>> Start(size_t threads, ReadPage read_page);
  ~PagePool();  // drops what nobody works on yet, and joins
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Readable when Take has something to give.
  int ready_fd() const { return ready_.get(); }
  void Ask(uint64_t connection, std::string_view path);
  std::vector<Answer> Take();

 private:
  struct Question {
    uint64_t connection;
    std::string path;
  };

  PagePool(base::UniqueFd ready, ReadPage read_page);
  void Work();

  const base::UniqueFd ready_;
  const ReadPage read_page_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Question> questions_;  // guarded by mutex_
  std::vector<Answer> answers_;     // guarded by mutex_
  bool stopping_ = false;           // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace postern::http
