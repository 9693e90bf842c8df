// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "proxy/identity/seen_key.h"

namespace postern::identity {

// The destinations that were ever seen in the mesh, so that none of them falls back to plaintext
// when its entry goes away, or when a name leads elsewhere (mesh_downgrade). Kept as text, one
// "IP:port", "[IPv6]:port" or "name:port" to a line, because taking a line out is how an operator
// lets a destination leave the mesh. Main loop only.
class SeenList {
 public:
  static constexpr size_t kMost = 65536;
  static constexpr size_t kMostNames = 16384;  // of these, so that addresses have room

  // `path` empty: remembered in this process only. Does not read yet: see Reload.
  explicit SeenList(std::string path) : path_(std::move(path)) {}

  // Reads the file, which replaces what is remembered. A missing file is an empty list. A line that
  // an older release took for a destination is one, also where ParseKey refuses it; what never was
  // one is passed over with an error in the log. On another error the old list stays.
  absl::Status Reload();

  bool Contains(const SeenKey& key) const { return seen_.keys.contains(key); }
  const absl::flat_hash_set<SeenKey>& keys() const { return seen_.keys; }
  // Remembers it. False: known already, or the list is full (logged once).
  bool Add(const SeenKey& key);
  // Writes what was added since, beside what the file holds now: a line that an operator has taken
  // out meanwhile stays out. Ok when there is nothing to write.
  absl::Status Save();

  // An operator's word that a destination has left the mesh, here and in the file. NotFound: it was
  // not remembered; on another error it still is.
  absl::Status Forget(const SeenKey& key);
  absl::Status ForgetAll();

  size_t size() const { return seen_.keys.size(); }
  // Whether something is not remembered for want of room, which the log says.
  bool is_full() const { return full_; }

  // "IP:port", "[IPv6]:port" or "name:port"; nullopt otherwise.
  static std::optional<SeenKey> ParseKey(std::string_view text);

 private:
  // Writes the file without the lines that `keeps` says no to; nullopt: one that cannot be read.
  template <typename Keeps>
  absl::Status Rewrite(Keeps keeps);

  // What is remembered, within the bounds of both kinds.
  struct Memory {
    bool HasRoomFor(const SeenKey& key) const;
    void Insert(const SeenKey& key);
    void Erase(const SeenKey& key);

    absl::flat_hash_set<SeenKey> keys;
    size_t names = 0;  // of these
  };

  std::string path_;
  Memory seen_;
  bool full_ = false;  // and that has been said
  std::vector<SeenKey> unsaved_;
};

}  // namespace postern::identity
