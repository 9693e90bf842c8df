// SPDX-License-Identifier: Apache-2.0
// Tickets between an engine and plain OpenSSL, which does as any program would, or as none should.
#include <gtest/gtest.h>
#include <malloc.h>
#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {
namespace {

using testing::Minted;
using SessionPtr = x509::OpensslPtr<SSL_SESSION, SSL_SESSION_free>;

// A copy, as the end of a connection without close_notify spoils the session that it holds.
int Take(SSL* ssl, const SSL_SESSION* session) {
  static_cast<SessionPtr*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0))
      ->reset(SSL_SESSION_dup(session));
  return 0;
}

// Passes itself off as a proxy of ours.
int SelectFirst(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_length,
                const unsigned char* in, unsigned int /*in_length*/, void* /*arg*/) {
  *out = in + 1;
  *out_length = in[0];
  return SSL_TLSEXT_ERR_OK;
}

class ForeignResumptionTest : public ResumptionTest {
 protected:
  // A plain client connects, says something and hears something; the last session that it was
  // given.
  SessionPtr Visit(SSL_SESSION* with, const PlainPeer::Setup& setup = {}) {
    SessionPtr given;
    PlainPeer client = PlainPeer::Client(&client_identity_, [&](SSL_CTX* ctx) {
      SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
      SSL_CTX_set_ex_data(ctx, 0, &given);
      SSL_CTX_sess_set_new_cb(ctx,
                              [](SSL* ssl, SSL_SESSION* session) { return Take(ssl, session); });
      if (setup) {
        setup(ctx);
      }
    });
    if (with != nullptr) {
      const SessionPtr copy(SSL_SESSION_dup(with));
      SSL_set_session(client.ssl(), copy.get());
    }
    End server = Server();
    client.Talk(server);
    client.Write("request");
    client.Talk(server);
    server.Write("reply");
    client.Talk(server);
    EXPECT_EQ(server.last, EngineOutcome::kWantRead) << server.engine->failure().detail;
    EXPECT_EQ(server.received, "request");
    EXPECT_EQ(client.received(), "reply");
    resumed_ = server.engine->facts().resumed;
    EXPECT_EQ(resumed_, SSL_session_reused(client.ssl()) != 0);
    use_ = server.engine->ticket_use();
    group_ = server.engine->facts().group;
    peer_id_ = server.engine->peer().has_value() ? server.engine->peer()->id.uri() : "";
    return given;
  }

  const Minted client_identity_ = ca_.Mint("spiffe://example.org/client");
  bool resumed_ = false;
  TicketUse use_ = TicketUse::kNone;
  std::string group_;
  std::string peer_id_;
};

TEST_F(ForeignResumptionTest, APlainClientResumes) {
  const SessionPtr session = Visit(nullptr);
  ASSERT_NE(session, nullptr);
  EXPECT_FALSE(resumed_);
  EXPECT_EQ(SSL_SESSION_get_max_early_data(session.get()), 0U);
  EXPECT_LE(SSL_SESSION_get_ticket_lifetime_hint(session.get()), 3600U);
  EXPECT_GT(SSL_SESSION_get_ticket_lifetime_hint(session.get()), 3500U);
  const unsigned char* ticket = nullptr;
  size_t size = 0;
  SSL_SESSION_get0_ticket(session.get(), &ticket, &size);
  RecordProperty("ticket_bytes", static_cast<int>(size));
  std::printf("ticket bytes: %zu\n", size);
  EXPECT_LT(size, 512U);
  EXPECT_EQ(Visit(session.get()), nullptr);  // no new one
  EXPECT_TRUE(resumed_);
  EXPECT_EQ(peer_id_, "spiffe://example.org/client");
}

// A ticket says nothing of its holder to whoever has not its key.
TEST_F(ForeignResumptionTest, ATicketIsOpaque) {
  const SessionPtr session = Visit(nullptr);
  const unsigned char* ticket = nullptr;
  size_t size = 0;
  SSL_SESSION_get0_ticket(session.get(), &ticket, &size);
  const std::string text(reinterpret_cast<const char*>(ticket), size);
  EXPECT_EQ(text.find("example.org"), std::string::npos);
  EXPECT_EQ(text.find("postern"), std::string::npos);
}

