// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/issuer/mesh_load.h"

#include <algorithm>
#include <thread>

#include "absl/time/clock.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "postern/v1/mesh.pb.h"

namespace postern::bench {
namespace {

constexpr char kStream[] = "/postern.v1.Mesh/Stream";
constexpr absl::Duration kPatience = absl::Minutes(10);
constexpr size_t kConnectingAtOnce = 128;  // handshakes under way

// The simulated proxies: they say hello, acknowledge what they get, and count it.
class Proxies final : public ConnectionUser {
 public:
  Proxies(Swarm& swarm, const std::vector<Credential>& credentials, size_t count)
      : swarm_(swarm), credentials_(credentials), count_(count), greeted_(count, false) {
    v1::MeshRequest request;
    request.mutable_hello()->set_proxy_version("bench");
    request.mutable_hello()->add_serving()->set_transport(v1::TRANSPORT_DIRECT_TLS);
    hello_ = request.SerializeAsString();
  }

  bool Connect() {
    while (opened_ < count_ && opened_ - greeted_count_ < kConnectingAtOnce) {
      const auto source = static_cast<uint32_t>((1U << 16U) + 1 + opened_);
      if (swarm_.Open(credentials_[opened_ % credentials_.size()], source, *this, opened_) ==
          nullptr) {
        Note("no connection");
        return false;
      }
      ++opened_;
    }
    return true;
  }

  void OnOpen(LightConnection& connection) override {
    connection.StartCall(kStream, hello_, false);
  }

  void OnMessage(LightConnection& connection, std::string_view message) override {
    if (!greeted_[connection.index()]) {
      greeted_[connection.index()] = true;
      ++greeted_count_;
    }
    v1::MeshResponse response;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      Note("an answer that does not parse");
      return;
    }
    v1::MeshRequest answer;
    if (response.has_bundles()) {
      answer.mutable_ack()->set_kind(v1::KIND_BUNDLES);
      *answer.mutable_ack()->mutable_version() = response.bundles().version();
    } else if (response.has_policy()) {
      const v1::Version& version = response.policy().version();
      answer.mutable_ack()->set_kind(v1::KIND_POLICY);
      *answer.mutable_ack()->mutable_version() = version;
      arrivals_.push_back({version.sequence(), absl::Now()});
    } else {
      return;  // a keep-alive
    }
    connection.SendMessage(answer.SerializeAsString());
  }

  void OnCallEnd(LightConnection& connection, std::string_view trailers) override {
    Note(trailers);
    connection.Close();
  }
  void OnFailure(LightConnection& /*connection*/, std::string_view reason) override {
    Note(reason);
  }

  // The times at which a policy of exactly this sequence came, sorted.
  std::vector<absl::Time> ArrivalsOf(uint64_t sequence) const {
    std::vector<absl::Time> times;
    for (const Arrival& arrival : arrivals_) {
      if (arrival.sequence == sequence) {
        times.push_back(arrival.at);
      }
    }
    std::sort(times.begin(), times.end());
    return times;
  }
  size_t arrivals() const { return arrivals_.size(); }
  void ForgetArrivals() { arrivals_.clear(); }

  size_t greeted() const { return greeted_count_; }
  size_t failures() const { return failures_; }
  const std::string& first_failure() const { return first_failure_; }

 private:
  struct Arrival {
    uint64_t sequence;
    absl::Time at;
  };
  void Note(std::string_view reason) {
    if (failures_++ == 0) {
      first_failure_ = base::Printable(reason);
    }
  }

