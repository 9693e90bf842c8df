// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "proxy/identity/endpoint_directory.h"

namespace postern::fakes {

// A directory that knows what the test tells it. A destination that it was told nothing about is
// not of the mesh; one that is held gets no answer before it is released. Any thread.
class FakeEndpointDirectory final : public identity::EndpointDirectory {
 public:
  void Set(const net::SocketAddress& destination, Answer answer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    answers_.insert_or_assign(destination, std::move(answer));
  }
  void Hold(const net::SocketAddress& destination) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.insert(destination);
  }
  // Who waits for a held destination gets its answer now, on the loop, as whoever asks later.
  void Release(const net::SocketAddress& destination) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(destination);
    const auto waiting = waiting_.extract(destination);
    if (!waiting.empty()) {
      waiting.mapped()();
    }
  }
  // Whether somebody waits for a held one.
  bool IsAwaited(const net::SocketAddress& destination) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return waiting_.contains(destination);
  }
  void AddMember(const base::IpAddress& ip) {
    const std::lock_guard<std::mutex> lock(mutex_);
    members_.insert(ip);
  }
  void SetName(const std::string& name, config::MeshDestination destination) {
    const std::lock_guard<std::mutex> lock(mutex_);
    names_.insert_or_assign(name, std::move(destination));
  }
  void ForgetName(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    names_.erase(name);
  }
  void RemoveMember(const base::IpAddress& ip) {
    const std::lock_guard<std::mutex> lock(mutex_);
    members_.erase(ip);
  }
  // Whether `ip` is a member is being asked, until AddMember answers.
  void AskAbout(const base::IpAddress& ip) {
    const std::lock_guard<std::mutex> lock(mutex_);
    asked_.insert(ip);
  }
  // Answers asynchronously, on the loop, instead of inside Lookup.
  void AnswerLater() {
    const std::lock_guard<std::mutex> lock(mutex_);
    later_ = true;
  }

  std::unique_ptr<Query> Lookup(net::Loop& loop, const net::SocketAddress& destination,
                                std::function<void(Answer)> done) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto query = std::make_unique<Pending>();
    const auto found = answers_.find(destination);
    Answer answer = found != answers_.end() ? found->second : Answer(std::nullopt);
    const bool held = held_.contains(destination);
    if (!held && !later_) {
      done(std::move(answer));
      return query;
    }
    query->alive = std::make_shared<bool>(true);
    auto post = [&loop, alive = std::weak_ptr<bool>(query->alive), done = std::move(done),
                 answer = std::move(answer)] {
      loop.Post([alive, done, answer] {
        if (!alive.expired()) {
          done(answer);
        }
      });
    };
    if (held) {
      waiting_.insert_or_assign(destination, std::move(post));
    } else {
      post();
    }
    return query;
  }

  std::optional<config::MeshDestination> FindName(std::string_view name,
                                                  uint16_t /*port*/) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = names_.find(std::string(name));
    return found != names_.end() ? std::optional(found->second) : std::nullopt;
  }

  void NoteName(std::string_view name, uint16_t port) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    noted_.emplace(name, port);
  }
  bool WasInMesh(std::string_view name, uint16_t port) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return noted_.contains({std::string(name), port});
  }

  bool IsMeshMember(const base::IpAddress& ip) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return members_.contains(ip);
  }

  bool AwaitsAnswer(const base::IpAddress& ip) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return asked_.contains(ip) && !members_.contains(ip);
  }

 private:
  struct Pending final : Query {
    std::shared_ptr<bool> alive;
  };
  mutable std::mutex mutex_;
  absl::flat_hash_map<net::SocketAddress, Answer> answers_;
  absl::flat_hash_map<std::string, config::MeshDestination> names_;
  std::set<std::pair<std::string, uint16_t>> noted_;
  std::set<net::SocketAddress> held_;
  std::map<net::SocketAddress, std::function<void()>> waiting_;  // the last one of each
  std::set<base::IpAddress> members_;
  std::set<base::IpAddress> asked_;
  bool later_ = false;
};

}  // namespace postern::fakes
