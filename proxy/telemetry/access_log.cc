// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "proxy/telemetry/access_record.h"
#include "proxy/telemetry/bounded_queue.h"
#include "proxy/telemetry/json_writer.h"

namespace postern::telemetry {
namespace {

constexpr size_t kQueueRecords = 8192;
constexpr size_t kBatchBytes = 64U << 10U;
constexpr size_t kPipeChunk = 4096;  // PIPE_BUF: what a writable pipe takes without blocking
constexpr size_t kMaxDetail = 2048;
constexpr mode_t kFileMode = 0640;
constexpr absl::Duration kFlushLimit = absl::Seconds(1);  // how long an ending process waits
constexpr absl::Duration kComplainEvery = absl::Seconds(60);

// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status Unavailable(const std::string& target, int error) {
  return absl::UnavailableError(absl::StrCat("cannot write the access log ", target, ": ",
                                             std::strerror(error),
                                             "; give --access-log another path"));
}

absl::StatusOr<Descriptor> OpenTarget(const std::string& target) {
  if (target == "-") {
    Descriptor out(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    return out.get() < 0 ? absl::StatusOr<Descriptor>(Unavailable("on standard output", errno))
                         : std::move(out);
  }
  constexpr int kFlags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  Descriptor made(open(target.c_str(), kFlags | O_CREAT | O_EXCL, kFileMode));
  if (made.get() >= 0) {
    // The process's umask is stricter than what a log shipper of the same group needs.
    if (fchmod(made.get(), kFileMode) != 0) {
      return Unavailable(target, errno);
    }
    return made;
  }
  if (errno != EEXIST) {
    return Unavailable(target, errno);
  }
  Descriptor existing(open(target.c_str(), kFlags));
  if (existing.get() < 0) {
    return Unavailable(target, errno);
  }
  return existing;
}

void AppendTls(const AccessRecord& record, JsonObject& json) {
  json.TextIfAny("tls_version", record.tls_version);
  json.TextIfAny("tls_cipher", record.tls_cipher);
  json.TextIfAny("tls_group", record.tls_group);
  json.TextIfAny("sni", record.sni);
  json.TextIfAny("alpn", record.alpn);
  if (!record.tls_version.empty()) {
    json.Boolean("tls_resumed", record.tls_resumed);
    json.Number("reauthentications", record.reauthentications);
  }
}

void AppendEnd(const base::Failure& end, JsonObject& json) {
  json.Text("reason", Token(end.reason));
  if (end.reason == base::CloseReason::kOk) {
    return;
  }
  json.Text("side", Token(end.side));
  json.TextIfAny("detail", base::Message(end.detail).substr(0, kMaxDetail));
  if (end.x509_error != 0) {
    json.Number("x509_error", end.x509_error);
    json.Number("x509_depth", end.x509_depth);
  }
  if (end.alert_sent >= 0) {
    json.Number("alert_sent", end.alert_sent);
  }
  if (end.alert_received >= 0) {
    json.Number("alert_received", end.alert_received);
  }
}

}  // namespace

// The writing thread and what it shares with the workers: the queue, three atomics and the eventfd
// that wakes it.
struct AccessLog::Impl {
  explicit Impl(std::string target_name) : target(std::move(target_name)), queue(kQueueRecords) {}

  const std::string target;
  BoundedQueue<AccessRecord> queue;
  std::atomic<uint64_t> dropped{0};
  std::atomic<bool> asleep{false};
  std::atomic<bool> stop{false};
  std::atomic<bool> reopen{false};
  Descriptor wake;
  std::thread thread;

  // The writing thread's own.
  Descriptor file;
  bool regular = false;
  bool torn = false;  // the last line is incomplete
  absl::Time last_complaint = absl::InfinitePast();
  absl::Time stop_deadline = absl::InfiniteFuture();

  void Wake() {
    if (asleep.load(std::memory_order_seq_cst) && asleep.exchange(false)) {
      const uint64_t one = 1;
      // Cannot fail but by overflow, and then it is readable anyway.
      [[maybe_unused]] const ssize_t written = write(wake.get(), &one, sizeof(one));
    }
  }

  void Take(Descriptor opened) {
    struct stat facts {};
    regular = fstat(opened.get(), &facts) == 0 && S_ISREG(facts.st_mode);
    file = std::move(opened);
    torn = false;
  }

  void Run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    std::string batch;
    for (;;) {
      if (reopen.exchange(false)) {
        ReopenFile();
      }
      FillBatch(batch);
      if (!batch.empty()) {
        WriteBatch(batch);
      } else if (stop.load(std::memory_order_seq_cst)) {
        return;
      } else {
        Sleep();
      }
    }
  }

  void FillBatch(std::string& batch) {
    batch.clear();
    while (batch.size() < kBatchBytes) {
      const std::unique_ptr<AccessRecord> record = queue.Pop();
      if (record == nullptr) {
        return;
      }
      batch += ToJson(*record);
      batch += '\n';
    }
  }

