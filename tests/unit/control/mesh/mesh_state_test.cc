// SPDX-License-Identifier: Apache-2.0
#include "control/mesh/mesh_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/fakes/fake_clock.h"

namespace postern::mesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

x509::SpiffeId Id(std::string_view path) {
  return *x509::SpiffeId::Parse("spiffe://example.org" + std::string(path));
}
base::IpAddress Ip(std::string_view text) {
  return *base::IpAddress::Parse(text);
}
Address At(std::string_view ip, uint16_t port) {
  return {Ip(ip), port};
}

class MeshStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *store::OpenMemoryStore(*x509::TrustDomain::Parse("example.org"), clock_);
    state_ = *MeshState::Create(*store_, clock_);
  }

  struct EntryFacts {
    std::vector<std::string> addresses = {};
    bool publish = false;
    std::vector<uint16_t> ports = {};
  };
  store::Entry Add(std::string_view path, const EntryFacts& facts) {
    store::Entry entry{.spiffe_id = Id(path),
                       .selectors = {"unix:uid:" + std::to_string(++uid_)},
                       .publish_connection_address = facts.publish,
                       .ports = facts.ports};
    for (const std::string& address : facts.addresses) {
      entry.allowed_addresses.push_back(*base::Cidr::Parse(address));
    }
    entry = *store_->entries().CreateEntry(entry);
    EXPECT_TRUE(state_->ReloadEntries().ok());
    return entry;
  }
  std::unique_ptr<Session> Connect(const store::Entry& entry, std::string_view source,
                                   std::atomic<int>* wakes = nullptr) {
    auto session = state_->Connect({entry.spiffe_id, entry.id, Ip(source)}, [wakes] {
      if (wakes != nullptr) {
        ++*wakes;
      }
    });
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }
  void Serve(Session& session, std::vector<uint16_t> ports) {
    std::vector<Serving> serving;
    for (uint16_t port : ports) {
      serving.push_back({.port = port});
    }
    EXPECT_TRUE(session.SetServing(serving).ok());
  }
  // The identities expected at an address, and the port under which they are known.
  std::vector<std::string> Expected(const Address& asked) {
    const Answer answer = state_->Lookup(asked);
    return answer.endpoints.empty() ? std::vector<std::string>() : answer.endpoints[0].spiffe_ids;
  }

  fakes::FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::shared_ptr<MeshState> state_;
  int uid_ = 0;
};

TEST_F(MeshStateTest, PublishesSingleAddressesOfAnEntryWhileItsProxyIsAway) {
  Add("/web", {.addresses = {"198.18.0.7", "fd00:5b::7/128", "198.18.1.0/24"}, .ports = {80}});
  EXPECT_THAT(Expected(At("198.18.0.7", 80)), ElementsAre("spiffe://example.org/web"));
  EXPECT_THAT(Expected(At("fd00:5b::7", 80)), ElementsAre("spiffe://example.org/web"));
  EXPECT_THAT(Expected(At("198.18.0.7", 81)), IsEmpty());
  EXPECT_THAT(Expected(At("198.18.1.0", 80)), IsEmpty()) << "a range names no endpoint";
  EXPECT_THAT(Expected(At("198.18.1.1", 80)), IsEmpty());
}

TEST_F(MeshStateTest, PublishesASourceAddressOnlyIfTheEntryAllowsIt) {
  const auto silent = Add("/silent", {});
  const auto open = Add("/open", {.publish = true});
  const auto ranged = Add("/ranged", {.addresses = {"198.18.2.0/24"}, .publish = true});
  auto a = Connect(silent, "198.18.0.1");
  auto b = Connect(open, "198.18.0.2");
  auto c = Connect(ranged, "198.18.2.9");
  auto d = Connect(ranged, "198.18.3.9");
  for (Session* session : {a.get(), b.get(), c.get(), d.get()}) {
    Serve(*session, {0});
  }
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty());
  EXPECT_THAT(Expected(At("198.18.0.2", 80)), ElementsAre("spiffe://example.org/open"));
  EXPECT_THAT(Expected(At("198.18.2.9", 80)), ElementsAre("spiffe://example.org/ranged"));
  EXPECT_THAT(Expected(At("198.18.3.9", 80)), IsEmpty()) << "outside of the entry's allowance";
}

