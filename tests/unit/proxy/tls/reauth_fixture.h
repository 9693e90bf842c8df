// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/x509/certificate.h"
#include "proxy/tls/handshake_messages.h"
#include "proxy/tls/handshake_signature.h"
#include "proxy/tls/handshake_transcript.h"
#include "proxy/tls/record_cipher.h"
#include "proxy/tls/running_hash.h"
#include "tests/unit/proxy/tls/plain_peer.h"
#include "tests/unit/proxy/tls/resumption_fixture.h"

namespace postern::tls {

// What OpenSSL tells of a plain client's handshake: enough to go on in its place.
struct ClientsKnowledge {
  std::map<std::string, std::string> secrets;  // by the names of the key log
  HandshakeTranscript transcript;

  static void OnKeyLog(const SSL* ssl, const char* line) {
    const std::string_view text(line);
    Of(ssl)->secrets[std::string(text.substr(0, text.find(' ')))] =
        base::FromHex(text.substr(text.rfind(' ') + 1)).value();
  }
  static void OnMessage(int /*write*/, int /*version*/, int type, const void* bytes, size_t size,
                        SSL* ssl, void* /*arg*/) {
    if (type == SSL3_RT_HANDSHAKE) {
      Of(ssl)->transcript.Add({static_cast<const uint8_t*>(bytes), size});
    }
  }
  static ClientsKnowledge* Of(const SSL* ssl) {
    return static_cast<ClientsKnowledge*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0));
  }
  void Attach(SSL_CTX* ctx) {
    SSL_CTX_set_ex_data(ctx, 0, this);
    SSL_CTX_set_keylog_callback(ctx, &OnKeyLog);
    SSL_CTX_set_msg_callback(ctx, &OnMessage);
  }
};

// An answer to a CertificateRequest, message by message, so that a test can spoil any of them.
struct Flight {
  std::string certificate, verify, finished;
  std::string Whole() const { return certificate + verify + finished; }
};

// A server's engine whose client is plain OpenSSL up to the end of the handshake, and the test from
// then on: it holds the keys and speaks in the client's place.
struct Impersonation {
  End server;
  std::unique_ptr<ClientsKnowledge> knows = std::make_unique<ClientsKnowledge>();
  RecordCipher speaks{};
  RecordCipher hears{};

  void Say(ContentType type, std::string_view content) {
    RecordBuffer record;
    ASSERT_TRUE(speaks.Seal(type, base::AsBytes(content), record));
    server.Turn(base::AsText(record));
  }
  void SayHandshake(std::string_view messages) { Say(ContentType::kHandshake, messages); }
  // The content of the next record that the server has sent; empty when it is of another type.
  std::string Hear(ContentType type) {
    if (server.outbox.size() < kRecordHeaderBytes) {
      return "";
    }
    const base::ByteSpan out = base::AsBytes(server.outbox);
    const size_t size = kRecordHeaderBytes + out[3] * 256U + out[4];
    std::vector<uint8_t> room(size);
    const auto opened = hears.Open(out.first(size), room);
    server.outbox.erase(0, size);
    return opened.has_value() && opened->type == type
               ? std::string(base::AsText(room).substr(0, opened->bytes))
               : "";
  }
  // Has the server ask, and gives what it asks.
  std::string Asked() {
    EXPECT_TRUE(server.engine->AskClientAgain());
    server.Drain();
    server.engine->EndTurn();
    return Hear(ContentType::kHandshake);
  }
  Flight Answer(const std::string& request, const testing::Minted& identity) {
    const auto parsed = ParseCertificateRequest(base::AsBytes(request));
    EXPECT_TRUE(parsed.message.has_value());
    RunningHash hash = RunningHash::Restore(knows->transcript.Save());
    hash.Update(base::AsBytes(request));
    return AnswerTo(parsed.message->context, identity, hash);
  }
  Flight AnswerTo(base::ByteSpan context, const testing::Minted& identity, RunningHash hash) {
    Flight flight;
    const auto add = [&hash](std::string& to, const std::vector<uint8_t>& message) {
      hash.Update(message);
      to = std::string(base::AsText(message));
    };
    add(flight.certificate, MakeCertificate(context, identity.chain));
    const std::vector<uint8_t> schemes = {4, 3, 8, 7, 5, 3, 8, 4};
    const uint16_t scheme = ChooseScheme(identity.key.get(), schemes);
    add(flight.verify,
        MakeCertificateVerify(
            scheme, SignAsClient(identity.key.get(), scheme, hash.Peek().bytes()).value()));
    const RunningHash::Digest digest = hash.Peek();
    std::vector<uint8_t> mac(digest.size);
    EXPECT_TRUE(speaks.FinishedMac(digest.bytes(), mac));
    add(flight.finished, MakeFinished(mac));
    return flight;
  }
};

// A mesh in which clients renew.
class ReauthTest : public ResumptionTest {
 protected:
  static constexpr std::string_view kClientId = "spiffe://example.org/client";

  // A leaf that is good from now on for `ttl`.
  testing::Minted Leaf(std::string_view id, absl::Duration ttl) const {
    testing::CertificateSpec spec = testing::LeafSpec(id);
    spec.LivesFrom(clock_.Now(), ttl);
    return ca_.Mint(spec);
  }
  std::unique_ptr<Impersonation> Impersonate(const testing::Minted& identity,
                                             const char* suite = "TLS_AES_128_GCM_SHA256") {
    std::unique_ptr<Impersonation> made(new Impersonation{Server()});
    Impersonation& both = *made;
    PlainPeer client = PlainPeer::Client(&identity, [&](SSL_CTX* ctx) {
      SSL_CTX_set_ciphersuites(ctx, suite);
      SSL_CTX_set_post_handshake_auth(ctx, 1);
      both.knows->Attach(ctx);
    });
    client.Talk(both.server);
    EXPECT_EQ(both.server.engine->Handshake().outcome, EngineOutcome::kDone)
        << both.server.engine->failure().detail;
    const uint32_t id = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(client.ssl()));
    EXPECT_TRUE(both.speaks.Start(id, base::AsBytes(both.knows->secrets["CLIENT_TRAFFIC_SECRET_0"]),
                                  RecordCipher::Use::kSeal));
    EXPECT_TRUE(both.hears.Start(id, base::AsBytes(both.knows->secrets["SERVER_TRAFFIC_SECRET_0"]),
                                 RecordCipher::Use::kOpen));
    both.server.Write("hello");  // its ticket goes in front
    EXPECT_NE(both.Hear(ContentType::kHandshake), "");
    EXPECT_EQ(both.Hear(ContentType::kApplicationData), "hello");
    return made;
  }
  static std::string LeafOf(const TlsEngine& engine) {
    return base::ToHex(engine.peer()->leaf_sha256);
  }
  static std::string LeafOf(const testing::Minted& identity) {
    return base::ToHex(x509::Sha256OfCertificate(identity.leaf()));
  }
};

}  // namespace postern::tls
