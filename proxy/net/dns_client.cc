// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/dns_client.h"

#include <ares.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <uv.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/bytes.h"
#include "common/base/host_name.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"
#include "proxy/net/timer.h"

namespace postern::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// What one answer may name; more is not of use to anybody.
constexpr size_t kMostAddresses = 64;

// c-ares counts its users, without a lock of its own.
int InitLibrary() {
  static std::once_flag once;
  static int result = ARES_SUCCESS;
  std::call_once(once, [] { result = ares_library_init(ARES_LIB_INIT_ALL); });
  return result;
}

// RFC 6761 section 6.4: what ends in "invalid" does not exist, and nobody is asked.
bool NeverExists(const std::string& name) {
  const std::string canonical = base::CanonicalHostName(name);
  return canonical == "invalid" || canonical.ends_with(".invalid");
}

absl::Status StatusOf(int error, const std::string& name) {
  const std::string what =
      base::StrCat("cannot resolve ", base::Printable(name), ": ", ares_strerror(error));
  switch (error) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_ENONAME:
    case ARES_EBADNAME:
      return absl::NotFoundError(what);
    default:
      return absl::UnavailableError(what);
  }
}

DnsAnswer AnswerOf(const ares_addrinfo& info, const std::string& name) {
  DnsAnswer answer;
  int ttl = INT32_MAX;
  for (const ares_addrinfo_cname* alias = info.cnames; alias != nullptr; alias = alias->next) {
    ttl = std::min(ttl, alias->ttl);
  }
  for (const ares_addrinfo_node* node = info.nodes; node != nullptr; node = node->ai_next) {
    const auto address = SocketAddress::FromSockaddr(node->ai_addr, node->ai_addrlen);
    if (!address.ok() || answer.addresses.size() == kMostAddresses) {
      continue;
    }
    ttl = std::min(ttl, node->ai_ttl);
    if (std::ranges::find(answer.addresses, address->ip()) == answer.addresses.end()) {
      answer.addresses.push_back(address->ip());
    }
  }
  if (answer.addresses.empty()) {
    answer.status = StatusOf(ARES_ENODATA, name);
  }
  answer.ttl = seconds(std::max(ttl, 0));
  return answer;
}

std::string ServersText(const std::vector<SocketAddress>& servers) {
  std::string text;
  for (const SocketAddress& server : servers) {
    base::StrAppend(text, text.empty() ? "" : ",", server.ToString());
  }
  return text;
}

// What tells one state of a file from the next.
struct FileMark {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
  bool operator==(const FileMark&) const = default;
};

FileMark MarkOf(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) {
    return {};
  }
  return {facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec};
}

}  // namespace

struct DnsClient::Impl {
  // One socket of c-ares's, which opens and closes it.
  struct Watched final : HandleBlock {
    uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&poll); }
    uv_poll_t poll{};
    Impl* owner = nullptr;
    int fd = -1;
  };
  struct Question {
    Impl* owner = nullptr;
    std::string name;
    Done done;
  };

  Impl(Loop& on_loop, Options given)
      : loop(on_loop), options(std::move(given)), timer(on_loop, [this] { OnTimer(); }) {}
  ~Impl() { Close(); }

  bool Open();
  void Close();
  void ReopenIfChanged();
  void Ask(const std::string& name, Done done);
  void Watch(int fd, bool readable, bool writable);
  void ArmTimer();
  void OnTimer();
  static void OnPoll(uv_poll_t* poll, int status, int events) noexcept;
  static int OnNewSocket(ares_socket_t fd, int type, void* data) noexcept;
  static void OnAnswer(void* data, int error, int timeouts, ares_addrinfo* info) noexcept;

  Loop& loop;
  const Options options;
  Timer timer;
  ares_channel channel = nullptr;
  FileMark read_from;  // of the file that the channel has read
  absl::flat_hash_map<int, Watched*> watched;
  std::set<Question*> asked;  // owned; their memory is c-ares's argument until the answer
};

bool DnsClient::Impl::Open() {
  if (InitLibrary() != ARES_SUCCESS) {
    return false;
  }
  ares_options wanted{};
  wanted.timeout = static_cast<int>(options.timeout.count());
  wanted.tries = options.tries;
  wanted.sock_state_cb_data = this;
  wanted.sock_state_cb = [](void* data, ares_socket_t fd, int readable, int writable) {
    static_cast<Impl*>(data)->Watch(fd, readable != 0, writable != 0);
  };
  int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
  std::vector<char*> domains;
  for (const std::string& domain : options.search) {
    domains.push_back(const_cast<char*>(domain.c_str()));  // which copies them
  }
  if (!domains.empty()) {
    wanted.domains = domains.data();
    wanted.ndomains = static_cast<int>(domains.size());
    mask |= ARES_OPT_DOMAINS;
  }
  read_from = MarkOf(options.resolv_conf);
  if (const int error = ares_init_options(&channel, &wanted, mask); error != ARES_SUCCESS) {
    spdlog::error("names cannot be resolved: {}", ares_strerror(error));
    channel = nullptr;
    return false;
  }
  ares_set_socket_configure_callback(channel, &OnNewSocket, this);
  if (!options.servers.empty() &&
      ares_set_servers_ports_csv(channel, ServersText(options.servers).c_str()) != ARES_SUCCESS) {
    Close();
    return false;
  }
  return true;
}

