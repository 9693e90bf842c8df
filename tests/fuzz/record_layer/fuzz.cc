// SPDX-License-Identifier: Apache-2.0
// A peer that says anything: as it stands, or sealed under the right keys. The first byte of an
// input says which and to which role, and whether the client is being asked to prove itself again;
// the second one in what pieces it arrives. Sealed is a list of records, each a content type, two
// bytes of length and the content.
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/tls/record_input.h"
#include "proxy/tls/record_layer.h"

using postern::base::ByteSpan;
using postern::tls::AuthMessages;
using postern::tls::ContentType;
using postern::tls::RecordBuffer;
using postern::tls::RecordCipher;
using postern::tls::RecordFault;
using postern::tls::RecordInput;
using postern::tls::RecordLayer;

namespace {

constexpr uint32_t kSuite = 0x1301;
constexpr std::array<uint8_t, 32> kPeerSecret = {1};
constexpr std::array<uint8_t, 32> kOwnSecret = {2};

class StoppedClock final : public postern::base::Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch(); }
  absl::Duration SinceBoot() const override { return absl::ZeroDuration(); }
  absl::Duration Awake() const override { return absl::ZeroDuration(); }
};

// One exchange after the other: a client takes requests, a server the three messages of an answer.
// A body that begins with 255 is refused.
class Exchanges final : public AuthMessages {
 public:
  explicit Exchanges(RecordLayer::Role role) : role_(role) {}
  std::optional<size_t> MostBytes(uint8_t type) const override {
    return type == Awaited() ? std::optional(kMost) : std::nullopt;
  }
  std::optional<RecordFault> Take(ByteSpan message) override {
    POSTERN_FUZZ_CHECK(message.size() >= 4 && message.size() <= 4 + kMost);
    POSTERN_FUZZ_CHECK(message[0] == Awaited());
    at_ = role_ == RecordLayer::Role::kServer ? (at_ + 1) % kAnswer.size() : 0;
    if (message.size() > 4 && message[4] == 255) {
      return RecordFault{51, absl::StatusCode::kUnauthenticated, "refused"};
    }
    return std::nullopt;
  }
  bool IsInside() const override { return at_ != 0; }

 private:
  static constexpr size_t kMost = 40'000;
  static constexpr std::array<uint8_t, 3> kAnswer = {11, 15, 20};
  uint8_t Awaited() const {
    return role_ == RecordLayer::Role::kServer ? kAnswer[at_] : uint8_t{13};
  }

  const RecordLayer::Role role_;
  size_t at_ = 0;
};

// What a stream of records came to.
struct Outcome {
  std::string text;
  RecordLayer::Kind last = RecordLayer::Kind::kControl;
  int alert = -1;
  bool operator==(const Outcome&) const = default;
};

bool IsKeyUpdate(ByteSpan content) {
  constexpr std::array<uint8_t, 4> kHeader = {24, 0, 0, 1};
  return content.size() == 5 && std::equal(kHeader.begin(), kHeader.end(), content.begin());
}

RecordBuffer Sealed(ByteSpan list) {
  RecordCipher peer;
  POSTERN_FUZZ_CHECK(peer.Start(kSuite, kPeerSecret, RecordCipher::Use::kSeal));
  RecordBuffer stream;
  while (list.size() >= 3) {
    const size_t claimed = static_cast<size_t>(list[1]) << 8U | list[2];
    const size_t size = std::min({claimed, list.size() - 3, postern::tls::kMaxRecordPlaintext});
    const ByteSpan content = list.subspan(3, size);
    POSTERN_FUZZ_CHECK(peer.Seal(static_cast<ContentType>(list[0]), content, stream));
    if (list[0] == static_cast<uint8_t>(ContentType::kHandshake) && IsKeyUpdate(content)) {
      POSTERN_FUZZ_CHECK(peer.Advance());
    }
    list = list.subspan(3 + size);
  }
  return stream;
}

Outcome Receive(RecordLayer::Role role, bool asks, ByteSpan stream, size_t piece) {
  static const StoppedClock clock;
  const auto layer = RecordLayer::Create({role, kSuite, &clock}, kPeerSecret, kOwnSecret);
  POSTERN_FUZZ_CHECK(layer != nullptr);
  Exchanges exchanges(role);
  if (asks) {
    layer->SetAuth(&exchanges);
  }
  RecordInput input;
  Outcome outcome;
  while (!stream.empty()) {
    // Its own heap block, gone by the next turn.
    const std::vector<uint8_t> fed(
        stream.begin(),
        stream.begin() + static_cast<std::ptrdiff_t>(std::min(piece, stream.size())));
    stream = stream.subspan(fed.size());
    input.Feed(fed);
    for (;;) {
      const bool promised = input.HasNext();
      const ByteSpan record = input.Next();
      POSTERN_FUZZ_CHECK(promised == !record.empty());
      if (record.empty()) {
        break;
      }
      std::vector<uint8_t> room(RecordCipher::RoomFor(record));
      const RecordLayer::Step step = layer->Open(record, room);
      POSTERN_FUZZ_CHECK(step.bytes <= room.size());
      POSTERN_FUZZ_CHECK((step.bytes > 0) == (step.kind == RecordLayer::Kind::kData));
      POSTERN_FUZZ_CHECK(step.kind != RecordLayer::Kind::kData || !exchanges.IsInside());
      POSTERN_FUZZ_CHECK((step.kind == RecordLayer::Kind::kFault) == (step.fault.text[0] != '\0'));
      POSTERN_FUZZ_CHECK(step.kind != RecordLayer::Kind::kTickets ||
                         role == RecordLayer::Role::kClient);
      outcome.last = step.kind;
      outcome.alert = step.kind == RecordLayer::Kind::kFault ? step.fault.alert : step.alert;
      outcome.text.append(reinterpret_cast<const char*>(room.data()), step.bytes);
      if (step.kind == RecordLayer::Kind::kEnd || step.kind == RecordLayer::Kind::kAlert ||
          step.kind == RecordLayer::Kind::kFault) {
        return outcome;
      }
      input.Pop(record.size());
    }
    input.Keep();
  }
  // Whatever came, what we say next can be read under the keys that follow from it.
  RecordBuffer out;
  POSTERN_FUZZ_CHECK(layer->Seal(kOwnSecret, out));
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) {
    return 0;
  }
  const ByteSpan rest(data + 2, size - 2);
  const RecordLayer::Role role =
      (data[0] & 1U) != 0 ? RecordLayer::Role::kServer : RecordLayer::Role::kClient;
  const bool sealed = (data[0] & 2U) != 0;
  const RecordBuffer stream = sealed ? Sealed(rest) : RecordBuffer(rest.begin(), rest.end());
  const bool asks = (data[0] & 4U) != 0;
  const Outcome whole = Receive(role, asks, stream, stream.size());
  POSTERN_FUZZ_CHECK(whole == Receive(role, asks, stream, size_t{1} + data[1]));
  return 0;
}
