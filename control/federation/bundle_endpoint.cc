// SPDX-License-Identifier: Apache-2.0
#include "control/federation/bundle_endpoint.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "common/base/strings.h"
#include "common/base/tcp_socket.h"
#include "common/base/unique_fd.h"
#include "common/x509/openssl_error.h"

namespace postern::federation {
namespace {

using Steady = std::chrono::steady_clock;
constexpr size_t kMaxRequest = 8 << 10;
constexpr int kBacklog = 64;
constexpr int kSecurityLevel = 2;
constexpr int kMostReadsAtOnce = 8;  // of what is thrown away, so that nobody holds up the others
constexpr auto kBackOff = std::chrono::milliseconds(100);  // when descriptors run out
constexpr std::string_view kHeadEnd = "\r\n\r\n";

std::string Reply(std::string_view status, std::string_view type, std::string_view body,
                  std::string_view more = "") {
  return base::StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(), "\r\nCache-Control: no-store\r\n", more,
                      "Connection: close\r\n\r\n", body);
}

std::string Refusal(std::string_view status, std::string_view more = "") {
  return Reply(status, "text/plain; charset=utf-8", base::StrCat(status, "\n"), more);
}

// The request line's method and path; nullopt: it is no HTTP/1.
struct RequestLine {
  std::string_view method, path;
};
std::optional<RequestLine> ReadRequestLine(std::string_view head) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const std::vector<std::string_view> words = base::Split(line, ' ');
  if (words.size() != 3 || (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0")) {
    return std::nullopt;
  }
  return RequestLine{words[0], words[1].substr(0, words[1].find('?'))};
}

absl::StatusOr<x509::SslCtxPtr> MakeContext(const std::vector<x509::X509Ptr>& chain,
                                            EVP_PKEY* key) {
  x509::SslCtxPtr context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr || chain.empty() ||
      SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) != 1) {
    return x509::OpensslFailure("a TLS context");
  }
  SSL_CTX_set_security_level(context.get(), kSecurityLevel);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                         SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context.get(), SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_num_tickets(context.get(), 0) != 1 ||
      SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return x509::OpensslFailure("the endpoint's certificate");
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) {
      return x509::OpensslFailure("the endpoint's chain");
    }
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1 ||
      SSL_CTX_check_private_key(context.get()) != 1) {
    return absl::InvalidArgumentError(base::StrCat(
        "the key does not fit the endpoint's certificate: ", x509::TakeOpensslReason()));
  }
  return context;
}

// What a connection waits for next.
enum class Wait : uint8_t { kRead, kWrite, kOver };

// One client. Owned by the endpoint's thread.
class Client {
 public:
  Client(base::UniqueFd fd, x509::BioPtr bio)
      : fd_(std::move(fd)),
        bio_(std::move(bio)),
        until_(Steady::now() + std::chrono::milliseconds(kEndpointDeadlineMs)) {}

  int fd() const { return fd_.get(); }
  Steady::time_point until() const { return until_; }
  short events() const { return static_cast<short>(wait_ == Wait::kWrite ? POLLOUT : POLLIN); }
  bool over() const { return wait_ == Wait::kOver; }

  // Goes on as far as it can. `answer` gives the reply to a request's head.
  template <typename Answer>
  void Continue(const Answer& answer) {
    if (phase_ == Phase::kHandshake) {
      ShakeHands();
    }
    if (phase_ == Phase::kRequest && Receive()) {
      reply_ = answer(std::string_view(request_).substr(0, request_.find(kHeadEnd)));
      phase_ = Phase::kReply;
    }
    if (phase_ == Phase::kReply) {
      Send();
    }
    if (phase_ == Phase::kEnding) {
      AwaitEnd();
    }
  }

 private:
  enum class Phase : uint8_t { kHandshake, kRequest, kReply, kEnding };

