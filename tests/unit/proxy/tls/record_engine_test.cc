// SPDX-License-Identifier: Apache-2.0
// The engine's own records against plain OpenSSL: what is legal under each cipher suite in both
// roles, and what is not, said with the right keys.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "proxy/tls/record_cipher.h"
#include "proxy/tls/tls_engine.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/proxy/tls/plain_peer.h"
#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {
namespace {

using base::CloseReason;
using testing::Minted;

constexpr std::array<const char*, 3> kSuites = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                                "TLS_CHACHA20_POLY1305_SHA256"};
constexpr int kUnexpectedMessage = 10;
constexpr int kBadRecordMac = 20;
constexpr int kRecordOverflow = 22;

// The secrets of a connection by the names of the key log.
using Secrets = std::map<std::string, std::string>;

void LogSecret(const SSL* ssl, const char* line) {
  const std::string_view text(line);
  const std::string_view label = text.substr(0, text.find(' '));
  (*static_cast<Secrets*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0)))[std::string(label)] =
      base::FromHex(text.substr(text.rfind(' ') + 1)).value();
}

// Passes a server off as a proxy of ours.
int SelectFirst(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_length,
                const unsigned char* in, unsigned int /*in_length*/, void* /*arg*/) {
  *out = in + 1;
  *out_length = in[0];
  return SSL_TLSEXT_ERR_OK;
}

// An engine and a plain peer that has shaken hands with it. The peer's keys are known, so that a
// test can also speak and hear in its place.
struct Conversation {
  End engine;
  PlainPeer peer;
  RecordCipher speaks{};
  RecordCipher hears{};

  void Forge(ContentType type, std::string_view content) {
    RecordBuffer record;
    ASSERT_TRUE(speaks.Seal(type, base::AsBytes(content), record));
    engine.Turn(base::AsText(record));
  }
  // The description of the one alert that the engine has sent; -1 when it is something else.
  int HearAlert() {
    const std::string out = std::exchange(engine.outbox, "");
    std::vector<uint8_t> room(out.size());
    const auto opened = hears.Open(base::AsBytes(out), room);
    return opened.has_value() && opened->type == ContentType::kAlert && opened->bytes == 2 ? room[1]
                                                                                           : -1;
  }
};

class RecordEngineTest : public ResumptionTest {
 protected:
  std::unique_ptr<Conversation> Begin(bool engine_is_server, const char* suite = kSuites[0],
                                      bool resumes = false, size_t tickets = 2) {
    secrets_.clear();
    const PlainPeer::Setup setup = [&](SSL_CTX* ctx) {
      SSL_CTX_set_ciphersuites(ctx, suite);
      SSL_CTX_set_ex_data(ctx, 0, &secrets_);
      SSL_CTX_set_keylog_callback(ctx, &LogSecret);
      SSL_CTX_set_num_tickets(ctx, resumes ? tickets : 0);
      SSL_CTX_set_alpn_select_cb(ctx, &SelectFirst, nullptr);
    };
    TlsOptions options;
    options.clock = &clock_;
    std::unique_ptr<Conversation> both;
    if (engine_is_server) {
      const auto context = resumes ? server_ : ServerContext(server_svid_, options);
      both.reset(new Conversation{{TlsEngine::CreateServer(context, scratch_).value(), &scratch_},
                                  PlainPeer::Client(&client_identity_, setup)});
    } else {
      const auto context = resumes ? client_ : ClientContext(client_svid_, options);
      both.reset(new Conversation{
          {TlsEngine::CreateClient(context, scratch_, Only(kServerId), kDestination).value(),
           &scratch_},
          PlainPeer::Server(&server_identity_, setup)});
      both->engine.Handshake();
    }
    both->peer.Talk(both->engine);
    EXPECT_EQ(both->engine.engine->Handshake().outcome, EngineOutcome::kDone)
        << both->engine.engine->failure().detail;
    EXPECT_EQ(both->engine.engine->facts().cipher, suite);
    const uint32_t id = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(both->peer.ssl()));
    const std::string& of_client = secrets_["CLIENT_TRAFFIC_SECRET_0"];
    const std::string& of_server = secrets_["SERVER_TRAFFIC_SECRET_0"];
    EXPECT_TRUE(both->speaks.Start(id, base::AsBytes(engine_is_server ? of_client : of_server),
                                   RecordCipher::Use::kSeal));
    EXPECT_TRUE(both->hears.Start(id, base::AsBytes(engine_is_server ? of_server : of_client),
                                  RecordCipher::Use::kOpen));
    return both;
  }
  // Both say something; whether both have heard it.
  static void Exchange(Conversation& both, const std::string& up, const std::string& down) {
    const size_t had = both.engine.received.size();
    const size_t heard = both.peer.received().size();
    both.peer.Write(up);
    both.peer.Talk(both.engine);
    both.engine.Write(down);
    both.peer.Talk(both.engine);
    ASSERT_NE(both.engine.last, EngineOutcome::kFailed) << both.engine.engine->failure().detail;
    EXPECT_TRUE(both.engine.received.substr(had) == up) << up.size();
    EXPECT_TRUE(both.peer.received().substr(heard) == down) << down.size();
  }
  // Refused: the reason, what the peer is told, and that nothing can follow.
  static void ExpectRefused(Conversation& both, int alert) {
    EXPECT_EQ(both.engine.last, EngineOutcome::kFailed);
    const base::Failure& failure = both.engine.engine->failure();
    EXPECT_EQ(failure.reason, CloseReason::kHandshakeFailed);
    EXPECT_EQ(failure.alert_sent, alert);
    EXPECT_EQ(failure.alert_received, -1);
    EXPECT_FALSE(failure.peer_id.empty());
    EXPECT_FALSE(failure.detail.message().empty());
    EXPECT_EQ(both.HearAlert(), alert) << failure.detail;
    EXPECT_EQ(both.engine.engine->Write(base::AsBytes("x")).outcome, EngineOutcome::kFailed);
    uint8_t byte = 0;
    EXPECT_EQ(both.engine.engine->Read({&byte, 1}).outcome, EngineOutcome::kFailed);
  }

  Secrets secrets_;
  const Minted client_identity_ = ca_.Mint("spiffe://example.org/client");
  const Minted server_identity_ = ca_.Mint(kServerId);
};