TEST_F(MeshStateTest, PublishesLoopbackOnlyWhereItIsAllowedByName) {
  const auto open = Add("/open", {.publish = true});
  const auto local = Add("/local", {.addresses = {"127.0.0.0/8"}, .publish = true});
  auto a = Connect(open, "127.0.0.1");
  Serve(*a, {0});
  EXPECT_THAT(Expected(At("127.0.0.1", 80)), IsEmpty());
  auto b = Connect(local, "127.0.0.1");
  Serve(*b, {0});
  EXPECT_THAT(Expected(At("127.0.0.1", 80)), ElementsAre("spiffe://example.org/local"));
}

TEST_F(MeshStateTest, PortsAreTheEntrysElseTheProxysElseAny) {
  const auto fixed = Add(
      "/fixed", {.addresses = {"198.18.0.1", "198.18.9.0/24"}, .publish = true, .ports = {80, 81}});
  const auto free = Add("/free", {.addresses = {"198.18.0.2"}});
  EXPECT_THAT(Expected(At("198.18.0.2", 9)), SizeIs(1)) << "nobody said which: any";
  auto a = Connect(fixed, "198.18.9.1");
  auto b = Connect(free, "198.18.9.2");
  EXPECT_THAT(Expected(At("198.18.0.2", 9)), SizeIs(1)) << "no word before the Hello";
  Serve(*a, {81, 82});
  Serve(*b, {8443});
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), SizeIs(1)) << "the operator's word";
  EXPECT_THAT(Expected(At("198.18.9.1", 81)), SizeIs(1));
  EXPECT_THAT(Expected(At("198.18.9.1", 80)), IsEmpty()) << "not served there";
  EXPECT_THAT(Expected(At("198.18.9.1", 82)), IsEmpty()) << "served, and not allowed";
  EXPECT_THAT(Expected(At("198.18.0.2", 8443)), SizeIs(1));
  EXPECT_THAT(Expected(At("198.18.0.2", 9)), IsEmpty());
}

TEST_F(MeshStateTest, SeveralWorkloadsMayStandAtOneAddress) {
  Add("/b", {.addresses = {"198.18.0.1"}, .ports = {80}});
  Add("/a", {.addresses = {"198.18.0.1"}, .ports = {80}});
  const auto third = Add("/any", {.addresses = {"198.18.0.1"}});
  EXPECT_THAT(Expected(At("198.18.0.1", 80)),
              ElementsAre("spiffe://example.org/a", "spiffe://example.org/b"))
      << "the exact port wins over any";
  EXPECT_THAT(Expected(At("198.18.0.1", 443)), ElementsAre("spiffe://example.org/any"));
  EXPECT_EQ(state_->Lookup(At("198.18.0.1", 443)).endpoints[0].address.port, 0);
  EXPECT_THAT(state_->Lookup(At("198.18.0.1", 0)).endpoints, SizeIs(2));
}

TEST_F(MeshStateTest, AProxyThatWentStaysKnownForAWhileAndNoLonger) {
  const auto entry = Add("/web", {.publish = true});
  auto session = Connect(entry, "198.18.0.1");
  Serve(*session, {80});
  session.reset();
  EXPECT_EQ(state_->connected(), 0U);
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), SizeIs(1)) << "a reconnect must not be a gap";
  clock_.Advance(kLinger - absl::Seconds(1));
  EXPECT_TRUE(state_->Maintain().ok());
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), SizeIs(1));
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(state_->Maintain().ok());
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty());
}

TEST_F(MeshStateTest, AReconnectReplacesWhatLingered) {
  const auto entry = Add("/web", {.publish = true});
  auto session = Connect(entry, "198.18.0.1");
  Serve(*session, {80});
  session.reset();
  session = Connect(entry, "198.18.0.1");
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), SizeIs(1));
  Serve(*session, {81});
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty());
  EXPECT_THAT(Expected(At("198.18.0.1", 81)), SizeIs(1));
  clock_.Advance(kLinger * 2);
  EXPECT_TRUE(state_->Maintain().ok());
  EXPECT_THAT(Expected(At("198.18.0.1", 81)), SizeIs(1));
}

