// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "common/base/bytes.h"

namespace postern::identity {

// What the session tickets of one identity snapshot are sealed with: random, the same for all
// workers, never stored, gone with the snapshot. So a renewal and a change of the bundles end every
// ticket that was given before. Immutable; never formatted; wiped with the object.
class TicketSecret {
 public:
  // Null when OpenSSL has no random bytes: then nothing is resumed.
  static std::shared_ptr<const TicketSecret> Make();
  ~TicketSecret();
  TicketSecret(const TicketSecret&) = delete;
  TicketSecret& operator=(const TicketSecret&) = delete;

  base::ByteSpan bytes() const { return bytes_; }

 private:
  TicketSecret() = default;
  std::array<uint8_t, 80> bytes_{};  // for tls::TicketKeys
};

}  // namespace postern::identity