  void Sleep() {
    asleep.store(true, std::memory_order_seq_cst);
    if (queue.Empty() && !stop.load(std::memory_order_seq_cst) &&
        !reopen.load(std::memory_order_seq_cst)) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = read(wake.get(), &count, sizeof(count));
    }
    asleep.store(false, std::memory_order_seq_cst);
  }

  // False when the process ends and the reader has not read for too long.
  bool AwaitWritable() {
    for (;;) {
      pollfd wanted = {.fd = file.get(), .events = POLLOUT, .revents = 0};
      const int patience_ms = absl::Now() >= stop_deadline ? 0 : 100;
      if (poll(&wanted, 1, patience_ms) != 0) {  // ready, or an error that write will name
        return true;
      }
      if (stop.load(std::memory_order_relaxed)) {
        stop_deadline = std::min(stop_deadline, absl::Now() + kFlushLimit);
        if (absl::Now() >= stop_deadline) {
          return false;
        }
      }
    }
  }

  void WriteBatch(std::string& batch) {
    if (torn) {
      batch.insert(batch.begin(), '\n');
    }
    std::string_view rest = batch;
    while (!rest.empty()) {
      if (!AwaitWritable()) {
        break;
      }
      const size_t size = regular ? rest.size() : std::min(rest.size(), kPipeChunk);
      const ssize_t written = write(file.get(), rest.data(), size);
      if (written >= 0) {
        rest.remove_prefix(static_cast<size_t>(written));
      } else if (errno != EINTR && errno != EAGAIN) {
        Complain(Unavailable(target, errno));
        break;
      }
    }
    torn = !rest.empty() && rest.size() < batch.size() && *(rest.data() - 1) != '\n';
    dropped.fetch_add(static_cast<uint64_t>(std::ranges::count(rest, '\n')),
                      std::memory_order_relaxed);
  }

  void ReopenFile() {
    if (target == "-") {
      return;
    }
    absl::StatusOr<Descriptor> opened = OpenTarget(target);
    if (!opened.ok()) {
      Complain(opened.status());  // the old file goes on
      return;
    }
    Take(*std::move(opened));
  }

  void Complain(const absl::Status& status) {
    const absl::Time now = absl::Now();
    if (now - last_complaint >= kComplainEvery) {
      last_complaint = now;
      spdlog::warn("{}", base::Message(status));
    }
  }
};

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(const std::string& target) {
  if (target.empty()) {
    return std::unique_ptr<AccessLog>(new AccessLog(nullptr));
  }
  auto impl = std::make_unique<Impl>(target);
  absl::StatusOr<Descriptor> file = OpenTarget(target);
  if (!file.ok()) {
    return file.status();
  }
  impl->Take(*std::move(file));
  impl->wake = Descriptor(eventfd(0, EFD_CLOEXEC));
  if (impl->wake.get() < 0) {
    return Unavailable(target, errno);
  }
  impl->thread = std::thread([state = impl.get()] { state->Run(); });
  return std::unique_ptr<AccessLog>(new AccessLog(std::move(impl)));
}

AccessLog::AccessLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AccessLog::~AccessLog() {
  if (impl_ != nullptr) {
    impl_->stop.store(true, std::memory_order_seq_cst);
    impl_->Wake();
    impl_->thread.join();
  }
}

void AccessLog::Add(AccessRecord record) {
  if (impl_ == nullptr) {
    return;
  }
  auto entry = std::make_unique<AccessRecord>(std::move(record));
  if (!impl_->queue.TryPush(entry)) {
    impl_->dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  impl_->Wake();
}

void AccessLog::Reopen() {
  if (impl_ != nullptr) {
    impl_->reopen.store(true, std::memory_order_seq_cst);
    impl_->Wake();
  }
}

uint64_t AccessLog::dropped() const {
  return impl_ == nullptr ? 0 : impl_->dropped.load(std::memory_order_relaxed);
}

std::string AccessLog::ToJson(const AccessRecord& record) {
  std::string out;
  out.reserve(768);
  {
    JsonObject json(out);
    json.Text("time", base::EventTimeText(record.ended()));
    json.Unsigned("connection", record.connection_id);
    json.Text("direction", Token(record.direction));
    json.Number("duration_us", record.duration.count());
    json.Text("security", Token(record.security));
    json.TextIfAny("tunnel", record.tunnel);
    json.Text("downstream", record.downstream_address);
    json.Text("destination", record.destination);
    json.TextIfAny("upstream", record.upstream_address);
    json.TextIfAny("local_id", record.local_id);
    json.TextIfAny("peer_id", record.peer_id);
    AppendTls(record, json);
    json.TextIfAny("application_sni", record.application_sni);
    json.TextIfAny("application_alpn", record.application_alpn);
    json.Unsigned("bytes_from_downstream", record.bytes_from_downstream);
    json.Unsigned("bytes_from_upstream", record.bytes_from_upstream);
    json.TextIfAny("policy_rule", record.policy_rule);
    json.TextIfAny("policy_audit", record.policy_audit);
    AppendEnd(record.end, json);
  }
  return out;
}

}  // namespace postern::telemetry
