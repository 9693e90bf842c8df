// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace postern::testing {

// A name server on 127.0.0.1 (UDP, port picked by the system) that says what the test tells it, in
// a thread of its own. Names that it was told nothing about do not exist.
class DnsServer {
 public:
  DnsServer();
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  uint16_t port() const { return port_; }

  // Lower case, without a final dot. Addresses are IPv4 or IPv6; none: the name exists without.
  void Set(std::string_view name, const std::vector<std::string>& addresses, uint32_t ttl);
  void Remove(std::string_view name);

  enum class Mood : uint8_t { kAnswers, kFails, kSilent };  // kFails: SERVFAIL
  void SetMood(Mood mood) { mood_ = mood; }

  int questions() const { return questions_; }  // of both kinds, A and AAAA
  int QuestionsFor(std::string_view name) const;

 private:
  struct Records {
    std::vector<std::string> addresses;
    uint32_t ttl = 0;
  };
  void Run();
  std::string Reply(std::string_view question);

  int fd_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<Mood> mood_{Mood::kAnswers};
  std::atomic<int> questions_{0};
  mutable std::mutex mutex_;
  std::map<std::string, Records, std::less<>> names_;  // guarded by mutex_
  std::map<std::string, int, std::less<>> asked_;      // guarded by mutex_
  std::thread thread_;
};

}  // namespace postern::testing
