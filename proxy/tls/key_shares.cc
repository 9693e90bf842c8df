// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/key_shares.h"

#include <openssl/err.h>
#include <openssl/obj_mac.h>

#include <array>
#include <utility>

#include "common/base/strings.h"

namespace postern::tls {
namespace {

// The list with one group's share, as each library wants it. OpenSSL 3.5 has the first group, marks
// a share with "*", and as a server takes what stands behind a "/" only from a client that has
// nothing in front of it. Before, the first group of a list is the one that is shared.
struct Group {
  int number;  // IANA's
  const char* with_marks;
  const char* in_order;  // null: this library has no such group
};

constexpr std::array<Group, 3> kGroups = {{
    {0x11EC, "*X25519MLKEM768/X25519:P-256", nullptr},
    {0x001D, "X25519MLKEM768/*X25519:P-256", "X25519:P-256"},
    {0x0017, "X25519MLKEM768/X25519:*P-256", "P-256:X25519"},
}};
constexpr size_t kFirstWithMarks = 0;
constexpr size_t kFirstInOrder = 1;

// OpenSSL says NIDs where it has one, and else marks the number.
int NumberOf(int negotiated) {
  switch (negotiated) {
    case NID_X25519:
      return 0x001D;
    case NID_X9_62_prime256v1:
      return 0x0017;
    default:
      return negotiated & 0xFFFF;
  }
}

}  // namespace

absl::Status KeyShares::Configure(SSL_CTX* ctx) {
  if (SSL_CTX_set1_groups_list(ctx, kGroups[kFirstWithMarks].with_marks) == 1) {
    library_ = Library::kMarksShares;
    return absl::OkStatus();
  }
  ERR_clear_error();
  library_ = Library::kFirstIsShared;
  return SSL_CTX_set1_groups_list(ctx, kGroups[kFirstInOrder].in_order) == 1
             ? absl::OkStatus()
             : absl::InternalError("OpenSSL: groups");
}

size_t KeyShares::First() const {
  return library_ == Library::kMarksShares ? kFirstWithMarks : kFirstInOrder;
}

size_t KeyShares::Find(std::string_view destination) {
  if (const auto young = young_.find(base::ToAbsl(destination)); young != young_.end()) {
    return young->second;
  }
  const auto old = old_.find(base::ToAbsl(destination));
  if (old == old_.end()) {
    return First();
  }
  const size_t place = old->second;
  Remember(destination, place);
  return place;
}

void KeyShares::Remember(std::string_view destination, size_t place) {
  young_.erase(base::ToAbsl(destination));
  old_.erase(base::ToAbsl(destination));
  if (place == First()) {
    return;  // nobody needs to remember that
  }
  if (young_.size() >= kGeneration) {
    old_ = std::exchange(young_, {});
  }
  young_.emplace(std::string(destination), place);
}

void KeyShares::Offer(SSL* ssl, std::string_view destination) {
  if (size() == 0) {
    return;  // every peer takes the first, which is the context's
  }
  const size_t place = Find(destination);
  if (place == First()) {
    return;
  }
  const Group& group = kGroups[place];
  const char* const list = library_ == Library::kMarksShares ? group.with_marks : group.in_order;
  if (SSL_set1_groups_list(ssl, list) != 1) {
    ERR_clear_error();
  }
}

void KeyShares::Learn(std::string_view destination, int group) {
  if (destination.empty()) {
    return;
  }
  const int number = NumberOf(group);
  const size_t known = Find(destination);
  for (size_t place = 0; place < kGroups.size(); ++place) {
    if (kGroups[place].number == number && place != known) {
      Remember(destination, place);
    }
  }
}

}  // namespace postern::tls
