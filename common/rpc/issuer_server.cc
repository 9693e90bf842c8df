// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/issuer_server.h"

#include <grpc/grpc_security.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <openssl/crypto.h>

#include <cstdlib>
#include <mutex>
#include <utility>

#include "common/x509/certificate.h"
#include "common/x509/key.h"

namespace postern::rpc {
namespace {

// Half of the proxies' 20 s: gRPC's default of 5 minutes would end their connections for pinging.
constexpr int kLeastPingIntervalMs = 10'000;
constexpr int kServerKeepAliveMs = 30'000;
constexpr int kServerKeepAliveTimeoutMs = 10'000;

// A PEM private key that is wiped when it goes.
class KeyPem {
 public:
  KeyPem() = default;
  explicit KeyPem(std::string text) : text_(std::move(text)) {}
  ~KeyPem() { OPENSSL_cleanse(text_.data(), text_.size()); }
  KeyPem(const KeyPem&) = delete;
  KeyPem& operator=(const KeyPem&) = delete;
  const char* c_str() const { return text_.c_str(); }

 private:
  std::string text_;
};

// What one connection is served. Immutable.
struct Identity {
  std::string chain_pem;  // with the root
  std::string root_pem;
  KeyPem key_pem;
  uint64_t generation = 0;
};

absl::StatusOr<std::shared_ptr<const Identity>> MakeIdentity(const x509::Svid& svid,
                                                             const X509* root,
                                                             uint64_t generation) {
  auto key_pem = x509::PrivateKeyToPem(svid.key());
  if (!key_pem.ok()) {
    return key_pem.status();
  }
  std::string root_pem = x509::CertificateToPem(root);
  std::string chain_pem = x509::CertificatesToPem(svid.chain()) + root_pem;
  return std::shared_ptr<const Identity>(new Identity{std::move(chain_pem), std::move(root_pem),
                                                      KeyPem(*std::move(key_pem)), generation});
}

}  // namespace

struct IssuerServerCredentials::State {
  // One for each port, because gRPC asks each port's listener for news separately.
  struct Port {
    State* state = nullptr;
    uint64_t served_generation = 0;  // guarded by State::mutex
  };

  std::mutex mutex;
  std::shared_ptr<const Identity> current;   // guarded by mutex
  std::vector<std::unique_ptr<Port>> ports;  // guarded by mutex
  std::shared_ptr<grpc::ServerCredentials> credentials;

  // gRPC's callback, at the start of each handshake, on one of its threads.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* user_data, grpc_ssl_server_certificate_config** config) noexcept;
};

grpc_ssl_certificate_config_reload_status IssuerServerCredentials::State::Fetch(
    void* user_data, grpc_ssl_server_certificate_config** config) noexcept {
  auto* port = static_cast<Port*>(user_data);
  const std::lock_guard lock(port->state->mutex);
  const Identity& identity = *port->state->current;
  if (port->served_generation == identity.generation) {
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  }
  const grpc_ssl_pem_key_cert_pair pair{identity.key_pem.c_str(), identity.chain_pem.c_str()};
  // gRPC insists on roots for the clients, and then verifies nothing with them.
  *config = grpc_ssl_server_certificate_config_create(identity.root_pem.c_str(), &pair, 1);
  port->served_generation = identity.generation;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

namespace {

// The only way into gRPC 1.51 for credentials that change in memory: its C core has a fetcher, its
// C++ layer does not show it, but calls AddPortToServer of whatever credentials it is given.
class FetchingCredentials final : public grpc::ServerCredentials {
 public:
  using AddPort = std::function<void*()>;
  FetchingCredentials(grpc_ssl_server_certificate_config_callback fetch, AddPort add_port)
      : fetch_(fetch), add_port_(std::move(add_port)) {}

  // Nobody may believe that a processor runs, and none does.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    std::abort();
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* core = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY, fetch_, add_port_()));
    if (core == nullptr) {
      return 0;
    }
    const int port = grpc_server_add_http2_port(server, address.c_str(), core);
    grpc_server_credentials_release(core);  // the server holds its own reference
    return port;
  }

