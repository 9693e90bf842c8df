// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <string>

#include "common/base/host_name.h"
#include "proxy/request/request_reader.h"

using postern::base::ByteSpan;
using postern::request::RequestReader;
using State = RequestReader::State;

namespace {

struct Outcome {
  State state = State::kNeedMore;
  std::string replies, destination;
  size_t rest = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome Read(ByteSpan bytes, size_t piece) {
  RequestReader reader;
  Outcome outcome;
  while (!bytes.empty() && outcome.state == State::kNeedMore) {
    const ByteSpan next = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(next.size());
    const RequestReader::Step step = reader.Feed(next);
    outcome.state = step.state;
    outcome.replies += step.reply;
  }
  POSTERN_FUZZ_CHECK((outcome.state == State::kRefused) == !reader.fault().ok());
  if (outcome.state == State::kDone) {
    const auto& destination = reader.destination();
    POSTERN_FUZZ_CHECK(reader.protocol().has_value() && destination.port != 0);
    POSTERN_FUZZ_CHECK(destination.name.empty() ? !destination.ip.IsUnspecified()
                                                : postern::base::IsHostName(destination.name));
    outcome.destination = destination.ToString();
    outcome.rest = reader.rest().size() + bytes.size();
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  const Outcome whole = Read(bytes, size);
  POSTERN_FUZZ_CHECK(whole.rest <= size);
  // The pieces in which the bytes come change nothing.
  for (const size_t piece : {size_t{1}, size_t{3}, size / 2 + 1}) {
    POSTERN_FUZZ_CHECK(Read(bytes, piece) == whole);
  }
  return 0;
}
