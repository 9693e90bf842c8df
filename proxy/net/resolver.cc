// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::net {
namespace {

constexpr size_t kMaxThreads = 4;
constexpr size_t kMaxQueued = 1024;

}  // namespace

// Shared by the loop and the thread that looks up. `loop` is used under the mutex alone, so that
// after the Resolver's end no thread can reach a loop that may be gone.
struct Resolver::Query {
  std::mutex mutex;
  Loop* loop = nullptr;  // null: cancelled; guarded by mutex
  std::string host;
  uint16_t port = 0;
  Done done;  // loop thread only
};

namespace {

// The threads that block in getaddrinfo. They are never joined: one may hang in a name server's
// time-out, which must not hold up the end of the process.
class LookupThreads {
 public:
  static LookupThreads& Get() {
    static auto* const threads = new LookupThreads();  // lives as long as the detached threads
    return *threads;
  }

  // False when too many look-ups wait.
  bool Add(std::function<void()> work) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queue_.size() >= kMaxQueued) {
      return false;
    }
    queue_.push_back(std::move(work));
    if (idle_ < queue_.size() && count_ < kMaxThreads) {
      ++count_;
      std::thread([this] { Run(); }).detach();
    }
    wake_.notify_one();
    return true;
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      ++idle_;
      wake_.wait(lock, [this] { return !queue_.empty(); });
      --idle_;
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  size_t idle_ = 0;
  size_t count_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<SocketAddress>> ResolveNow(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), base::StrCat(port).c_str(), &hints, &list);
  if (error != 0) {
    const std::string message =
        base::StrCat("cannot resolve ", base::Printable(host), ": ", gai_strerror(error));
    return error == EAI_NONAME ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, &freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    absl::StatusOr<SocketAddress> address =
        SocketAddress::FromSockaddr(entry->ai_addr, entry->ai_addrlen);
    if (address.ok()) {
      addresses.push_back(*std::move(address));
    }
  }
  if (addresses.empty()) {
    return absl::NotFoundError(
        base::StrCat("cannot resolve ", base::Printable(host), ": no usable address"));
  }
  return addresses;
}

Resolver::Resolver(Loop& loop, const std::string& host, uint16_t port, Done done)
    : query_(std::make_shared<Query>()) {
  query_->loop = &loop;
  query_->host = host;
  query_->port = port;
  query_->done = std::move(done);
  const auto deliver = [](const std::shared_ptr<Query>& query,
                          absl::StatusOr<std::vector<SocketAddress>> answer) {
    const std::lock_guard<std::mutex> lock(query->mutex);
    if (query->loop == nullptr) {
      return;
    }
    query->loop->Post([query, answer = std::move(answer)] {
      if (query->done != nullptr) {
        // The callback may destroy the Resolver.
        const Done call = std::exchange(query->done, nullptr);
        call(answer);
      }
    });
  };
  const bool queued = LookupThreads::Get().Add(
      [query = query_, deliver] { deliver(query, ResolveNow(query->host, query->port)); });
  if (!queued) {
    deliver(query_, absl::ResourceExhaustedError("too many name look-ups are waiting"));
  }
}

Resolver::~Resolver() {
  query_->done = nullptr;
  const std::lock_guard<std::mutex> lock(query_->mutex);
  query_->loop = nullptr;
}

}  // namespace postern::net
