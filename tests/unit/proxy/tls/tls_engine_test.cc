// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_engine.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <openssl/err.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/proxy/tls/engine_pair.h"

namespace postern::tls {
namespace {

using base::CloseReason;

TEST_F(EngineTest, ShakesHandsAndKnowsBothIdentities) {
  EnginePair pair = MakePair(Only("spiffe://example.org/server"));
  pair.Shake();
  ASSERT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone);
  ASSERT_EQ(pair.server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_EQ(pair.client.engine->peer()->id.uri(), "spiffe://example.org/server");
  EXPECT_EQ(pair.server.engine->peer()->id.uri(), "spiffe://example.org/client");
  for (const End* end : {&pair.client, &pair.server}) {
    const TlsFacts facts = end->engine->facts();
    EXPECT_EQ(facts.version, "TLSv1.3");
    EXPECT_EQ(facts.cipher.substr(0, 4), "TLS_");
    EXPECT_FALSE(facts.group.empty());
    EXPECT_EQ(facts.alpn, "postern/1");
    EXPECT_FALSE(facts.resumed);
  }
  RecordProperty("group", pair.client.engine->facts().group);
}

TEST_F(EngineTest, NeedsNoSecondRoundBetweenTwoOfOurOwn) {
  EnginePair pair = MakePair();
  pair.client.Handshake();
  ASSERT_EQ(pair.client.outbox[0], 22);  // the hello: one record and nothing else
  const auto length = [](const std::string& record) {
    return static_cast<size_t>(static_cast<uint8_t>(record[3]) * 256 +
                               static_cast<uint8_t>(record[4]));
  };
  EXPECT_EQ(pair.client.outbox.size(), 5 + length(pair.client.outbox));
  pair.server.Turn(std::exchange(pair.client.outbox, ""));
  pair.client.Turn(std::exchange(pair.server.outbox, ""));
  EXPECT_EQ(pair.client.engine->Handshake().outcome, EngineOutcome::kDone);
  pair.server.Turn(std::exchange(pair.client.outbox, ""));
  EXPECT_EQ(pair.server.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_TRUE(pair.server.outbox.empty());  // no tickets
}

TEST_F(EngineTest, CarriesAMegabyteEachWayInChunksOfAnySize) {
  for (const size_t chunk : {size_t{1400}, size_t{17}, size_t{65536}}) {
    EnginePair pair = MakePair();
    pair.Shake(chunk);
    ASSERT_EQ(pair.server.engine->Handshake().outcome, EngineOutcome::kDone);
    const size_t size = chunk < 100 ? 30'000 : 1 << 20;
    const std::string up = Noise(size, 1);
    const std::string down = Noise(size, 2);
    pair.client.Write(up);
    pair.server.Write(down);
    pair.Pump(chunk);
    EXPECT_TRUE(pair.server.received == up) << chunk;
    EXPECT_TRUE(pair.client.received == down) << chunk;
  }
}

TEST_F(EngineTest, DeliversWhatItHoldsBackInSmallReads) {
  EnginePair pair = MakePair();
  pair.Shake();
  const std::string text = Noise(40'000);
  pair.client.Write(text);
  ASSERT_LT(pair.client.outbox.size(), scratch_.input().size());
  std::copy(pair.client.outbox.begin(), pair.client.outbox.end(), scratch_.input().begin());
  TlsEngine& server = *pair.server.engine;
  server.Feed(scratch_.input().first(pair.client.outbox.size()));
  std::string got;
  uint8_t small[1024];
  while (server.HasBufferedInput()) {
    const EngineResult result = server.Read(small);
    got.append(reinterpret_cast<const char*>(small), result.bytes);
    server.EndTurn();  // back-pressure after each read: what is left must survive
    std::fill(scratch_.input().begin(), scratch_.input().end(), uint8_t{0xEE});
  }
  EXPECT_TRUE(got == text);
  EXPECT_EQ(server.Read(small).outcome, EngineOutcome::kWantRead);
}

TEST_F(EngineTest, StopsAtTheHighWaterMarkOfItsOutput) {
  EnginePair pair = MakePair();
  pair.Shake();
  const std::string text = Noise(1 << 20);
  TlsEngine& client = *pair.client.engine;
  const EngineResult first = client.Write(base::AsBytes(text));
  EXPECT_EQ(first.outcome, EngineOutcome::kDone);
  EXPECT_LT(first.bytes, text.size());
  EXPECT_EQ(client.Write(base::AsBytes(text)).outcome, EngineOutcome::kWantWrite);
  EXPECT_GE(client.OutputBytes(), 256U << 10U);
  EXPECT_LE(client.OutputBytes(), (256U << 10U) + 20'000);
  client.EndTurn();
  EXPECT_EQ(client.Write(base::AsBytes(text)).outcome, EngineOutcome::kWantWrite);
  const size_t all = client.OutputBytes();
  client.Sent(100'000);
  EXPECT_EQ(client.OutputBytes(), all - 100'000);
  EXPECT_EQ(client.Write(base::AsBytes(text).first(10)).outcome, EngineOutcome::kDone);
  pair.client.Drain();
  client.EndTurn();
  EXPECT_FALSE(client.HasOutput());
}

TEST_F(EngineTest, KeepsUnsentBytesInOrderOverManyTurns) {
  EnginePair pair = MakePair();
  pair.Shake();
  TlsEngine& client = *pair.client.engine;
  std::string sent;
  std::string plain;
  for (int i = 0; i < 50; ++i) {
    const std::string text = Noise(1 + static_cast<size_t>(i) * 37, static_cast<unsigned>(i));
    plain += text;
    ASSERT_EQ(client.Write(base::AsBytes(text)).bytes, text.size());
    for (int j = 0; j < 2 && client.HasOutput(); ++j) {  // the socket takes a little
      const size_t some = std::min<size_t>(client.Output().size(), 300);
      sent.append(base::AsText(client.Output().first(some)));
      client.Sent(some);
    }
    client.EndTurn();
  }
  pair.client.Drain();
  client.EndTurn();
  pair.client.outbox.insert(0, sent);
  pair.Pump(1000);
  EXPECT_TRUE(pair.server.received == plain);
}

TEST_F(EngineTest, EndsOneDirectionWithCloseNotifyAndKeepsTheOther) {
  EnginePair pair = MakePair();
  pair.Shake();
  pair.client.Write("request");
  pair.client.engine->CloseWrite();
  pair.client.engine->CloseWrite();  // once is enough
  pair.client.Drain();
  pair.client.engine->EndTurn();
  pair.Pump();
  EXPECT_EQ(pair.server.received, "request");
  EXPECT_EQ(pair.server.last, EngineOutcome::kEnd);
  const std::string reply = Noise(200'000);
  pair.server.Write(reply);
  pair.Pump();
  EXPECT_TRUE(pair.client.received == reply);
  EXPECT_EQ(pair.client.last, EngineOutcome::kWantRead);  // the server's direction is open
  pair.server.engine->CloseWrite();
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.Pump();
  EXPECT_EQ(pair.client.last, EngineOutcome::kEnd);
  EXPECT_EQ(pair.client.engine->Write(base::AsBytes("x")).outcome, EngineOutcome::kFailed);
}

TEST_F(EngineTest, NeverTakesMissingBytesForAnEnd) {
  EnginePair pair = MakePair();
  pair.Shake();
  pair.client.Write("half of it");
  const std::string cut = pair.client.outbox.substr(0, pair.client.outbox.size() - 3);
  pair.server.Turn(cut);
  EXPECT_EQ(pair.server.last, EngineOutcome::kWantRead);
  EXPECT_EQ(pair.server.received, "");
}

TEST_F(EngineTest, RefusesAChangedRecordAndSaysSo) {
  EnginePair pair = MakePair();
  pair.Shake();
  pair.client.Write("hello");
  pair.client.outbox[7] = static_cast<char>(pair.client.outbox[7] ^ 1);
  pair.Pump();
  EXPECT_EQ(pair.server.last, EngineOutcome::kFailed);
  const base::Failure& failure = pair.server.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kHandshakeFailed);
  EXPECT_EQ(failure.alert_sent, 20);  // bad_record_mac
  EXPECT_EQ(failure.peer_id, "spiffe://example.org/client");
  EXPECT_FALSE(failure.detail.message().empty());
  EXPECT_EQ(pair.client.last, EngineOutcome::kFailed);
  EXPECT_EQ(pair.client.engine->failure().reason, CloseReason::kRejectedByPeer);
  EXPECT_EQ(pair.client.engine->failure().alert_received, 20);
}

TEST_F(EngineTest, SendsTheAlertOfARefusalAfterTheHandshake) {
  EnginePair pair = MakePair();
  pair.Shake();
  pair.server.engine->SendAlert(49);
  pair.server.Drain();
  pair.server.engine->EndTurn();
  pair.Pump();
  EXPECT_EQ(pair.client.last, EngineOutcome::kFailed);
  const base::Failure& failure = pair.client.engine->failure();
  EXPECT_EQ(failure.reason, CloseReason::kRejectedByPeer);
  EXPECT_EQ(failure.alert_received, 49);
  EXPECT_NE(failure.detail.message().find("access denied"), absl::string_view::npos);
  EXPECT_EQ(pair.server.engine->Write(base::AsBytes("x")).outcome, EngineOutcome::kFailed);
}

TEST_F(EngineTest, SendsItsAlertBehindAnyNumberOfRecordsInBothRoles) {
  for (const bool from_client : {false, true}) {
    EnginePair pair = MakePair();
    pair.Shake();
    End& from = from_client ? pair.client : pair.server;
    End& to = from_client ? pair.server : pair.client;
    const std::string text = Noise(300'000);
    from.Write(text);
    from.Write("x");
    from.engine->SendAlert(44);
    from.Drain();
    from.engine->EndTurn();
    pair.Pump();
    EXPECT_TRUE(to.received == text + "x");
    EXPECT_EQ(to.engine->failure().alert_received, 44);
  }
}

TEST_F(EngineTest, SendsNoAlertBeforeItHasKeys) {
  EnginePair pair = MakePair();
  pair.client.engine->SendAlert(49);
  EXPECT_FALSE(pair.client.engine->HasOutput());
}

TEST_F(EngineTest, LetsManyEnginesShareOneScratchWithoutCrossingBytes) {
  constexpr size_t kPairs = 20;
  const auto client = ClientContext(client_svid_);
  const auto server = ServerContext(server_svid_);
  std::vector<EnginePair> pairs;
  std::vector<std::string> expected(kPairs);
  for (size_t i = 0; i < kPairs; ++i) {
    pairs.push_back(MakePair(client, server));
    pairs.back().client.Handshake();
  }
  std::mt19937 random(5);
  // One piece of one connection at a time, in any order.
  for (int step = 0; step < 20'000; ++step) {
    const size_t i = random() % kPairs;
    EnginePair& pair = pairs[i];
    if (pair.client.last == EngineOutcome::kWantRead && random() % 4 == 0 &&
        pair.client.engine->peer().has_value() && pair.server.engine->peer().has_value() &&
        expected[i].size() < 50'000) {
      const std::string text = Noise(1 + random() % 3000, static_cast<unsigned>(i));
      expected[i] += text;
      pair.client.Write(text);
    }
    End& from = random() % 2 == 0 ? pair.client : pair.server;
    End& to = &from == &pair.client ? pair.server : pair.client;
    if (!from.outbox.empty()) {
      const size_t count = 1 + random() % std::min<size_t>(from.outbox.size(), 5000);
      const std::string piece = from.outbox.substr(0, count);
      from.outbox.erase(0, count);
      to.Turn(piece);
      ASSERT_NE(to.last, EngineOutcome::kFailed) << to.engine->failure().detail;
    }
  }
  for (size_t i = 0; i < kPairs; ++i) {
    pairs[i].Pump();
    EXPECT_GT(expected[i].size(), 0U);
    EXPECT_TRUE(pairs[i].server.received == expected[i]) << i;
  }
}

TEST_F(EngineTest, AbortsRatherThanMixTwoEnginesBytes) {
  EnginePair one = MakePair();
  EnginePair two = MakePair();
  one.Shake();
  two.Shake();
  one.client.engine->Write(base::AsBytes("of the first"));  // and no EndTurn
  EXPECT_DEATH(two.client.engine->Write(base::AsBytes("of the second")), "EndTurn");
}

TEST_F(EngineTest, LeavesNothingInTheScratchWhenItDiesInItsTurn) {
  EnginePair one = MakePair();
  EnginePair two = MakePair();
  one.Shake();
  two.Shake();
  one.client.engine->Write(base::AsBytes("secret"));
  one.client.engine.reset();
  EXPECT_TRUE(scratch_.output().empty());
  two.client.Write("hello");
  two.Pump();
  EXPECT_EQ(two.server.received, "hello");
}

TEST_F(EngineTest, JudgesItsOwnCallsAndNotWhatAnotherLeftInTheErrorQueue) {
  EnginePair pair = MakePair();
  const auto poison = [] { ERR_raise(ERR_LIB_SSL, SSL_R_HTTP_REQUEST); };
  poison();
  pair.client.Handshake();
  poison();
  pair.Pump(50);
  for (int i = 0; i < 10; ++i) {
    poison();
    pair.client.Write("text");
    poison();
    pair.Pump();
  }
  EXPECT_EQ(pair.server.received.size(), 40U);
  EXPECT_EQ(pair.server.last, EngineOutcome::kWantRead);
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST_F(EngineTest, OutlivesItsContextAndKeepsItsIdentity) {
  auto client = ClientContext(client_svid_);
  auto server = ServerContext(server_svid_);
  EnginePair pair = MakePair(client, server);
  client.reset();
  server.reset();
  pair.Shake();
  pair.client.Write("after the rotation");
  pair.Pump();
  EXPECT_EQ(pair.server.received, "after the rotation");
}

TEST_F(EngineTest, ReportsTheMemoryOfIdleConnections) {
  constexpr size_t kPairs = 500;  // a thousand engines
  const auto client = ClientContext(client_svid_);
  const auto server = ServerContext(server_svid_);
  EnginePair warm = MakePair(client, server);
  warm.Shake();
  malloc_trim(0);
  const size_t before = mallinfo2().uordblks;
  std::vector<EnginePair> pairs;
  pairs.reserve(kPairs);
  for (size_t i = 0; i < kPairs; ++i) {
    pairs.push_back(MakePair(client, server));
    pairs.back().Shake();
    pairs.back().client.Write("hello");
    pairs.back().Pump();
    pairs.back().server.received = {};
  }
  const size_t each = (mallinfo2().uordblks - before) / (2 * kPairs);
  RecordProperty("bytes_per_idle_engine", static_cast<int>(each));
  std::printf("bytes per idle engine: %zu\n", each);
  EXPECT_LT(each, 8U << 10U);  // two ciphers with their keys, and who the peer is
}

}  // namespace
}  // namespace postern::tls