TEST_F(ForeignResumptionTest, ATicketWithAnyByteChangedMeansAFullHandshake) {
  const SessionPtr session = Visit(nullptr);
  const unsigned char* ticket = nullptr;
  size_t size = 0;
  SSL_SESSION_get0_ticket(session.get(), &ticket, &size);
  // The ticket inside the DER of the client's session, wherever it stands.
  unsigned char* bytes = nullptr;
  const int length = i2d_SSL_SESSION(session.get(), &bytes);
  const std::string der(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  OPENSSL_free(bytes);
  const size_t at = der.find(std::string(reinterpret_cast<const char*>(ticket), size));
  ASSERT_NE(at, std::string::npos);
  for (size_t i = 0; i < size; i += 7) {
    std::string changed = der;
    changed[at + i] = static_cast<char>(changed[at + i] ^ 1);
    const auto* in = reinterpret_cast<const unsigned char*>(changed.data());
    const SessionPtr broken(d2i_SSL_SESSION(nullptr, &in, static_cast<long>(changed.size())));
    ASSERT_NE(broken, nullptr);
    EXPECT_NE(Visit(broken.get()), nullptr);
    EXPECT_FALSE(resumed_);
    EXPECT_EQ(use_, TicketUse::kUnknownKey);
    EXPECT_EQ(peer_id_, "spiffe://example.org/client");
  }
  Visit(session.get());
  EXPECT_TRUE(resumed_);
}

TEST_F(ForeignResumptionTest, ATicketOfSomebodyElsesMakingMeansAFullHandshake) {
  // A stranger with a ticket key of its own, for the same name.
  const Minted stranger_identity = ca_.Mint("spiffe://example.org/server");
  SessionPtr given;
  PlainPeer stranger = PlainPeer::Server(&stranger_identity);
  PlainPeer client = PlainPeer::Client(&client_identity_, [&](SSL_CTX* ctx) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_set_ex_data(ctx, 0, &given);
    SSL_CTX_sess_set_new_cb(ctx, [](SSL* ssl, SSL_SESSION* session) { return Take(ssl, session); });
  });
  for (int i = 0; i < 4; ++i) {
    client.Turn();
    stranger.Feed(client.TakeOutput());
    stranger.Turn();
    client.Feed(stranger.TakeOutput());
  }
  client.Turn();
  ASSERT_NE(given, nullptr);
  EXPECT_NE(Visit(given.get()), nullptr);
  EXPECT_FALSE(resumed_);
  EXPECT_EQ(use_, TicketUse::kUnknownKey);
}

TEST_F(ForeignResumptionTest, ResumesWithAFreshKeyExchangeOnly) {
  const SessionPtr session = Visit(nullptr);
  // A client that would rather do without (psk_ke) is not let: it gets a fresh exchange.
  Visit(session.get(), [](SSL_CTX* ctx) { SSL_CTX_set_options(ctx, SSL_OP_ALLOW_NO_DHE_KEX); });
  EXPECT_TRUE(resumed_);
  EXPECT_FALSE(group_.empty());
}

TEST_F(ForeignResumptionTest, ResumesInASecondRoundToo) {
  const SessionPtr session = Visit(nullptr);
  // The one key share that it sends is of a group that we do not have: HelloRetryRequest.
  Visit(session.get(), [](SSL_CTX* ctx) { SSL_CTX_set1_groups_list(ctx, "P-384:X25519"); });
  EXPECT_TRUE(resumed_);
  EXPECT_EQ(peer_id_, "spiffe://example.org/client");
}

TEST_F(ForeignResumptionTest, EarlyDataOnOurOwnTicketIsNeverDelivered) {
  const SessionPtr session = Visit(nullptr);
  SSL_SESSION_set_max_early_data(session.get(), 4096);  // which the ticket does not say
  PlainPeer client = PlainPeer::Client(&client_identity_);
  SSL_set_session(client.ssl(), session.get());
  size_t written = 0;
  ASSERT_EQ(SSL_write_early_data(client.ssl(), "replayed", 8, &written), 1);
  End server = Server();
  client.Talk(server);
  client.Write("fresh");
  client.Talk(server);
  EXPECT_EQ(server.received.find("replayed"), std::string::npos);
  EXPECT_NE(SSL_get_early_data_status(client.ssl()), SSL_EARLY_DATA_ACCEPTED);
}