  // After a call that did not succeed.
  void Look() {
    if (!BIO_should_retry(bio_.get())) {
      wait_ = Wait::kOver;
    } else {
      wait_ = BIO_should_write(bio_.get()) != 0 ? Wait::kWrite : Wait::kRead;
    }
  }
  void ShakeHands() {
    if (BIO_do_handshake(bio_.get()) == 1) {
      phase_ = Phase::kRequest;
    } else {
      Look();
    }
  }
  // True: the head is whole.
  bool Receive() {
    std::array<char, 2048> buffer{};
    size_t got = 0;
    while (request_.find(kHeadEnd) == std::string::npos) {
      if (BIO_read_ex(bio_.get(), buffer.data(), buffer.size(), &got) != 1) {
        Look();
        return false;
      }
      request_.append(buffer.data(), got);
      if (request_.size() > kMaxRequest) {
        wait_ = Wait::kOver;
        return false;
      }
    }
    return true;
  }
  void Send() {
    while (sent_ < reply_.size()) {
      size_t written = 0;
      if (BIO_write_ex(bio_.get(), reply_.data() + sent_, reply_.size() - sent_, &written) != 1) {
        Look();
        return;
      }
      sent_ += written;
    }
    BIO_ssl_shutdown(bio_.get());
    shutdown(fd_.get(), SHUT_WR);
    phase_ = Phase::kEnding;
  }
  // A close with unread bytes would reset the connection, and the reply might be lost with it.
  void AwaitEnd() {
    std::array<char, 2048> buffer{};
    ssize_t got = 1;
    for (int i = 0; got > 0 && i < kMostReadsAtOnce; ++i) {
      got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
    }
    if (got > 0) {
      wait_ = Wait::kRead;
      return;
    }
    wait_ = got < 0 && (errno == EAGAIN || errno == EINTR) ? Wait::kRead : Wait::kOver;
  }

  base::UniqueFd fd_;
  x509::BioPtr bio_;
  Steady::time_point until_;
  Phase phase_ = Phase::kHandshake;
  Wait wait_ = Wait::kRead;
  std::string request_;
  std::string reply_;
  size_t sent_ = 0;
};

}  // namespace

struct BundleEndpoint::Impl {
  void Serve();
  void Turn(const std::vector<pollfd>& waits);
  void AcceptAll();
  void Add(base::UniqueFd fd);
  int TimeToNextDeadline(Steady::time_point now) const;
  std::string Answer(std::string_view head);
  std::vector<pollfd> Waits(Steady::time_point now) const;

  base::UniqueFd listening;
  base::UniqueFd stop;
  uint16_t port = 0;
  std::atomic<uint64_t> served{0};
  std::thread thread;

  std::mutex mutex;
  x509::SslCtxPtr context;                      // guarded by mutex
  std::shared_ptr<const std::string> document;  // guarded by mutex

  // The thread's alone.
  std::list<Client> clients;
  Steady::time_point accept_from = Steady::time_point::min();
};

std::string BundleEndpoint::Impl::Answer(std::string_view head) {
  const std::optional<RequestLine> line = ReadRequestLine(head);
  if (!line.has_value()) {
    return Refusal("400 Bad Request");
  }
  if (line->path != "/") {
    return Refusal("404 Not Found");
  }
  if (line->method != "GET") {
    return Refusal("405 Method Not Allowed", "Allow: GET\r\n");
  }
  std::shared_ptr<const std::string> present;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    present = document;
  }
  if (present == nullptr) {
    return Refusal("503 Service Unavailable");
  }
  served.fetch_add(1);
  return Reply("200 OK", "application/json", *present);
}

void BundleEndpoint::Impl::Add(base::UniqueFd fd) {
  x509::BioPtr bio;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    bio.reset(context == nullptr ? nullptr : BIO_new_ssl(context.get(), 0));
  }
  x509::BioPtr socket(BIO_new_socket(fd.get(), BIO_NOCLOSE));
  if (bio == nullptr || socket == nullptr) {
    return;  // no identity, or no memory: the connection is closed
  }
  BIO_push(bio.get(), socket.release());
  clients.emplace_back(std::move(fd), std::move(bio));
}