TEST_F(MeshStateTest, ARestartDoesNotForgetWhereTheMeshIs) {
  const auto entry = Add("/web", {.publish = true});
  const auto left = Add("/left", {.publish = true});
  {
    auto session = Connect(entry, "198.18.0.1");
    auto other = Connect(left, "198.18.0.2");
    Serve(*session, {80});
    Serve(*other, {80});
    ASSERT_TRUE(state_->Maintain().ok());
    other.reset();
    clock_.Advance(kLinger);
    ASSERT_TRUE(state_->Maintain().ok());
    // The issuer stops with `session` connected.
  }
  clock_.Advance(absl::Hours(5));
  state_ = *MeshState::Create(*store_, clock_);
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), ElementsAre("spiffe://example.org/web"));
  EXPECT_THAT(Expected(At("198.18.0.2", 80)), IsEmpty()) << "it went long before the restart";
  clock_.Advance(kLinger);
  ASSERT_TRUE(state_->Maintain().ok());
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty()) << "it did not come back";
  EXPECT_THAT(*store_->speakers().ListSpeakers(), IsEmpty());
}

TEST_F(MeshStateTest, ADeletedEntryTakesItsEndpointsAlong) {
  const auto entry = Add("/web", {.addresses = {"198.18.0.7"}, .publish = true});
  auto session = Connect(entry, "198.18.0.1");
  Serve(*session, {0});
  ASSERT_TRUE(store_->entries().DeleteEntry(entry.id).ok());
  ASSERT_TRUE(state_->ReloadEntries().ok());
  EXPECT_THAT(Expected(At("198.18.0.7", 80)), IsEmpty());
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty());
  EXPECT_TRUE(absl::IsNotFound(
      state_->Connect({entry.spiffe_id, entry.id, Ip("198.18.0.1")}, [] {}).status()));
  session.reset();
  EXPECT_THAT(Expected(At("198.18.0.1", 80)), IsEmpty());
}

TEST_F(MeshStateTest, ReadsOneEntryAgainAndNoOther) {
  const auto client = Add("/client", {});
  std::atomic<int> wakes{0};
  auto session = Connect(client, "198.18.0.9", &wakes);
  ASSERT_TRUE(session->Subscribe(std::vector<Address>{At("198.18.0.7", 80)}).ok());
  session->Take();
  const auto create = [this](std::string_view path, std::string_view address) {
    return *store_->entries().CreateEntry({.spiffe_id = Id(path),
                                           .selectors = {"unix:path:" + std::string(path)},
                                           .allowed_addresses = {*base::Cidr::Parse(address)}});
  };
  const auto web = create("/web", "198.18.0.7");
  create("/db", "198.18.0.8");
  ASSERT_TRUE(state_->ReloadEntry(web.id).ok());
  EXPECT_THAT(Expected(At("198.18.0.7", 80)), ElementsAre("spiffe://example.org/web"));
  EXPECT_THAT(Expected(At("198.18.0.8", 80)), IsEmpty()) << "it was not asked for";
  EXPECT_EQ(wakes, 1);
  session->Take();

  auto served = Connect(web, "198.18.0.7");
  Serve(*served, {0});
  ASSERT_TRUE(state_->Maintain().ok());
  ASSERT_THAT(*store_->speakers().ListSpeakers(), SizeIs(1));
  ASSERT_TRUE(store_->entries().DeleteEntry(web.id).ok());
  ASSERT_TRUE(state_->ReloadEntry(web.id).ok());
  EXPECT_THAT(Expected(At("198.18.0.7", 80)), IsEmpty()) << "deleted";
  EXPECT_EQ(wakes, 2);
  EXPECT_TRUE(
      absl::IsNotFound(state_->Connect({web.spiffe_id, web.id, Ip("198.18.0.7")}, [] {}).status()));
  EXPECT_TRUE(state_->ReloadEntry("none").ok()) << "not known before, not known now";
}

