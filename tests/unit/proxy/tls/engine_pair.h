// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "proxy/tls/tls_context.h"
#include "proxy/tls/tls_engine.h"
#include "tests/testing/test_ca.h"

namespace postern::tls {

// One end of a connection over memory: an engine, what is on its way to the other end, and what it
// has read. Each call is one whole turn, as a session makes them.
struct End {
  std::unique_ptr<TlsEngine> engine;
  EngineScratch* scratch = nullptr;
  std::string outbox{};    // left the engine, not yet fed to the peer
  std::string received{};  // decrypted
  EngineOutcome last = EngineOutcome::kWantRead;

  void Drain() {
    while (engine->HasOutput()) {
      const base::ByteSpan out = engine->Output();
      outbox.append(base::AsText(out));
      engine->Sent(out.size());
    }
  }
  void Handshake() {
    last = engine->Handshake().outcome;
    Drain();
    engine->EndTurn();
  }
  // Feeds bytes, shakes hands, reads until nothing comes.
  void Turn(std::string_view bytes) {
    std::copy(bytes.begin(), bytes.end(), scratch->input().begin());
    engine->Feed(scratch->input().first(bytes.size()));
    last = engine->Handshake().outcome;
    if (last == EngineOutcome::kDone) {
      ReadAll();
    }
    Drain();
    engine->EndTurn();
  }
  void ReadAll() {
    std::vector<uint8_t> out(20000);
    EngineResult result{EngineOutcome::kDone, 0};
    while (result.outcome == EngineOutcome::kDone) {
      result = engine->Read(out);
      received.append(reinterpret_cast<const char*>(out.data()), result.bytes);
    }
    last = result.outcome;
  }
  // Writes all of it, draining as often as the engine asks.
  void Write(std::string_view text) {
    while (!text.empty()) {
      const EngineResult result = engine->Write(base::AsBytes(text));
      ASSERT_TRUE(result.outcome == EngineOutcome::kDone ||
                  result.outcome == EngineOutcome::kWantWrite)
          << engine->failure().detail;
      text.remove_prefix(result.bytes);
      Drain();
    }
    engine->EndTurn();
  }
};

struct EnginePair {
  End client;
  End server;

  // Carries bytes both ways until both are quiet, in pieces of at most `chunk` bytes.
  void Pump(size_t chunk = 65536) {
    std::mt19937 random(1);
    while (!client.outbox.empty() || !server.outbox.empty()) {
      Carry(client, server, chunk, random);
      Carry(server, client, chunk, random);
    }
  }
  void Shake(size_t chunk = 65536) {
    client.Handshake();
    Pump(chunk);
  }

 private:
  static void Carry(End& from, End& to, size_t chunk, std::mt19937& random) {
    if (from.outbox.empty()) {
      return;
    }
    const size_t most = std::min(chunk, from.outbox.size());
    const size_t count = chunk >= 65536 ? most : 1 + random() % most;
    const std::string piece = from.outbox.substr(0, count);
    from.outbox.erase(0, count);
    to.Turn(piece);
  }
};

// A mesh of two workloads of one trust domain, and engines between them.
class EngineTest : public ::testing::Test {
 protected:
  using Expected = std::vector<x509::SpiffeIdPattern>;

  static std::shared_ptr<const x509::Svid> Share(x509::Svid svid) {
    return std::make_shared<const x509::Svid>(std::move(svid));
  }
  static std::shared_ptr<const x509::TrustBundleSet> Bundles(const testing::TestCa& ca) {
    return std::make_shared<const x509::TrustBundleSet>(ca.BundleSet());
  }
  static Expected Only(std::string_view pattern) {
    return {x509::SpiffeIdPattern::Parse(pattern).value()};
  }

  std::shared_ptr<const TlsContext> ServerContext(std::shared_ptr<const x509::Svid> svid,
                                                  const TlsOptions& options = {}) {
    return TlsContext::CreateServer(std::move(svid), Bundles(ca_), options).value();
  }
  std::shared_ptr<const TlsContext> ClientContext(std::shared_ptr<const x509::Svid> svid,
                                                  const TlsOptions& options = {}) {
    return TlsContext::CreateClient(std::move(svid), Bundles(ca_), options).value();
  }
  EnginePair MakePair(const std::shared_ptr<const TlsContext>& client,
                      const std::shared_ptr<const TlsContext>& server,
                      const Expected& expected = {}) {
    EnginePair pair;
    pair.client.engine = TlsEngine::CreateClient(client, scratch_, expected).value();
    pair.server.engine = TlsEngine::CreateServer(server, scratch_).value();
    pair.client.scratch = &scratch_;
    pair.server.scratch = &scratch_;
    return pair;
  }
  EnginePair MakePair(const Expected& expected = {}) {
    return MakePair(ClientContext(client_svid_), ServerContext(server_svid_), expected);
  }
  static std::string Noise(size_t size, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::string noise(size, '\0');
    for (char& c : noise) {
      c = static_cast<char>(random());
    }
    return noise;
  }

  testing::TestCa ca_{"example.org"};
  std::shared_ptr<const x509::Svid> client_svid_ = Share(ca_.Issue("spiffe://example.org/client"));
  std::shared_ptr<const x509::Svid> server_svid_ = Share(ca_.Issue("spiffe://example.org/server"));
  EngineScratch scratch_;
};

}  // namespace postern::tls
