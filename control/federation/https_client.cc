// SPDX-License-Identifier: Apache-2.0
// TLS here goes through OpenSSL's BIO: the one place of the issuer, beside the endpoint, that
// speaks TLS without gRPC.
#include "control/federation/https_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/ip.h"
#include "common/base/strings.h"
#include "common/base/unique_fd.h"
#include "common/x509/certificate.h"
#include "common/x509/chain_verifier.h"
#include "common/x509/openssl_error.h"
#include "common/x509/openssl_ptr.h"
#include "control/federation/http_response.h"

namespace postern::federation {
namespace {

using Steady = std::chrono::steady_clock;
constexpr int kPollSliceMs = 100;  // so that a stop is seen
constexpr int kSecurityLevel = 2;

// How long a fetch may still take, and whether it is still wanted.
struct Patience {
  Steady::time_point until;
  const std::atomic<bool>* cancelled;

  // Waits until `fd` is ready for `events`.
  absl::Status Await(int fd, short events) const {
    while (true) {
      if (cancelled != nullptr && cancelled->load()) {
        return absl::CancelledError("the issuer is stopping");
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - Steady::now());
      if (left.count() <= 0) {
        return absl::DeadlineExceededError(
            base::StrCat("no answer within ", absl::FormatDuration(kFetchDeadline)));
      }
      pollfd wait{fd, events, 0};
      const int ready =
          poll(&wait, 1, static_cast<int>(std::min<int64_t>(left.count(), kPollSliceMs)));
      if (ready > 0) {
        return absl::OkStatus();
      }
      if (ready < 0 && errno != EINTR) {
        return absl::UnavailableError(std::strerror(errno));
      }
    }
  }
};

// Judges the server's chain inside the handshake, and keeps why it was refused. On the stack of
// HttpsGet, which outlives the SSL_CTX that points to it.
class ServerJudge {
 public:
  ServerJudge(const ServerTrust& trust, absl::Time now) : trust_(trust), now_(now) {}

  static int OnVerify(X509_STORE_CTX* store, void* judge) noexcept {
    return static_cast<ServerJudge*>(judge)->Verify(store) ? 1 : 0;
  }
  const std::string& refusal() const { return refusal_; }

 private:
  bool Verify(X509_STORE_CTX* store) {
    return trust_.id.has_value() ? VerifySpiffe(store) : VerifyWeb(store);
  }
  bool VerifyWeb(X509_STORE_CTX* store) {
    X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(store), absl::ToTimeT(now_));
    if (X509_verify_cert(store) == 1) {
      return true;
    }
    const int error = X509_STORE_CTX_get_error(store);
    refusal_ = X509_verify_cert_error_string(error);
    if (error == X509_V_OK) {  // never let a refusal look like a success
      X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
    }
    return false;
  }
  bool VerifySpiffe(X509_STORE_CTX* store) {
    const x509::ChainVerdict verdict =
        x509::VerifyPeerChain(X509_STORE_CTX_get0_cert(store), X509_STORE_CTX_get0_untrusted(store),
                              *trust_.bundles, x509::PeerRole::kServer, now_);
    if (verdict.peer.has_value() && verdict.peer->id == *trust_.id) {
      X509_STORE_CTX_set_error(store, X509_V_OK);
      return true;
    }
    refusal_ = verdict.peer.has_value() ? base::StrCat("the server is ", verdict.peer->id.uri(),
                                                       ", expected was ", trust_.id->uri())
                                        : verdict.error.detail;
    X509_STORE_CTX_set_error(store,
                             verdict.peer.has_value() || verdict.error.x509_error == X509_V_OK
                                 ? X509_V_ERR_APPLICATION_VERIFICATION
                                 : verdict.error.x509_error);
    return false;
  }

