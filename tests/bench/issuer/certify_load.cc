// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/issuer/certify_load.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/csr.h"
#include "common/x509/key.h"
#include "postern/v1/identity.pb.h"

namespace postern::bench {
namespace {

constexpr char kCertify[] = "/postern.v1.Identity/Certify";
constexpr absl::Duration kPatience = absl::Minutes(3);
constexpr size_t kEnrollAtOnce = 16;

absl::StatusOr<Credential> CredentialFrom(std::string_view message, EVP_PKEY* key) {
  v1::CertifyResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size())) ||
      response.chain_der().empty()) {
    return absl::InternalError("an answer without a certificate");
  }
  Credential credential;
  credential.key = key;
  for (const std::string& der : response.chain_der()) {
    auto certificate = x509::CertificateFromDer(base::AsBytes(der));
    if (!certificate.ok()) {
      return certificate.status();
    }
    credential.chain.push_back(*std::move(certificate));
  }
  return credential;
}

Credential Share(const Credential& credential) {
  Credential shared;
  shared.key = credential.key;
  for (const x509::X509Ptr& certificate : credential.chain) {
    shared.chain.push_back(x509::ShareX509(certificate.get()));
  }
  return shared;
}

// Keeps a number of renewals going: on standing connections, or on a new one for each.
class Renewals final : public ConnectionUser {
 public:
  Renewals(Swarm& swarm, const RequestPool& pool, std::vector<Credential>& credentials, bool fresh)
      : swarm_(swarm), pool_(pool), credentials_(credentials), fresh_(fresh) {
    for (const std::string& csr : pool.csrs) {
      v1::CertifyRequest request;
      request.set_csr_der(csr);
      request.mutable_existing_certificate();
      requests_.push_back(request.SerializeAsString());
    }
  }

  void Begin(size_t concurrency) {
    slots_.resize(concurrency);
    for (size_t i = 0; i < concurrency; ++i) {
      Connect(i);
    }
  }
  void Reset() {
    done_ = 0;
    times_.clear();
  }

  void OnOpen(LightConnection& connection) override { Ask(connection); }

  void OnMessage(LightConnection& connection, std::string_view message) override {
    Slot& slot = slots_[connection.index()];
    slot.answered = true;
    times_.push_back(absl::Now() - slot.begun);
    ++done_;
    // Parsing each new certificate would be the client's cost; a fresh connection presents one that
    // was enrolled or kept before.
    if (keep_ != nullptr && keep_->size() < keep_count_) {
      absl::StatusOr<Credential> made = CredentialFrom(message, pool_.keys[slot.request].get());
      if (!made.ok()) {
        Note(base::Message(made.status()));
        return;
      }
      keep_->push_back(*std::move(made));
    }
  }

  void OnCallEnd(LightConnection& connection, std::string_view trailers) override {
    if (!slots_[connection.index()].answered) {
      Note(trailers);
    }
    if (!fresh_) {
      Ask(connection);
      return;
    }
    const size_t slot = connection.index();
    connection.Close();
    Connect(slot);
  }

  void OnFailure(LightConnection& connection, std::string_view reason) override {
    Note(reason);
    if (failures_ < 1000) {
      Connect(connection.index());
    }
  }

  void KeepInto(std::vector<Credential>* keep, size_t count) {
    keep_ = keep;
    keep_count_ = count;
  }
  size_t done() const { return done_; }
  size_t failures() const { return failures_; }
  const std::string& first_failure() const { return first_failure_; }
  std::vector<absl::Duration>& times() { return times_; }

 private:
  struct Slot {
    absl::Time begun;
    size_t request = 0;
    bool answered = false;
  };

  void Connect(size_t slot) {
    const size_t number = next_++;
    slots_[slot].begun = absl::Now();
    // An address for each of some thousand workloads, so that no port of one runs out.
    const auto source = static_cast<uint32_t>((2U << 16U) + 1 + number % 60000);
    if (swarm_.Open(credentials_[number % credentials_.size()], source, *this, slot) == nullptr) {
      Note("no connection");
    }
  }

  void Ask(LightConnection& connection) {
    Slot& slot = slots_[connection.index()];
    slot.request = next_request_++ % requests_.size();
    slot.answered = false;
    if (!fresh_) {
      slot.begun = absl::Now();
    }
    connection.StartCall(kCertify, requests_[slot.request], true);
  }

  void Note(std::string_view reason) {
    if (failures_++ == 0) {
      first_failure_ = base::Printable(reason);
    }
  }

  Swarm& swarm_;
  const RequestPool& pool_;
  std::vector<Credential>& credentials_;
  const bool fresh_;
  std::vector<std::string> requests_;
  std::vector<Slot> slots_;
  size_t next_ = 0;
  size_t next_request_ = 0;
  size_t done_ = 0;
  size_t failures_ = 0;
  std::string first_failure_;
  std::vector<absl::Duration> times_;
  std::vector<Credential>* keep_ = nullptr;
  size_t keep_count_ = 0;
};

absl::Duration Quantile(std::vector<absl::Duration>& sorted, double part) {
  if (sorted.empty()) {
    return absl::ZeroDuration();
  }
  return sorted[std::min(sorted.size() - 1,
                         static_cast<size_t>(part * static_cast<double>(sorted.size())))];
}

