// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "proxy/identity/address_key.h"

namespace postern::identity {

// A destination that a client asks for by name. A value.
struct NameKey {
  std::string name;  // in its one spelling: base::CanonicalHostName
  uint16_t port = 0;

  std::string ToString() const { return name + ":" + std::to_string(port); }

  bool operator==(const NameKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const NameKey& key) {
    return H::combine(std::move(h), key.name, key.port);
  }
};

// A destination that was seen in the mesh, by what it was asked for. A value.
class SeenKey {
 public:
  // A key of either kind is one of these.
  SeenKey(const AddressKey& address) : asked_(address) {}  // NOLINT(google-explicit-constructor)
  SeenKey(NameKey name) : asked_(std::move(name)) {}       // NOLINT(google-explicit-constructor)

  const AddressKey* address() const { return std::get_if<AddressKey>(&asked_); }  // null: a name
  const NameKey* name() const { return std::get_if<NameKey>(&asked_); }  // null: an address

  // "IP:port", "[IPv6]:port" or "name:port".
  std::string ToString() const {
    return std::visit([](const auto& asked) { return asked.ToString(); }, asked_);
  }

  bool operator==(const SeenKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const SeenKey& key) {
    return std::visit([&h](const auto& asked) { return H::combine(std::move(h), asked); },
                      key.asked_);
  }

 private:
  std::variant<AddressKey, NameKey> asked_;
};

}  // namespace postern::identity