void DnsClient::Impl::Close() {
  if (channel == nullptr) {
    return;
  }
  // Every question comes back with ARES_EDESTRUCTION, and is told to nobody.
  for (Question* const question : asked) {
    question->done = nullptr;
  }
  ares_destroy(std::exchange(channel, nullptr));
  for (const auto& [fd, block] : watched) {
    block->Release();
  }
  watched.clear();
}

// Name servers come and go with the network. Questions under way keep the old ones.
void DnsClient::Impl::ReopenIfChanged() {
  if (channel != nullptr && asked.empty() && MarkOf(options.resolv_conf) != read_from) {
    Close();
  }
}

void DnsClient::Impl::Ask(const std::string& name, Done done) {
  if (NeverExists(name)) {
    done({StatusOf(ARES_ENOTFOUND, name), {}, seconds(0)});
    return;
  }
  ReopenIfChanged();
  if (channel == nullptr && !Open()) {
    done({absl::UnavailableError(base::StrCat("cannot resolve ", base::Printable(name),
                                              ": the resolver's configuration is no good")),
          {},
          seconds(0)});
    return;
  }
  auto question = std::make_unique<Question>();
  question->owner = this;
  question->name = name;
  question->done = std::move(done);
  Question* const held = question.release();
  asked.insert(held);
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  ares_getaddrinfo(channel, name.c_str(), nullptr, &hints, &OnAnswer, held);
  ArmTimer();
}

void DnsClient::Impl::OnAnswer(void* data, int error, int /*timeouts*/,
                               ares_addrinfo* info) noexcept {
  const std::unique_ptr<Question> question(static_cast<Question*>(data));
  const std::unique_ptr<ares_addrinfo, void (*)(ares_addrinfo*)> owned(info, &ares_freeaddrinfo);
  question->owner->asked.erase(question.get());
  if (question->done == nullptr) {
    return;
  }
  if (error != ARES_SUCCESS || info == nullptr) {
    question->done(
        {StatusOf(error != ARES_SUCCESS ? error : ARES_ENODATA, question->name), {}, seconds(0)});
    return;
  }
  question->done(AnswerOf(*info, question->name));
}

int DnsClient::Impl::OnNewSocket(ares_socket_t fd, int /*type*/, void* data) noexcept {
  const uint32_t mark = static_cast<Impl*>(data)->options.mark;
  const bool set = mark == 0 || setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0;
  return set ? 0 : -1;
}

void DnsClient::Impl::Watch(int fd, bool readable, bool writable) {
  const int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
  const auto found = watched.find(fd);
  if (events == 0) {
    if (found != watched.end()) {
      found->second->Release();  // libuv lets go of the descriptor before c-ares closes it
      watched.erase(found);
    }
    return;
  }
  Watched* block = found != watched.end() ? found->second : nullptr;
  if (block == nullptr) {
    auto made = std::make_unique<Watched>();
    if (uv_poll_init(&loop.impl()->loop, &made->poll, fd) != 0) {
      return;  // the question runs into its time-out
    }
    block = made.release();
    block->poll.data = static_cast<HandleBlock*>(block);
    block->owner = this;
    block->fd = fd;
    watched.emplace(fd, block);
  }
  if (block->usable()) {
    uv_poll_start(&block->poll, events, &OnPoll);
  }
}

void DnsClient::Impl::OnPoll(uv_poll_t* poll, int status, int events) noexcept {
  auto* const block = static_cast<Watched*>(static_cast<HandleBlock*>(poll->data));
  if (!block->usable()) {
    return;
  }
  Impl& impl = *block->owner;
  const int fd = block->fd;
  // With an error pending c-ares finds it in its own read or write.
  const bool reads = status != 0 || (events & UV_READABLE) != 0;
  const bool writes = status != 0 || (events & UV_WRITABLE) != 0;
  ares_process_fd(impl.channel, reads ? fd : ARES_SOCKET_BAD, writes ? fd : ARES_SOCKET_BAD);
  impl.ArmTimer();
}

void DnsClient::Impl::ArmTimer() {
  timeval next{};
  if (channel == nullptr || ares_timeout(channel, nullptr, &next) == nullptr) {
    timer.Stop();
    return;
  }
  // A millisecond later rather than one too early, which would be a turn for nothing.
  timer.Start(milliseconds(next.tv_sec * 1000 + next.tv_usec / 1000 + 1));
}

void DnsClient::Impl::OnTimer() {
  if (channel != nullptr) {
    ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  }
  ArmTimer();
}

DnsClient::DnsClient(Loop& loop, Options options)
    : impl_(std::make_unique<Impl>(loop, std::move(options))) {}

DnsClient::~DnsClient() = default;

void DnsClient::Ask(const std::string& name, Done done) {
  impl_->Ask(name, std::move(done));
}

}  // namespace postern::net