// One certificate by join token, over a connection without one.
class Enrollment final : public ConnectionUser {
 public:
  Enrollment(std::string message, EVP_PKEY* key) : message_(std::move(message)), key_(key) {}
  void OnOpen(LightConnection& connection) override {
    connection.StartCall(kCertify, message_, true);
  }
  void OnMessage(LightConnection& /*connection*/, std::string_view message) override {
    result_ = CredentialFrom(message, key_);
  }
  void OnCallEnd(LightConnection& connection, std::string_view trailers) override {
    if (absl::IsUnknown(result_.status())) {
      result_ = absl::InternalError(base::Printable(trailers));
    }
    ended_ = true;
    connection.Close();
  }
  void OnFailure(LightConnection& /*connection*/, std::string_view reason) override {
    result_ = absl::UnavailableError(base::ToAbsl(reason));
    ended_ = true;
  }
  bool ended() const { return ended_; }
  absl::StatusOr<Credential>& result() { return result_; }

 private:
  std::string message_;
  EVP_PKEY* key_;
  bool ended_ = false;
  absl::StatusOr<Credential> result_ = absl::UnknownError("nothing came");
};

absl::StatusOr<std::string> TokenRequest(IssuerUnderTest& issuer, const std::string& csr,
                                         size_t number) {
  v1::CreateTokenRequest wanted;
  wanted.mutable_entry()->set_spiffe_id(base::StrCat("spiffe://bench.test/workload/", number));
  const auto token = issuer.admin().CreateToken(wanted);
  if (!token.ok()) {
    return token.status();
  }
  v1::CertifyRequest request;
  request.set_csr_der(csr);
  request.mutable_join_token()->set_token(token->token());
  return request.SerializeAsString();
}

}  // namespace

absl::StatusOr<RequestPool> MakeRequestPool(size_t size) {
  RequestPool pool;
  for (size_t i = 0; i < size; ++i) {
    auto key = x509::GenerateP256Key();
    if (!key.ok()) {
      return key.status();
    }
    auto csr = x509::CreateCsr(key->get(), std::nullopt);
    if (!csr.ok()) {
      return csr.status();
    }
    pool.keys.push_back(*std::move(key));
    pool.csrs.push_back(*std::move(csr));
  }
  return pool;
}

absl::StatusOr<std::vector<Credential>> Enroll(IssuerUnderTest& issuer, const RequestPool& pool,
                                               size_t count) {
  Swarm swarm(issuer.port());
  std::vector<Credential> credentials;
  while (credentials.size() < count) {
    std::vector<std::unique_ptr<Enrollment>> group;
    for (size_t i = 0; i < kEnrollAtOnce && credentials.size() + i < count; ++i) {
      const size_t number = credentials.size() + i;
      auto request = TokenRequest(issuer, pool.csrs[number % pool.csrs.size()], number);
      if (!request.ok()) {
        return request.status();
      }
      EVP_PKEY* const key = pool.keys[number % pool.keys.size()].get();
      group.push_back(std::make_unique<Enrollment>(*std::move(request), key));
      if (swarm.Open({}, static_cast<uint32_t>((3U << 16U) + 1 + number), *group.back(), number) ==
          nullptr) {
        return absl::UnavailableError("no connection");
      }
    }
    swarm.RunUntil(
        [&group] {
          return std::all_of(group.begin(), group.end(), [](const auto& e) { return e->ended(); });
        },
        kPatience);
    for (const auto& enrollment : group) {
      if (!enrollment->result().ok()) {
        return enrollment->result().status();
      }
      credentials.push_back(*std::move(enrollment->result()));
    }
  }
  return credentials;
}

CertifyResult RunCertify(IssuerUnderTest& issuer, const RequestPool& pool,
                         std::vector<Credential>& credentials, const CertifyPlan& plan) {
  Swarm swarm(issuer.port());
  Renewals renewals(swarm, pool, credentials, plan.fresh);
  const auto never = [] { return false; };
  renewals.Begin(plan.concurrency);
  swarm.RunUntil(never, plan.warm_up);
  renewals.Reset();
  const absl::Time begun = absl::Now();
  const absl::Duration cpu = issuer.Cpu();
  swarm.RunUntil(never, plan.duration);
  CertifyResult result;
  result.concurrency = plan.concurrency;
  result.fresh = plan.fresh;
  result.wall = absl::Now() - begun;
  result.cpu = issuer.Cpu() - cpu;
  result.certificates = renewals.done();
  result.failures = renewals.failures();
  result.first_failure = renewals.first_failure();
  std::sort(renewals.times().begin(), renewals.times().end());
  result.median = Quantile(renewals.times(), 0.5);
  result.p99 = Quantile(renewals.times(), 0.99);
  return result;
}

absl::StatusOr<std::vector<Credential>> RenewEach(IssuerUnderTest& issuer, const RequestPool& pool,
                                                  std::vector<Credential>& credentials,
                                                  size_t count) {
  Swarm swarm(issuer.port());
  std::vector<Credential> made;
  for (const Credential& credential : credentials) {
    if (made.size() < count) {
      made.push_back(Share(credential));
    }
  }
  Renewals renewals(swarm, pool, credentials, false);
  renewals.KeepInto(&made, count);
  renewals.Begin(std::min<size_t>(credentials.size(), 64));
  if (!swarm.RunUntil([&] { return made.size() >= count; }, kPatience)) {
    return absl::DeadlineExceededError(
        base::StrCat("only ", made.size(), " certificates: ", renewals.first_failure()));
  }
  return made;
}

}  // namespace postern::bench
