// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/dns_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cstdlib>

namespace postern::testing {
namespace {

// RFC 1035 section 4.1.
constexpr size_t kHeader = 12;
constexpr uint16_t kTypeA = 1;
constexpr uint16_t kTypeAaaa = 28;
constexpr uint8_t kServerFailure = 2;
constexpr uint8_t kNoSuchName = 3;

std::string Number16(uint32_t value) {
  return {static_cast<char>(value >> 8U), static_cast<char>(value & 0xFFU)};
}

uint16_t Read16(std::string_view at) {
  return static_cast<uint16_t>((static_cast<uint8_t>(at[0]) << 8U) | static_cast<uint8_t>(at[1]));
}

// The question's name in text, and where it ends; an end of 0 for what is no question.
struct Name {
  std::string text;
  size_t end = 0;
};
Name ReadName(std::string_view message) {
  Name name;
  size_t at = kHeader;
  while (at < message.size()) {
    const auto length = static_cast<uint8_t>(message[at]);
    if (length == 0) {
      name.end = at + 1;
      return name;
    }
    name.text += name.text.empty() ? "" : ".";
    for (const char c : message.substr(at + 1, length)) {
      name.text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    at += 1U + length;
  }
  return name;
}

}  // namespace

DnsServer::DnsServer() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(fd_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

DnsServer::~DnsServer() {
  stop_ = true;
  thread_.join();
  close(fd_);
}

void DnsServer::Set(std::string_view name, const std::vector<std::string>& addresses,
                    uint32_t ttl) {
  const std::lock_guard<std::mutex> lock(mutex_);
  names_[std::string(name)] = {addresses, ttl};
}

void DnsServer::Remove(std::string_view name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  names_.erase(std::string(name));
}

int DnsServer::QuestionsFor(std::string_view name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = asked_.find(name);
  return found == asked_.end() ? 0 : found->second;
}

void DnsServer::Run() {
  while (!stop_) {
    pollfd waits{fd_, POLLIN, 0};
    if (poll(&waits, 1, 20) <= 0) {
      continue;
    }
    std::array<char, 1500> buffer{};
    sockaddr_storage from{};
    socklen_t length = sizeof(from);
    const ssize_t got =
        recvfrom(fd_, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (got < static_cast<ssize_t>(kHeader)) {
      continue;
    }
    const std::string reply = Reply({buffer.data(), static_cast<size_t>(got)});
    if (!reply.empty()) {
      sendto(fd_, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&from), length);
    }
  }
}

std::string DnsServer::Reply(std::string_view question) {
  const Name name = ReadName(question);
  if (name.end == 0 || name.end + 4 > question.size()) {
    return "";
  }
  const uint16_t type = Read16(question.substr(name.end));
  const std::lock_guard<std::mutex> lock(mutex_);
  ++asked_[name.text];
  ++questions_;
  if (mood_ == Mood::kSilent) {
    return "";
  }
  const auto found = names_.find(name.text);
  uint8_t code = mood_ == Mood::kFails ? kServerFailure : 0;
  std::string answers;
  uint32_t count = 0;
  if (code == 0 && found == names_.end()) {
    code = kNoSuchName;
  } else if (code == 0) {
    for (const std::string& text : found->second.addresses) {
      const bool v6 = text.find(':') != std::string::npos;
      std::array<char, 16> raw{};
      if ((v6 ? kTypeAaaa : kTypeA) != type ||
          inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), raw.data()) != 1) {
        continue;
      }
      const size_t size = v6 ? 16 : 4;
      answers += "\xc0\x0c" + Number16(type) + Number16(1) + Number16(found->second.ttl >> 16U) +
                 Number16(found->second.ttl & 0xFFFFU) + Number16(static_cast<uint32_t>(size)) +
                 std::string(raw.data(), size);
      ++count;
    }
  }
  // An authoritative response, recursion available; the question is repeated, nothing else.
  return std::string(question.substr(0, 2)) + Number16(0x8580U | code) + Number16(1) +
         Number16(count) + Number16(0) + Number16(0) +
         std::string(question.substr(kHeader, name.end + 4 - kHeader)) + answers;
}

}  // namespace postern::testing