TEST_F(MeshStateTest, RefusesAProxyWhoseIdentityIsNotItsEntrys) {
  const auto entry = Add("/web", {});
  EXPECT_TRUE(
      absl::IsNotFound(state_->Connect({Id("/db"), entry.id, Ip("198.18.0.1")}, [] {}).status()));
}

TEST_F(MeshStateTest, AnswersASubscriptionOnceAndAgainWhenItChanges) {
  const auto client = Add("/client", {});
  std::atomic<int> wakes{0};
  auto session = Connect(client, "198.18.0.9", &wakes);
  session->Take();
  const Address asked = At("198.18.0.7", 80);
  ASSERT_TRUE(session->Subscribe(std::vector<Address>{asked}).ok());
  EXPECT_EQ(wakes, 0) << "its own call wakes nobody";
  Updates first = session->Take();
  ASSERT_TRUE(first.endpoints.has_value());
  ASSERT_THAT(first.endpoints->answers, SizeIs(1));
  EXPECT_EQ(first.endpoints->answers[0].asked, asked);
  EXPECT_THAT(first.endpoints->answers[0].endpoints, IsEmpty());
  EXPECT_TRUE(session->Take().empty());

  const auto other = Add("/other", {.addresses = {"198.18.0.7"}, .ports = {81}});
  EXPECT_EQ(wakes, 0) << "another port is none of its business";
  const auto entry = Add("/web", {.addresses = {"198.18.0.7"}, .ports = {80}});
  EXPECT_EQ(wakes, 1);
  Updates second = session->Take();
  ASSERT_TRUE(second.endpoints.has_value());
  EXPECT_GT(second.endpoints->version, first.endpoints->version);
  EXPECT_THAT(second.endpoints->answers[0].endpoints[0].spiffe_ids,
              ElementsAre("spiffe://example.org/web"));

  ASSERT_TRUE(store_->entries().DeleteEntry(entry.id).ok());
  ASSERT_TRUE(state_->ReloadEntries().ok());
  EXPECT_EQ(wakes, 2);
  EXPECT_THAT(session->Take().endpoints->answers[0].endpoints, IsEmpty()) << "withdrawn";

  session->Unsubscribe(std::vector<Address>{asked});
  EXPECT_EQ(state_->subscriptions(), 0U);
  Add("/web", {.addresses = {"198.18.0.7"}, .ports = {80}});
  EXPECT_EQ(wakes, 2);
  EXPECT_TRUE(session->Take().empty());
}

TEST_F(MeshStateTest, WakesOnceHoweverMuchChangesBeforeTheNextTake) {
  std::atomic<int> wakes{0};
  auto session = Connect(Add("/client", {}), "198.18.0.9", &wakes);
  session->Take();
  ASSERT_TRUE(session->Subscribe(std::vector<Address>{At("198.18.0.1", 80)}).ok());
  session->Take();
  for (int i = 0; i < 5; ++i) {
    Add("/web" + std::to_string(i), {.addresses = {"198.18.0.1"}});
  }
  EXPECT_EQ(wakes, 1);
  EXPECT_THAT(session->Take().endpoints->answers[0].endpoints[0].spiffe_ids, SizeIs(5));
  EXPECT_TRUE(session->Take().empty());
}

TEST_F(MeshStateTest, HandsOutMuchInParts) {
  auto session = Connect(Add("/client", {}), "198.18.0.9");
  session->Take();
  std::vector<Address> asked;
  for (uint16_t port = 1; port <= kMaxAnswersPerUpdate + 10; ++port) {
    asked.push_back(At("198.18.0.1", port));
  }
  ASSERT_TRUE(session->Subscribe(asked).ok());
  EXPECT_THAT(session->Take().endpoints->answers, SizeIs(kMaxAnswersPerUpdate));
  EXPECT_THAT(session->Take().endpoints->answers, SizeIs(10));
  EXPECT_TRUE(session->Take().empty());
}

