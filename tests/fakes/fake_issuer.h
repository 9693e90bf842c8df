// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>
#include <openssl/evp.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/rpc/issuer_server.h"
#include "common/x509/certificate.h"
#include "common/x509/csr.h"
#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "common/x509/public_key.h"
#include "common/x509/revocation_set.h"
#include "postern/v1/identity.grpc.pb.h"
#include "postern/v1/mesh.grpc.pb.h"
#include "tests/testing/test_ca.h"

namespace postern::fakes {

// An issuer for the tests of its clients: a real gRPC server on 127.0.0.1 over the real
// credentials, that signs what it is asked for with a TestCa, remembers what happened, and
// misbehaves on demand. Tokens are single use. Every method may be called from any thread. A header
// alone, so that only its users link gRPC.
class FakeIssuer {
 public:
  explicit FakeIssuer(const std::string& trust_domain = "example.org")
      : root_(trust_domain), intermediate_(root_.Intermediate()), identity_(*this), mesh_(*this) {
    SetBundles({});
  }
  ~FakeIssuer() { Stop(); }
  FakeIssuer(const FakeIssuer&) = delete;
  FakeIssuer& operator=(const FakeIssuer&) = delete;

  // Up, on the port that it had before if it was up before.
  void Start() {
    const std::string uri = root_.trust_domain().ToUri() + "/postern/identity";
    credentials_ =
        rpc::IssuerServerCredentials::Create(intermediate_.Issue(uri), root_.root()).value();
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_), credentials_->credentials(),
                             &port_);
    builder.RegisterService(&identity_);
    builder.RegisterService(&mesh_);
    rpc::ApplyServerLimits(builder);
    server_ = builder.BuildAndStart();
  }
  // Down: connections end, streams break.
  void Stop() {
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
      server_.reset();
    }
  }
  // A port that nobody listens on yet, for a client that starts first.
  void ReservePort() {
    Start();
    Stop();
  }
  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }
  const testing::TestCa& root() const { return root_; }

  // Certify.
  void AddToken(const std::string& token, const std::string& spiffe_id) {
    const std::lock_guard lock(mutex_);
    tokens_[token] = spiffe_id;
  }
  // A member, by the selector of its key (x509::MemberKeySelector).
  void AddMember(const std::string& selector, const std::string& spiffe_id) {
    const std::lock_guard lock(mutex_);
    members_[selector] = spiffe_id;
  }
  void RemoveMembers() {
    const std::lock_guard lock(mutex_);
    members_.clear();
  }
  // What it calls itself when it gives a challenge, in place of its own name.
  void CallItself(const std::string& spiffe_id) { Set(own_name_, spiffe_id); }
  void SetTtl(absl::Duration ttl) { Set(ttl_, ttl); }
  void FailCertify(std::optional<grpc::Status> status) { Set(certify_failure_, std::move(status)); }
  void SetRetryAfter(int milliseconds) { Set(retry_after_ms_, milliseconds); }
  void SetCertifyDelay(absl::Duration delay) { Set(certify_delay_, delay); }
  // Signs with a CA that its bundles do not hold.
  void SignWithAForeignCa(bool on) { Set(foreign_, on); }
  // Says with each certificate that its stream begins with a list of revocations.
  void PromiseRevocations() { Set(sends_revocations_, true); }
  // From now on this certificate is refused, for a stream and for a renewal; streams are broken.
  void Refuse(const std::string& serial) {
    {
      const std::lock_guard lock(mutex_);
      refused_serials_.insert(serial);
    }
    BreakStreams();
  }
  // It is taken again, as when its revocation was lifted.
  void TakeAgain(const std::string& serial) {
    const std::lock_guard lock(mutex_);
    refused_serials_.erase(serial);
  }
  // How far its clock is ahead of the real one.
  void SetClockOffset(absl::Duration offset) { Set(clock_offset_, offset); }

  // "token", "certificate SERIAL", "unix", "challenge" or "member", of each answered or refused
  // request.
  std::vector<std::string> requests() const { return Get(requests_); }
  // Of each certificate, in the order of signing.
  std::vector<std::string> serials() const { return Get(serials_); }

  // The bundles: its own root, and these besides. Pushed to every stream.
  void SetBundles(const std::vector<const testing::TestCa*>& others) {
    const std::lock_guard lock(mutex_);
    bundles_.Clear();
    *bundles_.mutable_version() = NextVersion();
    AddBundle(root_);
    for (const testing::TestCa* other : others) {
      AddBundle(*other);
    }
    Push([this](v1::MeshResponse& response) { *response.mutable_bundles() = bundles_; });
  }
  // A set from which its own root is missing: a client's certificate does not verify any more.
  void WithdrawRoot(const testing::TestCa& instead) {
    const std::lock_guard lock(mutex_);
    bundles_.Clear();
    *bundles_.mutable_version() = NextVersion();
    AddBundle(instead);
    Push([this](v1::MeshResponse& response) { *response.mutable_bundles() = bundles_; });
  }
  void SetPolicy(const std::vector<std::pair<std::string, std::string>>& documents) {
    const std::lock_guard lock(mutex_);
    policy_.emplace();
    *policy_->mutable_version() = NextVersion();
    for (const auto& [name, yaml] : documents) {
      auto* document = policy_->add_documents();
      document->set_name(name);
      document->set_yaml(yaml);
    }
    Push([this](v1::MeshResponse& response) { *response.mutable_policy() = *policy_; });
  }
  // Pushed to every stream, under a version of its own. `signer` null: its intermediate signs.
  void SetRevocations(const std::vector<v1::Revocation>& revocations,
                      const testing::TestCa* signer = nullptr) {
    const std::lock_guard lock(mutex_);
    v1::RevocationList list;
    *list.mutable_version() = NextVersion();
    for (const v1::Revocation& revocation : revocations) {
      *list.add_revocations() = revocation;
    }
    SignAndPush(list, signer == nullptr ? intermediate_ : *signer);
  }
  // A list as it was before: a roll-back.
  void SendRevocations(uint64_t epoch, uint64_t sequence) {
    const std::lock_guard lock(mutex_);
    v1::RevocationList list;
    list.mutable_version()->set_epoch(epoch);
    list.mutable_version()->set_sequence(sequence);
    SignAndPush(list, intermediate_);
  }
  uint64_t sequence() const { return Get(sequence_); }
  // What (ip, port) is from now on; no IDs: nothing of the mesh.
  void SetEndpoint(const std::string& ip, uint32_t port, const std::vector<std::string>& ids) {
    const std::lock_guard lock(mutex_);
    const auto parsed = base::IpAddress::Parse(ip).value();
    v1::Address asked;
    asked.set_address(std::string(base::AsText(parsed.bytes())));
    asked.set_port(port);
    endpoints_[asked.SerializeAsString()] = ids;
    for (Client* client : clients_) {
      if (client->subscribed.contains(asked.SerializeAsString())) {
        SendAnswer(*client, asked);
      }
    }
  }

  // Mesh. `kind` is a v1::Kind.
  struct AckSeen {
    int kind = 0;
    uint64_t sequence = 0;
    std::string error;
  };
  std::vector<AckSeen> acks() const { return Get(acks_); }
  std::vector<v1::MeshRequest::Hello> hellos() const { return Get(hellos_); }
  // The serial of the certificate of each stream that ever began.
  std::vector<std::string> stream_serials() const { return Get(stream_serials_); }
  size_t open_streams() const {
    const std::lock_guard lock(mutex_);
    return clients_.size();
  }
  size_t subscriptions() const {
    const std::lock_guard lock(mutex_);
    size_t count = 0;
    for (const Client* client : clients_) {
      count += client->subscribed.size();
    }
    return count;
  }
  // Breaks every stream with this status.
  void BreakStreams() {
    const std::lock_guard lock(mutex_);
    for (Client* client : clients_) {
      client->context->TryCancel();
    }
  }

 private:
  using MeshServer = grpc::ServerReaderWriter<v1::MeshResponse, v1::MeshRequest>;
  struct Client {
    grpc::ServerContext* context = nullptr;
    MeshServer* stream = nullptr;
    std::set<std::string> subscribed;
  };

  struct IdentityService final : v1::Identity::Service {
    explicit IdentityService(FakeIssuer& owner) : issuer(owner) {}
    grpc::Status Certify(grpc::ServerContext* context, const v1::CertifyRequest* request,
                         v1::CertifyResponse* response) override {
      return issuer.Certify(*context, *request, *response);
    }
    grpc::Status Challenge(grpc::ServerContext* context, const v1::ChallengeRequest* /*request*/,
                           v1::ChallengeResponse* response) override {
      return issuer.Challenge(*context, *response);
    }
    FakeIssuer& issuer;
  };
  struct MeshService final : v1::Mesh::Service {
    explicit MeshService(FakeIssuer& owner) : issuer(owner) {}
    grpc::Status Stream(grpc::ServerContext* context, MeshServer* stream) override {
      return issuer.Serve(*context, *stream);
    }
    FakeIssuer& issuer;
  };

  template <typename T, typename U>
  void Set(T& field, U value) {
    const std::lock_guard lock(mutex_);
    field = std::move(value);
  }
  template <typename T>
  T Get(const T& field) const {
    const std::lock_guard lock(mutex_);
    return field;
  }

  // Whose client this is; empty: nobody's of ours.
  std::string ClientOf(const grpc::ServerContext& context, std::string* serial) const {
    const auto verdict = rpc::VerifyClient(*context.auth_context(), root_.BundleSet(),
                                           {intermediate_.Intermediates()}, absl::Now());
    if (!verdict.peer.has_value()) {
      return {};
    }
    *serial = verdict.peer->serial;
    return verdict.peer->id.uri();
  }

  std::string OwnName() const { return root_.trust_domain().ToUri() + "/postern/identity"; }

  grpc::Status Challenge(const grpc::ServerContext& context, v1::ChallengeResponse& response) {
    const std::lock_guard lock(mutex_);
    requests_.push_back("challenge");
    std::string& challenge = challenges_[context.peer()];
    challenge = std::string(x509::kChallengeBytes, static_cast<char>('a' + challenges_.size()));
    response.set_challenge(challenge);
    response.set_issuer_spiffe_id(own_name_.empty() ? OwnName() : own_name_);
    return grpc::Status::OK;
  }

  // Whose key this is, when it answers the challenge of its connection; with mutex_ held. Empty:
  // nobody's, or it does not.
  std::string MemberOf(const grpc::ServerContext& context, const v1::CertifyRequest& request) {
    const auto& shown = request.enrolled_key();
    const auto csr = x509::VerifyCsr(base::AsBytes(request.csr_der()));
    const auto key = x509::MemberKeyFromDer(base::AsBytes(shown.public_key_der()));
    const std::string challenge = std::exchange(challenges_[context.peer()], {});
    if (!csr.ok() || !key.ok() || challenge != shown.challenge()) {
      return {};
    }
    const std::string csr_key = x509::PublicKeyToDer(csr->public_key.get()).value();
    const auto proven = x509::VerifyMemberStatement(
        key->get(), {challenge, base::AsBytes(csr_key), x509::SpiffeId::Parse(OwnName()).value()},
        base::AsBytes(shown.signature()));
    const auto member =
        members_.find(x509::MemberKeySelector(base::AsBytes(shown.public_key_der())));
    return proven.ok() && member != members_.end() ? member->second : std::string();
  }

  grpc::Status Certify(grpc::ServerContext& context, const v1::CertifyRequest& request,
                       v1::CertifyResponse& response) {
    std::unique_lock lock(mutex_);
    std::string serial;
    std::string id;
    if (request.has_join_token()) {
      requests_.push_back("token");
    } else if (request.has_enrolled_key()) {
      requests_.push_back("member");
      id = MemberOf(context, request);
    } else {
      id = ClientOf(context, &serial);
      requests_.push_back(request.has_unix_peer() ? "unix" : "certificate " + serial);
    }
    if (const absl::Duration delay = certify_delay_; delay > absl::ZeroDuration()) {
      lock.unlock();
      absl::SleepFor(delay);
      lock.lock();
    }
    if (certify_failure_.has_value()) {
      if (retry_after_ms_ > 0) {
        context.AddTrailingMetadata("postern-retry-after-ms", std::to_string(retry_after_ms_));
      }
      return *certify_failure_;
    }
    if (request.has_join_token()) {
      const auto at = tokens_.find(request.join_token().token());
      if (at == tokens_.end()) {
        return {grpc::StatusCode::UNAUTHENTICATED, "no such token"};
      }
      id = at->second;
      tokens_.erase(at);
    }
    if (id.empty()) {
      return {grpc::StatusCode::UNAUTHENTICATED, "no certificate of ours"};
    }
    if (request.has_existing_certificate() && refused_serials_.contains(serial)) {
      return {grpc::StatusCode::PERMISSION_DENIED, "it was revoked"};
    }
    return Sign(request, id, response);
  }

  grpc::Status Sign(const v1::CertifyRequest& request, const std::string& id,
                    v1::CertifyResponse& response) {
    const auto csr = x509::VerifyCsr(base::AsBytes(request.csr_der()));
    if (!csr.ok()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, std::string(csr.status().message())};
    }
    const testing::TestCa foreign(root_.trust_domain().name());
    const testing::TestCa& ca = foreign_ ? foreign : intermediate_;
    const absl::Time now = absl::Now() + clock_offset_;
    testing::CertificateSpec spec = testing::LeafSpec(id);
    spec.LivesFrom(now, ttl_);
    const x509::X509Ptr leaf = ca.Sign(csr->public_key.get(), spec);
    serials_.push_back(x509::SerialHex(leaf.get()));
    response.add_chain_der(x509::CertificateToDer(leaf.get()));
    for (const auto& intermediate : ca.Intermediates()) {
      response.add_chain_der(x509::CertificateToDer(intermediate.get()));
    }
    response.set_spiffe_id(id);
    response.set_not_before(absl::ToUnixSeconds(x509::NotBefore(leaf.get())));
    response.set_not_after(absl::ToUnixSeconds(x509::NotAfter(leaf.get())));
    response.set_issued_at(absl::ToUnixSeconds(now));
    response.set_issuer_time_ms(absl::ToUnixMillis(now));
    *response.mutable_bundles() = bundles_;
    response.set_sends_revocations(sends_revocations_);
    return grpc::Status::OK;
  }

  grpc::Status Serve(grpc::ServerContext& context, MeshServer& stream) {
    Client client{&context, &stream, {}};
    v1::MeshRequest request;
    {
      const std::lock_guard lock(mutex_);
      std::string serial;
      if (ClientOf(context, &serial).empty()) {
        return {grpc::StatusCode::UNAUTHENTICATED, "no certificate of ours"};
      }
      if (refused_serials_.contains(serial)) {
        return {grpc::StatusCode::PERMISSION_DENIED, "it was revoked"};
      }
      stream_serials_.push_back(serial);
    }
    if (!stream.Read(&request) || !request.has_hello()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "hello comes first"};
    }
    {
      const std::lock_guard lock(mutex_);
      clients_.push_back(&client);
      hellos_.push_back(request.hello());
      Greet(client, request.hello());
    }
    while (stream.Read(&request)) {
      const std::lock_guard lock(mutex_);
      Handle(client, request);
    }
    const std::lock_guard lock(mutex_);
    std::erase(clients_, &client);
    return grpc::Status::OK;
  }

  static bool Holds(const v1::MeshRequest::Hello& hello, v1::Kind kind,
                    const v1::Version& version) {
    for (const auto& held : hello.held()) {
      if (held.kind() == kind && held.version().epoch() == version.epoch() &&
          held.version().sequence() == version.sequence()) {
        return true;
      }
    }
    return false;
  }

  // From here on with mutex_ held.
  void Greet(Client& client, const v1::MeshRequest::Hello& hello) {
    bool said = false;
    if (!Holds(hello, v1::KIND_BUNDLES, bundles_.version())) {
      SendTo(client,
             [this](v1::MeshResponse& response) { *response.mutable_bundles() = bundles_; });
      said = true;
    }
    if (policy_.has_value() && !Holds(hello, v1::KIND_POLICY, policy_->version())) {
      SendTo(client, [this](v1::MeshResponse& response) { *response.mutable_policy() = *policy_; });
      said = true;
    }
    if (revocations_.has_value()) {
      v1::RevocationList list;
      list.ParseFromString(revocations_->list());
      if (!Holds(hello, v1::KIND_REVOCATIONS, list.version())) {
        SendTo(client, [this](v1::MeshResponse& response) {
          *response.mutable_revocations() = *revocations_;
        });
        said = true;
      }
    }
    if (!said) {
      SendTo(client, [](v1::MeshResponse& response) { response.mutable_keep_alive(); });
    }
  }

  void Handle(Client& client, const v1::MeshRequest& request) {
    if (request.has_ack()) {
      acks_.push_back(
          {request.ack().kind(), request.ack().version().sequence(), request.ack().error()});
    }
    for (const auto& address : request.subscribe().addresses()) {
      client.subscribed.insert(address.SerializeAsString());
      SendAnswer(client, address);
    }
    for (const auto& address : request.unsubscribe().addresses()) {
      client.subscribed.erase(address.SerializeAsString());
    }
  }

  void SendAnswer(Client& client, const v1::Address& asked) {
    SendTo(client, [&](v1::MeshResponse& response) {
      auto* update = response.mutable_endpoints();
      *update->mutable_version() = NextVersion();
      auto* answer = update->add_answers();
      *answer->mutable_asked() = asked;
      const auto at = endpoints_.find(asked.SerializeAsString());
      if (at == endpoints_.end() || at->second.empty()) {
        return;
      }
      auto* endpoint = answer->add_endpoints();
      endpoint->set_address(asked.address());
      endpoint->set_port(asked.port());
      endpoint->set_transport(v1::TRANSPORT_DIRECT_TLS);
      for (const std::string& id : at->second) {
        endpoint->add_spiffe_ids(id);
      }
    });
  }

  void SignAndPush(v1::RevocationList& list, const testing::TestCa& ca) {
    list.set_trust_domain(root_.trust_domain().name());
    list.set_issued_at(absl::ToUnixSeconds(absl::Now()));
    revocations_.emplace();
    revocations_->set_list(list.SerializeAsString());
    const std::string statement = x509::RevocationStatement(revocations_->list());
    EVP_MD_CTX* const context = EVP_MD_CTX_new();
    std::string signature(256, '\0');
    size_t size = signature.size();
    const base::ByteSpan bytes = base::AsBytes(statement);
    if (EVP_DigestSignInit(context, nullptr, EVP_sha256(), nullptr, ca.key()) != 1 ||
        EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size,
                       bytes.data(), bytes.size()) != 1) {
      std::abort();
    }
    EVP_MD_CTX_free(context);
    signature.resize(size);
    revocations_->set_signature(signature);
    for (const auto& certificate : ca.Intermediates()) {
      revocations_->add_signer_chain_der(x509::CertificateToDer(certificate.get()));
    }
    Push([this](v1::MeshResponse& response) { *response.mutable_revocations() = *revocations_; });
  }

  template <typename Fill>
  void SendTo(Client& client, Fill fill) {
    v1::MeshResponse response;
    response.set_issuer_time_ms(absl::ToUnixMillis(absl::Now() + clock_offset_));
    fill(response);
    client.stream->Write(response);
  }
  template <typename Fill>
  void Push(Fill fill) {
    for (Client* client : clients_) {
      SendTo(*client, fill);
    }
  }
  void AddBundle(const testing::TestCa& ca) {
    auto* bundle = bundles_.add_bundles();
    bundle->set_trust_domain(ca.trust_domain().name());
    bundle->add_root_der(x509::CertificateToDer(ca.root()));
  }
  v1::Version NextVersion() {
    v1::Version version;
    version.set_epoch(1);
    version.set_sequence(++sequence_);
    return version;
  }

  const testing::TestCa root_;
  const testing::TestCa intermediate_;
  IdentityService identity_;
  MeshService mesh_;
  std::unique_ptr<rpc::IssuerServerCredentials> credentials_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;

  mutable std::mutex mutex_;  // guards everything below
  std::map<std::string, std::string> tokens_;
  std::map<std::string, std::string> members_;
  std::map<std::string, std::string> challenges_;  // by connection; empty: used
  std::string own_name_;
  absl::Duration ttl_ = absl::Hours(1);
  std::optional<grpc::Status> certify_failure_;
  int retry_after_ms_ = 0;
  absl::Duration certify_delay_;
  bool foreign_ = false;
  bool sends_revocations_ = false;
  std::set<std::string> refused_serials_;
  absl::Duration clock_offset_;
  std::vector<std::string> requests_;
  std::vector<std::string> serials_;
  uint64_t sequence_ = 0;
  v1::BundleSet bundles_;
  std::optional<v1::PolicyDocuments> policy_;
  std::optional<v1::SignedRevocations> revocations_;
  std::map<std::string, std::vector<std::string>> endpoints_;
  std::vector<Client*> clients_;
  std::vector<AckSeen> acks_;
  std::vector<v1::MeshRequest::Hello> hellos_;
  std::vector<std::string> stream_serials_;
};

}  // namespace postern::fakes
