// SPDX-License-Identifier: Apache-2.0
#include "proxy/intercept/existing.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace postern::intercept {
namespace {

constexpr std::string_view kEstablished = "01";

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  size_t at = 0;
  while ((at = line.find_first_not_of(' ', at)) != std::string_view::npos) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

// The addresses are hexadecimal 32-bit words as this machine stores them: on a little-endian
// machine the first octet of an IPv4 address is the last pair of digits.
bool IsLoopback(std::string_view address) {
  constexpr std::string_view kV6 = "00000000000000000000000001000000";
  constexpr std::string_view kMapped = "0000000000000000FFFF0000";
  if (address == kV6)
    return true;
  if (address.starts_with(kMapped))
    address.remove_prefix(kMapped.size());
  return address.size() == 8 && address.substr(6) == "7F";
}

bool IsTheProxys(std::string_view uid_text, const InterceptConfig& config) {
  uid_t uid = 0;
  std::from_chars(uid_text.data(), uid_text.data() + uid_text.size(), uid);
  return std::find(config.proxy_uids.begin(), config.proxy_uids.end(), uid) !=
         config.proxy_uids.end();
}

std::string Content(const char* path) {
  const std::ifstream file(path);
  std::ostringstream text;
  if (file)
    text << file.rdbuf();
  return text.str();
}

}  // namespace

size_t CountInTable(std::string_view table, const InterceptConfig& config) {
  size_t count = 0;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    const std::vector<std::string_view> words = Words(table.substr(0, end));
    table.remove_prefix(std::min(end + 1, table.size()));
    // sl local_address rem_address st tx:rx tr:tm->when retrnsmt uid ...
    if (words.size() < 8 || words[3] != kEstablished)
      continue;
    const std::string_view peer = words[2].substr(0, words[2].find(':'));
    if (!IsLoopback(peer) && !IsTheProxys(words[7], config))
      ++count;
  }
  return count;
}

size_t CountExistingConnections(const InterceptConfig& config) {
  return CountInTable(Content("/proc/net/tcp"), config) +
         CountInTable(Content("/proc/net/tcp6"), config);
}

}  // namespace postern::intercept