TEST_F(MeshStateTest, BoundsWhatOneProxyMayAskFor) {
  auto session = Connect(Add("/client", {}), "198.18.0.9");
  std::vector<Address> asked;
  for (size_t i = 0; i <= kMaxSubscriptions; ++i) {
    asked.push_back(At("198.18.0.1", static_cast<uint16_t>(i + 1)));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(session->Subscribe(asked)));
  EXPECT_EQ(state_->subscriptions(), 0U) << "none of a refused lot is kept";
  asked.pop_back();
  EXPECT_TRUE(session->Subscribe(asked).ok());
  EXPECT_TRUE(session->Subscribe(asked).ok()) << "again is not more";
  EXPECT_TRUE(absl::IsResourceExhausted(session->Subscribe(std::vector<Address>{At("::1", 1)})));
  EXPECT_EQ(session->SetServing(std::vector<Serving>(kMaxServing + 1)).code(),
            absl::StatusCode::kInvalidArgument);
  session.reset();
  EXPECT_EQ(state_->subscriptions(), 0U);
}

TEST_F(MeshStateTest, OneIdentityGetsABoundedNumberOfSessionsFromOneAddress) {
  const auto entry = Add("/client", {});
  std::vector<std::unique_ptr<Session>> sessions;
  for (size_t i = 0; i < kMaxSessionsFromOneSource; ++i) {
    sessions.push_back(Connect(entry, "198.18.0.9"));
  }
  const auto over = state_->Connect({entry.spiffe_id, entry.id, Ip("198.18.0.9")}, [] {});
  EXPECT_EQ(over.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(state_->connected(), kMaxSessionsFromOneSource);
  Connect(entry, "198.18.0.10");             // a replica elsewhere
  Connect(Add("/other", {}), "198.18.0.9");  // another workload behind the same address
  sessions.pop_back();
  Connect(entry, "198.18.0.9");
}

TEST_F(MeshStateTest, SendsBundlesAndPolicyOnceForEachVersion) {
  state_->SetBundles({.version = {1, 1}, .bundles = {{"example.org", {"der"}}}});
  std::atomic<int> wakes{0};
  auto session = Connect(Add("/client", {}), "198.18.0.9", &wakes);
  Updates first = session->Take();
  ASSERT_NE(first.bundles, nullptr);
  EXPECT_EQ(first.bundles->version, (Version{1, 1}));
  ASSERT_NE(first.policy, nullptr) << "an empty set is a set: it ends the waiting";
  EXPECT_TRUE(session->Take().empty());

  state_->SetBundles({.version = {1, 2}, .bundles = {}});
  EXPECT_EQ(wakes, 1);
  Updates second = session->Take();
  EXPECT_EQ(second.bundles->version, (Version{1, 2}));
  EXPECT_EQ(second.policy, nullptr);

  ASSERT_TRUE(store_->policy().PutPolicy({{.name = "p", .yaml = "y"}}).ok());
  ASSERT_TRUE(state_->ReloadPolicy().ok());
  EXPECT_EQ(wakes, 2);
  EXPECT_THAT(session->Take().policy->documents, SizeIs(1));
}

TEST_F(MeshStateTest, DoesNotRepeatWhatAReconnectingProxyHolds) {
  state_->SetBundles({.version = {7, 3}, .bundles = {}});
  auto session = Connect(Add("/client", {}), "198.18.0.9");
  session->SetHeld(Kind::kBundles, {7, 3});
  session->SetHeld(Kind::kPolicy, {1, 1});
  const Updates updates = session->Take();
  EXPECT_EQ(updates.bundles, nullptr);
  EXPECT_NE(updates.policy, nullptr);
}

// The bundles of a fresh proxy came with its certificate, not over its stream.
TEST_F(MeshStateTest, CountsAsAcknowledgedWhatAProxyBringsAlong) {
  state_->SetBundles({.version = {7, 3}, .bundles = {}});
  auto session = Connect(Add("/client", {}), "198.18.0.9");
  EXPECT_EQ(state_->Proxies()[0].acked_bundles, Version{});
  session->SetHeld(Kind::kBundles, {7, 3});
  session->SetHeld(Kind::kPolicy, {7, 1});
  EXPECT_EQ(state_->Proxies()[0].acked_bundles, (Version{7, 3}));
  EXPECT_EQ(state_->Proxies()[0].acked_policy, (Version{7, 1}));
  session->Acknowledge(Kind::kPolicy, {7, 2}, "");
  EXPECT_EQ(state_->Proxies()[0].acked_policy, (Version{7, 2}));
}

TEST_F(MeshStateTest, SendsALowerSequenceOfAnotherEpoch) {
  state_->SetBundles({.version = {8, 1}, .bundles = {}});
  auto session = Connect(Add("/client", {}), "198.18.0.9");
  session->SetHeld(Kind::kBundles, {7, 30});
  EXPECT_NE(session->Take().bundles, nullptr) << "the store was restored from a backup";
}

TEST_F(MeshStateTest, RemembersWhoAcknowledgedWhat) {
  const auto entry = Add("/client", {});
  auto session = Connect(entry, "198.18.0.9");
  session->Acknowledge(Kind::kBundles, {1, 2}, "");
  session->Acknowledge(Kind::kPolicy, {1, 3}, "");
  ASSERT_THAT(state_->Proxies(), SizeIs(1));
  ProxyStatus status = state_->Proxies()[0];
  EXPECT_EQ(status.spiffe_id, "spiffe://example.org/client");
  EXPECT_EQ(status.entry_id, entry.id);
  EXPECT_EQ(status.source, Ip("198.18.0.9"));
  EXPECT_EQ(status.acked_bundles, (Version{1, 2}));
  EXPECT_EQ(status.acked_policy, (Version{1, 3}));
  EXPECT_EQ(status.connected_at, clock_.Now());
  session->Acknowledge(Kind::kPolicy, {1, 4}, "line 3: \n");
  status = state_->Proxies()[0];
  EXPECT_EQ(status.acked_policy, (Version{1, 3})) << "what was refused is not held";
  EXPECT_EQ(status.last_error, "line 3: \\x0a");
  session->Acknowledge(Kind::kPolicy, {1, 4}, "");
  EXPECT_EQ(state_->Proxies()[0].last_error, "");
}

TEST_F(MeshStateTest, NeverWakesASessionThatIsGone) {
  const auto entry = Add("/client", {});
  std::atomic<bool> stop{false};
  std::thread changing([this, &stop] {
    for (uint64_t i = 1; !stop; ++i) {
      state_->SetBundles({.version = {1, i}, .bundles = {}});
    }
  });
  for (int i = 0; i < 500; ++i) {
    auto gone = std::make_unique<std::atomic<int>>(0);
    auto session = Connect(entry, "198.18.0.9", gone.get());
    session->Take();
    session.reset();
    const int before = *gone;
    std::this_thread::yield();
    EXPECT_EQ(*gone, before);
  }
  stop = true;
  changing.join();
}

TEST_F(MeshStateTest, ManyThreadsUseItAtOnce) {
  std::vector<store::Entry> entries;
  for (int i = 0; i < 8; ++i) {
    entries.push_back(Add("/w" + std::to_string(i), {.publish = true}));
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, t, &entries] {
      const std::string source = "198.18.0." + std::to_string(t + 1);
      for (uint16_t i = 0; i < 100; ++i) {
        auto session = Connect(entries[static_cast<size_t>(t)], source);
        Serve(*session, {static_cast<uint16_t>(80 + i % 3)});
        const std::vector<Address> asked = {At("198.18.0.1", 80), At("198.18.0.2", 81)};
        EXPECT_TRUE(session->Subscribe(asked).ok());
        session->Take();
        session->Acknowledge(Kind::kEndpoints, {1, i}, "");
        state_->Proxies();
        EXPECT_TRUE(state_->Maintain().ok());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(state_->connected(), 0U);
  EXPECT_EQ(state_->subscriptions(), 0U);
}

}  // namespace
}  // namespace postern::mesh