void BundleEndpoint::Impl::AcceptAll() {
  while (clients.size() < kMaxEndpointConnections) {
    base::UniqueFd fd(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.is_open()) {
      Add(std::move(fd));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The connection stays in the backlog, so poll would come back at once.
      accept_from = Steady::now() + kBackOff;
    }
    if (errno != ECONNABORTED && errno != EINTR) {
      return;
    }
  }
}

// At the `now` of Waits: who is left out there is waited for here.
int BundleEndpoint::Impl::TimeToNextDeadline(Steady::time_point now) const {
  Steady::time_point next = Steady::time_point::max();
  for (const Client& client : clients) {
    next = std::min(next, client.until());
  }
  if (accept_from > now) {
    next = std::min(next, accept_from);
  }
  if (next == Steady::time_point::max()) {
    return -1;
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, kEndpointDeadlineMs));
}

std::vector<pollfd> BundleEndpoint::Impl::Waits(Steady::time_point now) const {
  const bool accepts = clients.size() < kMaxEndpointConnections && now >= accept_from;
  std::vector<pollfd> waits;
  waits.push_back({stop.get(), POLLIN, 0});
  waits.push_back({accepts ? listening.get() : -1, POLLIN, 0});
  for (const Client& client : clients) {
    waits.push_back({client.fd(), client.events(), 0});
  }
  return waits;
}

void BundleEndpoint::Impl::Turn(const std::vector<pollfd>& waits) {
  const Steady::time_point now = Steady::now();
  size_t at = 2;
  for (auto client = clients.begin(); client != clients.end(); ++at) {
    if (waits[at].revents != 0) {
      ERR_clear_error();
      client->Continue([this](std::string_view head) { return Answer(head); });
    }
    client = client->over() || client->until() <= now ? clients.erase(client) : std::next(client);
  }
  if (waits[1].revents != 0) {
    AcceptAll();
  }
}

void BundleEndpoint::Impl::Serve() {
  while (true) {
    const Steady::time_point now = Steady::now();
    std::vector<pollfd> waits = Waits(now);
    if (poll(waits.data(), waits.size(), TimeToNextDeadline(now)) < 0 && errno != EINTR) {
      spdlog::error("the bundle endpoint stopped: {}", std::strerror(errno));
      return;
    }
    if (waits[0].revents != 0) {
      return;
    }
    Turn(waits);
  }
}

absl::StatusOr<std::unique_ptr<BundleEndpoint>> BundleEndpoint::Listen(const std::string& host,
                                                                       uint16_t port) {
  absl::StatusOr<base::UniqueFd> fd = base::ListenTcp(host, port, kBacklog);
  if (!fd.ok()) {
    return fd.status();
  }
  const absl::StatusOr<uint16_t> bound = base::BoundPort(fd->get());
  auto impl = std::make_unique<Impl>();
  impl->listening = *std::move(fd);
  impl->stop = base::UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!bound.ok() || !impl->stop.is_open()) {
    return bound.ok() ? absl::UnavailableError(std::strerror(errno)) : bound.status();
  }
  impl->port = *bound;
  impl->thread = std::thread([serving = impl.get()] { serving->Serve(); });
  return std::unique_ptr<BundleEndpoint>(new BundleEndpoint(std::move(impl)));
}

BundleEndpoint::BundleEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

BundleEndpoint::~BundleEndpoint() {
  eventfd_write(impl_->stop.get(), 1);
  impl_->thread.join();
}

absl::Status BundleEndpoint::SetIdentity(const std::vector<x509::X509Ptr>& chain, EVP_PKEY* key) {
  const x509::ErrorQueueGuard guard;
  absl::StatusOr<x509::SslCtxPtr> context = MakeContext(chain, key);
  if (!context.ok()) {
    return context.status();
  }
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->context = *std::move(context);
  return absl::OkStatus();
}

void BundleEndpoint::SetDocument(std::string json) {
  auto document = std::make_shared<const std::string>(std::move(json));
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->document = std::move(document);
}

uint16_t BundleEndpoint::port() const {
  return impl_->port;
}

uint64_t BundleEndpoint::served() const {
  return impl_->served.load();
}

}  // namespace postern::federation
