// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/micro/engine_link.h"

#include <time.h>

#include <algorithm>
#include <string>
#include <utility>

#include "tests/bench/micro/must.h"
#include "tests/testing/test_ca.h"

namespace postern::bench {
namespace {

using std::chrono::nanoseconds;
using tls::EngineOutcome;
using tls::EngineResult;
using tls::TlsEngine;

constexpr size_t kPlaintextBytes = 96U << 10U;  // as a worker's scratch of the relay

// Of this thread alone: what else the machine does at the time is not ours.
nanoseconds ProcessorTime() {
  timespec now{};
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) {
    Die("no clock of the thread's own time");
  }
  return std::chrono::seconds(now.tv_sec) + nanoseconds(now.tv_nsec);
}

}  // namespace

TlsMesh::TlsMesh(int intermediates) {
  const testing::TestCa root("example.org");
  const testing::TestCa below = root.Intermediate();
  const testing::TestCa& issuing = intermediates > 0 ? below : root;
  client_svid = std::make_shared<const x509::Svid>(issuing.Issue("spiffe://example.org/client"));
  server_svid = std::make_shared<const x509::Svid>(issuing.Issue("spiffe://example.org/server"));
  bundles = std::make_shared<const x509::TrustBundleSet>(root.BundleSet());
  RenewContexts();
}

void TlsMesh::RenewContexts() {
  client = Must(tls::TlsContext::CreateClient(client_svid, bundles, {}));
  server = Must(tls::TlsContext::CreateServer(server_svid, bundles, {}));
}

EngineLink::EngineLink(const TlsMesh& mesh) : plaintext_(kPlaintextBytes) {
  client_.scratch = std::make_unique<tls::EngineScratch>();
  server_.scratch = std::make_unique<tls::EngineScratch>();
  const auto began = ProcessorTime();
  client_.engine = Must(
      TlsEngine::CreateClient(mesh.client, *client_.scratch,
                              {Must(x509::SpiffeIdPattern::Parse("spiffe://example.org/server"))}));
  const auto between = ProcessorTime();
  server_.engine = Must(TlsEngine::CreateServer(mesh.server, *server_.scratch));
  client_.spent = between - began;
  server_.spent = ProcessorTime() - between;
}

void EngineLink::Shake() {
  Step(client_, {});
  for (bool moved = true; moved;) {
    moved = false;
    for (const auto& [from, to] : {std::pair(&client_, &server_), std::pair(&server_, &client_)}) {
      for (base::ByteSpan piece = Move(*from, *to); !piece.empty(); piece = Move(*from, *to)) {
        Step(*to, piece);
        moved = true;
      }
      from->engine->EndTurn();
    }
  }
  if (!client_.open || !server_.open) {
    Die("the handshake did not end");
  }
}

void EngineLink::Step(End& end, base::ByteSpan fed) {
  const auto began = ProcessorTime();
  if (!fed.empty()) {
    end.engine->Feed(fed);
  }
  const EngineResult result = end.engine->Handshake();
  end.spent += ProcessorTime() - began;
  if (result.outcome == EngineOutcome::kFailed) {
    Die(end.engine->failure().detail.ToString());
  }
  end.open = result.outcome == EngineOutcome::kDone;
}

void EngineLink::Free() {
  for (End* end : {&client_, &server_}) {
    const auto began = ProcessorTime();
    end->engine.reset();
    end->spent += ProcessorTime() - began;
  }
}

base::ByteSpan EngineLink::Move(End& from, End& to) {
  const base::ByteSpan output = from.engine->Output();
  const base::MutableByteSpan room = to.scratch->input();
  const size_t size = std::min(output.size(), room.size());
  std::copy_n(output.begin(), size, room.begin());
  from.engine->Sent(size);
  return room.first(size);
}

void EngineLink::Carry(bool from_client, base::ByteSpan bytes) {
  End& from = from_client ? client_ : server_;
  End& to = from_client ? server_ : client_;
  size_t arrived = 0;
  const size_t whole = bytes.size();
  while (!bytes.empty()) {
    const EngineResult written = from.engine->Write(bytes);
    if (written.outcome == EngineOutcome::kFailed) {
      Die("writing failed");
    }
    bytes = bytes.subspan(written.bytes);
    for (base::ByteSpan piece = Move(from, to); !piece.empty(); piece = Move(from, to)) {
      arrived += Decrypt(to, piece);
    }
  }
  from.engine->EndTurn();
  if (arrived != whole) {
    Die("not all that was written has arrived");
  }
}

void EngineLink::Reauthenticate() {
  if (!server_.engine->AskClientAgain()) {
    Die("the client can not be asked");
  }
  for (const auto& [from, to] : {std::pair(&server_, &client_), std::pair(&client_, &server_)}) {
    for (base::ByteSpan piece = Move(*from, *to); !piece.empty(); piece = Move(*from, *to)) {
      Decrypt(*to, piece);
    }
    from->engine->EndTurn();
  }
  if (server_.engine->reauth() != tls::ReauthState::kIdle) {
    Die("the client has not answered");
  }
}

size_t EngineLink::Decrypt(End& to, base::ByteSpan fed) {
  to.engine->Feed(fed);
  size_t bytes = 0;
  do {
    const EngineResult result = to.engine->Read(plaintext_);
    if (result.outcome == EngineOutcome::kFailed || result.outcome == EngineOutcome::kEnd) {
      Die("reading failed");
    }
    bytes += result.bytes;
  } while (to.engine->HasBufferedInput());
  to.engine->EndTurn();
  return bytes;
}

std::vector<uint8_t> EngineLink::FirstFlight() {
  Step(client_, {});
  const base::ByteSpan output = client_.engine->Output();
  return {output.begin(), output.end()};
}

}  // namespace postern::bench