TEST_F(RecordEngineTest, CarriesAnySizeUnderEachSuiteInBothRoles) {
  for (const char* suite : kSuites) {
    for (const bool server : {false, true}) {
      const auto both = Begin(server, suite);
      for (const size_t size : {1, 64, 1000, 16'383, 16'384, 16'385, 70'001, 1 << 20}) {
        Exchange(*both, Noise(size, 1), Noise(size, 2));
      }
    }
  }
}

TEST_F(RecordEngineTest, GoesOnWhereOpensslStoppedWithTicketsAndWithout) {
  for (const bool server : {false, true}) {
    for (const bool resumes : {false, true}) {
      for (const char* suite : kSuites) {
        const auto both = Begin(server, suite, resumes);
        for (int i = 0; i < 20; ++i) {
          Exchange(*both, Noise(100, 1), Noise(20'000, 2));
        }
        both->engine.engine->SendAlert(49);
        both->engine.Drain();
        both->engine.engine->EndTurn();
        both->peer.Talk(both->engine);
        EXPECT_EQ(both->peer.reason(), SSL_R_TLSV1_ALERT_ACCESS_DENIED);
      }
    }
  }
}

// While an SSL still waits, to make a ticket or to take one: what comes first must not make OpenSSL
// write under keys that are in use.
TEST_F(RecordEngineTest, AnswersAKeyUpdateThatComesBeforeAnyTicket) {
  for (const bool server : {false, true}) {
    const auto both = Begin(server, kSuites[1], true, 0);
    ASSERT_EQ(SSL_key_update(both->peer.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    Exchange(*both, "a", "b");
    Exchange(*both, "c", "d");
  }
  // Between two engines that resume: a client whose SSL waits, and its own records meanwhile.
  EnginePair pair{Client(), Server()};
  pair.Shake();
  for (int i = 0; i < 10; ++i) {
    pair.client.Write("a");
  }
  pair.Pump();
  pair.server.Write("b");
  pair.Pump();
  pair.client.Write("c");
  pair.Pump();
  EXPECT_EQ(pair.server.received, "aaaaaaaaaac");
  EXPECT_EQ(pair.client.received, "b");
  EXPECT_EQ(sessions_->size(), 1U);
}

TEST_F(RecordEngineTest, RenewsKeysFromTheOtherSideUnderLoad) {
  for (const bool server : {false, true}) {
    for (const int request : {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED}) {
      const auto both = Begin(server, kSuites[static_cast<size_t>(request) % 3]);
      for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(SSL_key_update(both->peer.ssl(), request), 1);
        Exchange(*both, Noise(30'000, 1), Noise(30'000, 2));
        clock_.Advance(absl::Milliseconds(200));
      }
    }
  }
}

TEST_F(RecordEngineTest, PilesUpNoAnswersForAPeerThatAsksAndDoesNotRead) {
  const auto both = Begin(true);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(SSL_key_update(both->peer.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    both->peer.Write("x");
    both->engine.Turn(both->peer.TakeOutput());
    ASSERT_EQ(both->engine.last, EngineOutcome::kWantRead) << both->engine.engine->failure().detail;
    clock_.Advance(absl::Milliseconds(200));
  }
  EXPECT_TRUE(both->engine.outbox.empty());
  both->engine.Write("y");
  EXPECT_EQ(both->engine.outbox.size(), 27U + 23U);  // one update and the text
  both->peer.Talk(both->engine);
  EXPECT_EQ(both->peer.received(), "y");
}

TEST_F(RecordEngineTest, EndsEachDirectionByItself) {
  for (const bool server : {false, true}) {
    const auto both = Begin(server);
    SSL_shutdown(both->peer.ssl());
    both->engine.Turn(both->peer.TakeOutput());
    EXPECT_EQ(both->engine.last, EngineOutcome::kEnd);
    EXPECT_FALSE(both->engine.engine->HasBufferedInput());
    both->engine.Turn("what comes behind close_notify is not looked at");
    EXPECT_EQ(both->engine.last, EngineOutcome::kEnd);
    both->engine.Write("late");
    both->engine.engine->CloseWrite();
    both->engine.Drain();
    both->engine.engine->EndTurn();
    both->peer.Feed(std::exchange(both->engine.outbox, ""));
    both->peer.Turn();
    EXPECT_EQ(both->peer.received(), "late");
    EXPECT_NE(SSL_get_shutdown(both->peer.ssl()) & SSL_RECEIVED_SHUTDOWN, 0);
    EXPECT_EQ(both->engine.engine->failure().alert_sent, -1);
  }
}

TEST_F(RecordEngineTest, MakesRecordsAsShortAsAClientHasAskedFor) {
  for (const int mode : {TLSEXT_max_fragment_length_512, TLSEXT_max_fragment_length_4096}) {
    const size_t most = size_t{1} << (8 + mode);
    End server = Server();
    PlainPeer client = PlainPeer::Client(&client_identity_, [&](SSL_CTX* ctx) {
      SSL_CTX_set_tlsext_max_fragment_length(ctx, static_cast<uint8_t>(mode));
    });
    client.Talk(server);
    ASSERT_EQ(server.engine->Handshake().outcome, EngineOutcome::kDone);
    server.Write("behind the ticket");
    client.Talk(server);
    const std::string text = Noise(10'000);
    server.Write(text);
    EXPECT_EQ(server.outbox.size(), text.size() + 22 * ((text.size() + most - 1) / most));
    client.Talk(server);
    EXPECT_TRUE(client.received() == "behind the ticket" + text);
  }
}

TEST_F(RecordEngineTest, TakesARecordThatComesByteByByte) {
  const auto both = Begin(true);
  both->peer.Write("slowly");
  for (const char byte : both->peer.TakeOutput()) {
    EXPECT_EQ(both->engine.received, "");
    EXPECT_FALSE(both->engine.engine->HasBufferedInput());
    both->engine.Turn(std::string_view(&byte, 1));
  }
  EXPECT_EQ(both->engine.received, "slowly");
}

// ---------------------------------------------------------------- what is refused

TEST_F(RecordEngineTest, RefusesWhatATrustedPeerMayNotSay) {
  struct Case {
    const char* what;
    ContentType type;
    std::string content;
    int alert;
  };
  const std::string update("\x18\0\0\1\0", 5);
  const Case cases[] = {
      {"padding alone", ContentType::kInvalid, std::string(30, '\0'), kUnexpectedMessage},
      {"a ChangeCipherSpec", ContentType::kChangeCipherSpec, "\1", kUnexpectedMessage},
      {"an unknown type", static_cast<ContentType>(99), "x", kUnexpectedMessage},
      {"another hello", ContentType::kHandshake, std::string("\1\0\0\0", 4), kUnexpectedMessage},
      {"a certificate", ContentType::kHandshake, std::string("\x0B\0\0\0", 4), kUnexpectedMessage},
      {"two updates in one record", ContentType::kHandshake, update + update, kUnexpectedMessage},
      {"an update of two bytes", ContentType::kHandshake, std::string("\x18\0\0\2\0\0", 6), 50},
      {"an update that asks for what is not", ContentType::kHandshake,
       std::string("\x18\0\0\1\7", 5), 47},
      {"half an alert", ContentType::kAlert, "\2", 50},
      {"nothing of a handshake", ContentType::kHandshake, "", kUnexpectedMessage},
  };
  for (const Case& one : cases) {
    for (const bool server : {false, true}) {
      SCOPED_TRACE(one.what);
      const auto both = Begin(server);
      both->Forge(one.type, one.content);
      ExpectRefused(*both, one.alert);
    }
  }
}

TEST_F(RecordEngineTest, RefusesDataInsideAHandshakeMessage) {
  const auto both = Begin(false);
  both->Forge(ContentType::kHandshake, std::string("\4\0\0\x20half", 8));
  ASSERT_EQ(both->engine.last, EngineOutcome::kWantRead);
  both->Forge(ContentType::kApplicationData, "data");
  ExpectRefused(*both, kUnexpectedMessage);
}

TEST_F(RecordEngineTest, RefusesATicketFromAClient) {
  const auto both = Begin(true);
  both->Forge(ContentType::kHandshake, std::string("\4\0\0\1x", 5));
  ExpectRefused(*both, kUnexpectedMessage);
}

TEST_F(RecordEngineTest, RefusesAFloodOfEmptyRecords) {
  const auto both = Begin(true);
  for (int i = 0; i < 1000 && both->engine.last != EngineOutcome::kFailed; ++i) {
    both->Forge(ContentType::kApplicationData, "");
  }
  EXPECT_NE(both->engine.engine->failure().detail.message().find("too many records"),
            absl::string_view::npos);
  ExpectRefused(*both, kUnexpectedMessage);
}

TEST_F(RecordEngineTest, RefusesRecordsWithAWrongHeader) {
  for (const bool server : {false, true}) {
    for (const char type : {'\x14', '\x15', '\x16', 'G'}) {
      const auto both = Begin(server);
      both->engine.Turn(std::string{type, 3, 3, 0, 2, 1, 0});
      ExpectRefused(*both, kUnexpectedMessage);
    }
    const auto both = Begin(server);
    both->engine.Turn(std::string("\x17\3\3\x41\1", 5));
    ExpectRefused(*both, kRecordOverflow);
  }
}

TEST_F(RecordEngineTest, RefusesAChangedRecordUnderEachSuite) {
  for (const char* suite : kSuites) {
    for (const size_t at : {size_t{1}, size_t{5}, size_t{20}, size_t{60}}) {
      const auto both = Begin(true, suite);
      both->peer.Write(std::string(40, 'x'));  // 62 bytes
      std::string record = both->peer.TakeOutput();
      record[at] = static_cast<char>(record[at] ^ 4);
      both->engine.Turn(record);
      EXPECT_EQ(both->engine.received, "");
      EXPECT_NE(both->engine.engine->failure().detail.message().find("bad record mac"),
                absl::string_view::npos);
      ExpectRefused(*both, kBadRecordMac);
    }
  }
}

TEST_F(RecordEngineTest, RefusesARecordTwiceOrOutOfOrder) {
  for (const bool twice : {false, true}) {
    const auto both = Begin(true);
    both->peer.Write("one");
    const std::string one = both->peer.TakeOutput();
    both->peer.Write("two");
    const std::string two = both->peer.TakeOutput();
    both->engine.Turn(twice ? one + one : two + one);
    EXPECT_EQ(both->engine.received, twice ? "one" : "");
    ExpectRefused(*both, kBadRecordMac);
  }
}

TEST_F(RecordEngineTest, DeliversWhatCameBeforeARecordThatIsRefused) {
  const auto both = Begin(true);
  both->peer.Write("good");
  both->engine.Turn(both->peer.TakeOutput() + std::string("\x16\3\3\0\1x", 6));
  EXPECT_EQ(both->engine.received, "good");
  EXPECT_EQ(both->engine.last, EngineOutcome::kFailed);
}

// Under the right keys, but nothing that OpenSSL can read: it is refused, and OpenSSL's own alert,
// which it would seal under a number that we use, does not leave.
TEST_F(RecordEngineTest, RefusesATicketThatOpensslRefuses) {
  const Minted identity = ca_.Mint(kServerId);
  PlainPeer server = PlainPeer::Server(&identity, [&](SSL_CTX* ctx) {
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_ex_data(ctx, 0, &secrets_);
    SSL_CTX_set_keylog_callback(ctx, &LogSecret);
    SSL_CTX_set_ciphersuites(ctx, kSuites[0]);
    SSL_CTX_set_alpn_select_cb(ctx, &SelectFirst, nullptr);
  });
  Conversation both{Client(), std::move(server)};
  both.engine.Handshake();
  both.peer.Talk(both.engine);
  ASSERT_EQ(both.engine.engine->facts().alpn, kMeshAlpn);
  ASSERT_TRUE(both.speaks.Start(0x1301, base::AsBytes(secrets_["SERVER_TRAFFIC_SECRET_0"]),
                                RecordCipher::Use::kSeal));
  ASSERT_TRUE(both.hears.Start(0x1301, base::AsBytes(secrets_["CLIENT_TRAFFIC_SECRET_0"]),
                               RecordCipher::Use::kOpen));
  both.Forge(ContentType::kHandshake, std::string("\4\0\0\2xx", 6));
  EXPECT_EQ(sessions_->size(), 0U);
  ExpectRefused(both, 50);  // decode_error
}

}  // namespace
}  // namespace postern::tls