  const ServerTrust& trust_;
  const absl::Time now_;
  std::string refusal_;
};

absl::Status AddRoots(SSL_CTX* context, const std::string& ca_pem) {
  if (ca_pem.empty()) {
    return SSL_CTX_set_default_verify_paths(context) == 1
               ? absl::OkStatus()
               : x509::OpensslFailure("the system's roots");
  }
  const absl::StatusOr<std::vector<x509::X509Ptr>> roots = x509::CertificatesFromPem(ca_pem);
  if (!roots.ok()) {
    return roots.status();
  }
  for (const x509::X509Ptr& root : *roots) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) != 1) {
      return x509::OpensslFailure("a root of ca=");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<x509::SslCtxPtr> MakeContext(const ServerTrust& trust, ServerJudge* judge) {
  x509::SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr || SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) != 1) {
    return x509::OpensslFailure("a TLS context");
  }
  SSL_CTX_set_security_level(context.get(), kSecurityLevel);
  SSL_CTX_set_options(context.get(),
                      SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_cert_verify_callback(context.get(), &ServerJudge::OnVerify, judge);
  if (!trust.id.has_value()) {
    if (absl::Status added = AddRoots(context.get(), trust.ca_pem); !added.ok()) {
      return added;
    }
  }
  return context;
}

// The name to ask for, and under https_web the one that the certificate must have.
absl::Status NameServer(SSL* ssl, const std::string& host, bool check) {
  const bool is_ip = base::IpAddress::Parse(host).ok();
  X509_VERIFY_PARAM* const rules = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_hostflags(
      rules, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  const bool named = is_ip || SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
  const bool checked =
      !check || (is_ip ? X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str())
                       : X509_VERIFY_PARAM_set1_host(rules, host.c_str(), host.size())) == 1;
  return named && checked ? absl::OkStatus() : x509::OpensslFailure("the server's name");
}

absl::StatusOr<base::UniqueFd> ConnectTo(const addrinfo& address, const Patience& patience) {
  base::UniqueFd fd(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.is_open()) {
    return absl::UnavailableError(std::strerror(errno));
  }
  if (connect(fd.get(), address.ai_addr, address.ai_addrlen) != 0 && errno != EINPROGRESS) {
    return absl::UnavailableError(std::strerror(errno));
  }
  if (absl::Status ready = patience.Await(fd.get(), POLLOUT); !ready.ok()) {
    return ready;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
    return absl::UnavailableError(std::strerror(error != 0 ? error : errno));
  }
  return fd;
}

struct FreeAddresses {
  void operator()(addrinfo* addresses) const noexcept { freeaddrinfo(addresses); }
};

absl::StatusOr<base::UniqueFd> Connect(const HttpsUrl& url, const Patience& patience) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(failed == 0 ? found : nullptr);
  if (failed != 0) {
    return absl::UnavailableError(base::StrCat(url.host, ": ", gai_strerror(failed)));
  }
  absl::Status last = absl::UnavailableError("no address");
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    absl::StatusOr<base::UniqueFd> fd = ConnectTo(*one, patience);
    if (fd.ok()) {
      return fd;
    }
    last = fd.status();
  }
  return absl::Status(last.code(), base::StrCat(url.Authority(), ": ", base::Message(last)));
}

// One connection. The judge and the patience are its maker's.
class Connection {
 public:
  Connection(base::UniqueFd fd, x509::BioPtr bio, const ServerJudge& judge,
             const Patience& patience)
      : fd_(std::move(fd)), bio_(std::move(bio)), judge_(judge), patience_(patience) {}

  absl::Status ShakeHands() {
    while (BIO_do_handshake(bio_.get()) != 1) {
      if (absl::Status waited = AwaitRetry("the TLS handshake failed"); !waited.ok()) {
        return waited;
      }
    }
    return absl::OkStatus();
  }