  Swarm& swarm_;
  const std::vector<Credential>& credentials_;
  const size_t count_;
  std::vector<bool> greeted_;
  std::string hello_;
  size_t opened_ = 0;
  size_t greeted_count_ = 0;
  size_t failures_ = 0;
  std::string first_failure_;
  std::vector<Arrival> arrivals_;
};

absl::Status Stuck(std::string_view what, const Proxies& proxies, size_t count) {
  return absl::DeadlineExceededError(base::StrCat(
      what, ": ", count, " wanted, ", proxies.greeted(), " connected, ", proxies.arrivals(),
      " reached, ", proxies.failures(), " failed: ", proxies.first_failure()));
}

v1::PolicyDocuments Policy(int number) {
  v1::PolicyDocuments documents;
  for (int i = 0; i < 4; ++i) {
    v1::PolicyDocuments::Document& document = *documents.add_documents();
    document.set_name(base::StrCat("rules-", i, ".yaml"));
    document.set_yaml(base::StrCat("# change ", number, "\n", std::string(200, '#'), "\n"));
  }
  return documents;
}

// The change is asked for on a thread of its own, while this one serves the streams.
absl::StatusOr<ChangeResult> Change(IssuerUnderTest& issuer, Swarm& swarm, Proxies& proxies,
                                    size_t count, int number) {
  proxies.ForgetArrivals();
  const absl::Duration cpu = issuer.Cpu();
  const absl::Time begun = absl::Now();
  absl::StatusOr<v1::PolicyDocuments> put = absl::UnknownError("no answer");
  std::thread asking([&] { put = issuer.admin().PutPolicy(Policy(number)); });
  const bool reached = swarm.RunUntil(
      [&] { return proxies.arrivals() >= count || proxies.failures() > 0; }, kPatience);
  asking.join();
  if (!put.ok()) {
    return put.status();
  }
  const std::vector<absl::Time> times = proxies.ArrivalsOf(put->version().sequence());
  if (!reached || times.size() != count) {
    return Stuck("policy change", proxies, count);
  }
  return ChangeResult{.all = times.back() - begun,
                      .median = times[times.size() / 2] - begun,
                      .cpu = issuer.Cpu() - cpu};
}

// The issuer's own word for it: every stream is connected and has acknowledged the last change.
absl::Status CheckAcknowledged(IssuerUnderTest& issuer, Swarm& swarm, size_t count) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  size_t acknowledged = 0;
  while (absl::Now() < deadline) {
    // While it answers, the streams' acknowledgements are under way in the kernel.
    swarm.RunUntil([] { return false; }, absl::Milliseconds(200));
    const auto status = issuer.admin().GetStatus();
    if (!status.ok()) {
      return status.status();
    }
    acknowledged = 0;
    for (const v1::IssuerStatus::Proxy& proxy : status->proxies()) {
      acknowledged +=
          proxy.acked_policy().sequence() == status->policy_version().sequence() &&
                  proxy.acked_bundles().sequence() == status->bundle_version().sequence()
              ? 1U
              : 0U;
    }
    if (acknowledged == count && status->connected_proxies() == count) {
      return absl::OkStatus();
    }
  }
  return absl::DeadlineExceededError(
      base::StrCat("the issuer knows of ", acknowledged, " acknowledgements of ", count));
}

}  // namespace

absl::StatusOr<MeshResult> RunMesh(IssuerUnderTest& issuer,
                                   const std::vector<Credential>& credentials, size_t count,
                                   int changes) {
  Swarm swarm(issuer.port());
  Proxies proxies(swarm, credentials, count);
  MeshResult result;
  result.streams = count;
  result.pss_before_kib = issuer.PssKib();
  absl::Duration cpu = issuer.Cpu();
  const absl::Time begun = absl::Now();
  const bool connected = swarm.RunUntil(
      [&] { return !proxies.Connect() || proxies.greeted() == count || proxies.failures() > 0; },
      kPatience);
  result.connect_wall = absl::Now() - begun;
  result.connect_cpu = issuer.Cpu() - cpu;
  if (!connected || proxies.greeted() != count) {
    return Stuck("connecting", proxies, count);
  }
  const auto never = [] { return false; };
  swarm.RunUntil(never, absl::Seconds(1));  // the acknowledgements leave
  result.pss_after_kib = issuer.PssKib();
  cpu = issuer.Cpu();
  swarm.RunUntil(never, absl::Seconds(1));
  result.idle_cpu = issuer.Cpu() - cpu;
  for (int i = 0; i < changes; ++i) {
    absl::StatusOr<ChangeResult> change = Change(issuer, swarm, proxies, count, i);
    if (!change.ok()) {
      return change.status();
    }
    result.changes.push_back(*change);
    if (absl::Status acknowledged = CheckAcknowledged(issuer, swarm, count); !acknowledged.ok()) {
      return acknowledged;
    }
  }
  result.pss_changed_kib = issuer.PssKib();
  return result;
}

}  // namespace postern::bench