TEST_F(ForeignResumptionTest, OurClientKeepsOneSessionOfAForeignServerHoweverManyItSends) {
  const Minted identity = ca_.Mint(kServerId);
  PlainPeer server = PlainPeer::Server(&identity, [](SSL_CTX* ctx) {
    SSL_CTX_set_num_tickets(ctx, 2);
    SSL_CTX_set_alpn_select_cb(ctx, &SelectFirst, nullptr);
  });
  End client = Client();
  client.Handshake();
  server.Talk(client);
  ASSERT_EQ(client.engine->Handshake().outcome, EngineOutcome::kDone);
  EXPECT_EQ(sessions_->size(), 1U);
  const auto first =
      sessions_->Find(std::string(kDestination) + "\n" + std::string(kServerId), clock_.Now());
  malloc_trim(0);
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 10'000; ++i) {
    SSL_new_session_ticket(server.ssl());
    server.Write("x");
    client.Turn(server.TakeOutput());
    client.received.clear();
    ASSERT_NE(client.last, EngineOutcome::kFailed);
    clock_.Advance(absl::Milliseconds(110));  // slow enough for the budget
  }
  EXPECT_EQ(sessions_->size(), 1U);
  EXPECT_EQ(
      sessions_->Find(std::string(kDestination) + "\n" + std::string(kServerId), clock_.Now()),
      first);
  EXPECT_LT(mallinfo2().uordblks, before + (256U << 10U));
}

TEST_F(ForeignResumptionTest, OurClientKeepsNoSessionOfAServerWithoutTheMeshsMark) {
  const Minted identity = ca_.Mint(kServerId);
  PlainPeer server = PlainPeer::Server(&identity);
  End client = Client();
  client.Handshake();
  server.Talk(client);
  server.Write("hello");
  server.Talk(client);
  EXPECT_EQ(client.received, "hello");
  EXPECT_EQ(sessions_->size(), 0U);
}

TEST_F(ForeignResumptionTest, OurClientResumesAtAServerThatIsNoEngine) {
  const Minted identity = ca_.Mint(kServerId);
  SSL_CTX* shared = nullptr;  // the tickets' keys are the context's
  PlainPeer server = PlainPeer::Server(&identity, [&](SSL_CTX* ctx) {
    shared = ctx;
    SSL_CTX_set_alpn_select_cb(ctx, &SelectFirst, nullptr);
  });
  End client = Client();
  client.Handshake();
  server.Talk(client);
  ASSERT_EQ(sessions_->size(), 1U);
  x509::SslPtr second(SSL_new(shared));
  SSL_set_bio(second.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_accept_state(second.get());
  End again = Client();
  again.Handshake();
  for (int i = 0; i < 3; ++i) {
    BIO_write(SSL_get_rbio(second.get()), again.outbox.data(),
              static_cast<int>(again.outbox.size()));
    again.outbox.clear();
    SSL_do_handshake(second.get());
    std::string out(static_cast<size_t>(BIO_ctrl_pending(SSL_get_wbio(second.get()))), '\0');
    BIO_read(SSL_get_wbio(second.get()), out.data(), static_cast<int>(out.size()));
    if (!out.empty()) {
      again.Turn(out);
    }
  }
  EXPECT_TRUE(again.engine->facts().resumed);
  EXPECT_EQ(again.engine->peer()->id.uri(), kServerId);
}

TEST_F(ForeignResumptionTest, ReportsTheMemoryOfIdleConnectionsThatResumed) {
  constexpr size_t kPairs = 300;
  Connect();
  const EnginePair warm = Connect();
  for (const bool resumed : {false, true}) {
    malloc_trim(0);
    const size_t before = mallinfo2().uordblks;
    std::vector<EnginePair> pairs;
    pairs.reserve(kPairs);
    for (size_t i = 0; i < kPairs; ++i) {
      const std::string destination = resumed ? std::string(kDestination) : std::to_string(i);
      pairs.push_back(Connect(Client(destination), Server()));
      ASSERT_EQ(pairs.back().client.engine->facts().resumed, resumed);
      pairs.back().server.received = {};
      pairs.back().client.received = {};
    }
    const size_t each = (mallinfo2().uordblks - before) / (2 * kPairs);
    std::printf("bytes per idle engine, resumed %d: %zu\n", resumed ? 1 : 0, each);
    EXPECT_LT(each, 8U << 10U);
  }
}

}  // namespace
}  // namespace postern::tls