  absl::Status Write(std::string_view text) {
    while (!text.empty()) {
      size_t written = 0;
      if (BIO_write_ex(bio_.get(), text.data(), text.size(), &written) == 1) {
        text.remove_prefix(written);
      } else if (absl::Status waited = AwaitRetry("asking failed"); !waited.ok()) {
        return waited;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadBody() {
    HttpResponse response(kMaxDocumentBytes);
    std::array<char, 16384> buffer{};
    while (true) {
      size_t got = 0;
      if (BIO_read_ex(bio_.get(), buffer.data(), buffer.size(), &got) == 1) {
        const absl::StatusOr<bool> done = response.Feed({buffer.data(), got});
        if (!done.ok()) {
          return done.status();
        }
        if (*done) {
          return response.body();
        }
      } else if (!BIO_should_retry(bio_.get())) {
        const absl::Status ended = response.End(PeerHasClosed());
        return ended.ok() ? absl::StatusOr<std::string>(response.body()) : ended;
      } else if (absl::Status waited = AwaitRetry("reading failed"); !waited.ok()) {
        return waited;
      }
    }
  }

 private:
  // Waits for what the last call lacks; Unauthenticated when it cannot go on at all.
  absl::Status AwaitRetry(std::string_view what) {
    if (BIO_should_retry(bio_.get())) {
      const bool writes = BIO_should_write(bio_.get()) != 0;
      return patience_.Await(fd_.get(), static_cast<short>(writes ? POLLOUT : POLLIN));
    }
    const std::string reason =
        judge_.refusal().empty() ? x509::TakeOpensslReason() : judge_.refusal();
    return absl::UnauthenticatedError(base::StrCat(what, ": ", base::LineSafe(reason)));
  }
  bool PeerHasClosed() const {
    SSL* ssl = nullptr;
    BIO_get_ssl(bio_.get(), &ssl);
    return ssl != nullptr && (SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
  }

  const base::UniqueFd fd_;
  const x509::BioPtr bio_;
  const ServerJudge& judge_;
  const Patience& patience_;
};

absl::StatusOr<x509::BioPtr> MakeBio(SSL_CTX* context, int fd, const HttpsUrl& url, bool by_name) {
  x509::BioPtr bio(BIO_new_ssl(context, 1));
  x509::BioPtr socket(BIO_new_socket(fd, BIO_NOCLOSE));
  SSL* ssl = nullptr;
  if (bio == nullptr || socket == nullptr || BIO_get_ssl(bio.get(), &ssl) != 1) {
    return x509::OpensslFailure("no memory for a connection");
  }
  BIO_push(bio.get(), socket.release());
  if (absl::Status named = NameServer(ssl, url.host, by_name); !named.ok()) {
    return named;
  }
  return bio;
}

std::string RequestFor(const HttpsUrl& url) {
  return base::StrCat("GET ", url.path, " HTTP/1.1\r\nHost: ", url.Authority(),
                      "\r\nAccept: application/json\r\nUser-Agent: postern-identity\r\n"
                      "Connection: close\r\n\r\n");
}

}  // namespace

absl::StatusOr<std::string> HttpsGet(const HttpsUrl& url, const ServerTrust& trust,
                                     const base::Clock& clock, const std::atomic<bool>* cancelled) {
  const x509::ErrorQueueGuard guard;
  if (trust.id.has_value() && trust.bundles == nullptr) {
    return absl::UnauthenticatedError(
        base::StrCat("no bundle is held of '", trust.id->trust_domain_name(),
                     "', so its endpoint cannot be told from another"));
  }
  const Patience patience{Steady::now() + absl::ToChronoMilliseconds(kFetchDeadline), cancelled};
  ServerJudge judge(trust, clock.Now());
  const absl::StatusOr<x509::SslCtxPtr> context = MakeContext(trust, &judge);
  if (!context.ok()) {
    return context.status();
  }
  absl::StatusOr<base::UniqueFd> fd = Connect(url, patience);
  if (!fd.ok()) {
    return fd.status();
  }
  absl::StatusOr<x509::BioPtr> bio = MakeBio(context->get(), fd->get(), url, !trust.id.has_value());
  if (!bio.ok()) {
    return bio.status();
  }
  Connection connection(*std::move(fd), *std::move(bio), judge, patience);
  absl::Status done = connection.ShakeHands();
  if (done.ok()) {
    done = connection.Write(RequestFor(url));
  }
  if (!done.ok()) {
    return done;
  }
  return connection.ReadBody();
}

}  // namespace postern::federation
