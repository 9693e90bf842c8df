// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <string>

#include "proxy/tls/client_hello.h"

using postern::base::ByteSpan;
using postern::tls::ClientHello;
using postern::tls::SniffClientHello;
using postern::tls::SniffResult;
using postern::tls::SniffVerdict;

namespace {

bool Printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

bool Same(const ClientHello& one, const ClientHello& other) {
  return one.sni == other.sni && one.alpn == other.alpn && one.offers_tls13 == other.offers_tls13;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  const SniffResult whole = SniffClientHello(bytes);
  POSTERN_FUZZ_CHECK(whole.hello.sni.size() <= 255 && Printable(whole.hello.sni));
  POSTERN_FUZZ_CHECK(
      std::none_of(whole.hello.alpn.begin(), whole.hello.alpn.end(),
                   [](const std::string& name) { return name.empty() || name.size() > 255; }));
  POSTERN_FUZZ_CHECK(whole.verdict != SniffVerdict::kNeedMore ||
                     size < postern::tls::kMaxClientHelloBytes);
  // What was decided early is not decided otherwise when more has come.
  for (const size_t cut :
       {size_t{1}, size_t{5}, size / 3, size / 2, size - std::min<size_t>(size, 1)}) {
    const SniffResult part = SniffClientHello(bytes.first(std::min(cut, size)));
    if (part.verdict != SniffVerdict::kNeedMore) {
      POSTERN_FUZZ_CHECK(part.verdict == whole.verdict && Same(part.hello, whole.hello));
    }
  }
  return 0;
}