  grpc_ssl_server_certificate_config_callback fetch_;
  AddPort add_port_;
};

}  // namespace

IssuerServerCredentials::IssuerServerCredentials(std::shared_ptr<State> state)
    : state_(std::move(state)) {}
IssuerServerCredentials::~IssuerServerCredentials() = default;

absl::StatusOr<std::unique_ptr<IssuerServerCredentials>> IssuerServerCredentials::Create(
    const x509::Svid& svid, const X509* root) {
  auto state = std::make_shared<State>();
  std::unique_ptr<IssuerServerCredentials> made(new IssuerServerCredentials(state));
  if (auto status = made->Replace(svid, root); !status.ok()) {
    return status;
  }
  // A plain pointer: the state owns these credentials.
  state->credentials =
      std::make_shared<FetchingCredentials>(&State::Fetch, [state = state.get()]() -> void* {
        const std::lock_guard lock(state->mutex);
        state->ports.push_back(std::make_unique<State::Port>(State::Port{state, 0}));
        return state->ports.back().get();
      });
  return made;
}

absl::Status IssuerServerCredentials::Replace(const x509::Svid& svid, const X509* root) {
  const std::lock_guard lock(state_->mutex);
  const uint64_t generation = state_->current == nullptr ? 1 : state_->current->generation + 1;
  auto identity = MakeIdentity(svid, root, generation);
  if (!identity.ok()) {
    return identity.status();
  }
  state_->current = *std::move(identity);
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> IssuerServerCredentials::credentials() const {
  return state_->credentials;
}

void ApplyServerLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.SetMaxSendMessageSize(kMaxResponseBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kLeastPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerKeepAliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kServerKeepAliveTimeoutMs);
}

namespace {

// The certificates of a PEM property of the call's connection; empty: there are none to read.
std::vector<x509::X509Ptr> CertificatesOf(const grpc::AuthContext& context, const char* property) {
  const auto values = context.FindPropertyValues(property);
  if (values.size() != 1) {
    return {};
  }
  auto parsed = x509::CertificatesFromPem({values.front().data(), values.front().size()});
  return parsed.ok() ? *std::move(parsed) : std::vector<x509::X509Ptr>();
}

// Whether a property is there once and is just `text`.
bool Presents(const grpc::AuthContext& context, const char* property, std::string_view text) {
  const auto values = context.FindPropertyValues(property);
  return values.size() == 1 && !text.empty() &&
         std::string_view(values.front().data(), values.front().size()) == text;
}

x509::ChainVerdict Refuse(base::CloseReason reason, std::string detail) {
  x509::ChainVerdict verdict;
  verdict.error.reason = reason;
  verdict.error.detail = std::move(detail);
  return verdict;
}

}  // namespace

x509::X509Ptr ClientCertificate(const grpc::AuthContext& context) {
  auto leaf = CertificatesOf(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
  return leaf.empty() ? nullptr : std::move(leaf.front());
}

x509::ChainVerdict VerifyClient(const grpc::AuthContext& context,
                                const x509::TrustBundleSet& bundles,
                                const OwnChain& own_intermediates, absl::Time now) {
  const x509::X509Ptr leaf = ClientCertificate(context);
  if (leaf == nullptr) {
    return Refuse(base::CloseReason::kPeerNoCertificate, "the client presented no certificate");
  }
  // On the server's side this holds what the client sent after its leaf.
  std::vector<x509::X509Ptr> certificates;
  if (!Presents(context, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME, own_intermediates.pem)) {
    certificates = CertificatesOf(context, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME);
  }
  for (const auto& own : own_intermediates.certificates) {
    certificates.push_back(x509::ShareX509(own.get()));
  }
  const x509::X509StackPtr untrusted = x509::ShareX509Stack(certificates);
  if (untrusted == nullptr) {
    return Refuse(base::CloseReason::kInternal, "out of memory");
  }
  return x509::VerifyPeerChain(leaf.get(), untrusted.get(), bundles, x509::PeerRole::kClient, now);
}

}  // namespace postern::rpc
