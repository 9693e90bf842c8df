// SPDX-License-Identifier: Apache-2.0
// What a client may not say when it is asked to prove itself again, said with the right keys; and
// what a server may not ask.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/proxy/tls/reauth_fixture.h"

namespace postern::tls {
namespace {

using base::CloseReason;
using testing::Minted;

constexpr int kUnexpectedMessage = 10;
constexpr int kBadCertificate = 42;
constexpr int kIllegalParameter = 47;
constexpr int kDecodeError = 50;
constexpr int kDecryptError = 51;
constexpr int kUnsupportedExtension = 110;
constexpr int kCertificateRequired = 116;

const std::string kUpdate("\x18\0\0\1\0", 5);

class ReauthRefusalTest : public ReauthTest {
 protected:
  // The server has refused: the reason, the alert, and that nothing can follow.
  static void ExpectRefused(Impersonation& both, int alert,
                            CloseReason reason = CloseReason::kReauthFailed) {
    EXPECT_EQ(both.server.last, EngineOutcome::kFailed);
    const base::Failure& failure = both.server.engine->failure();
    EXPECT_EQ(base::Token(failure.reason), base::Token(reason)) << failure.detail;
    EXPECT_EQ(failure.alert_sent, alert) << failure.detail;
    EXPECT_EQ(failure.peer_id, kClientId);
    EXPECT_FALSE(failure.detail.message().empty());
    const std::string heard = both.Hear(ContentType::kAlert);
    EXPECT_EQ(heard.empty() ? -1 : heard[1], alert);
    EXPECT_EQ(both.server.engine->Write(base::AsBytes("x")).outcome, EngineOutcome::kFailed);
  }
  // An asked client; `spoil` changes the answer, or says something by itself.
  using Spoil = std::function<void(Impersonation&, Flight&)>;
  void ExpectAnswerRefused(const char* what, int alert, const Spoil& spoil,
                           CloseReason reason = CloseReason::kReauthFailed) {
    SCOPED_TRACE(what);
    const auto both = Impersonate(old_);
    Flight flight = both->Answer(both->Asked(), new_);
    spoil(*both, flight);
    if (both->server.last != EngineOutcome::kFailed) {
      both->SayHandshake(flight.Whole());
    }
    ExpectRefused(*both, alert, reason);
  }

  const Minted old_ = Leaf(kClientId, absl::Minutes(10));
  const Minted new_ = Leaf(kClientId, absl::Minutes(20));
};

TEST_F(ReauthRefusalTest, AGoodAnswerIsTakenHoweverItIsCutUnderEachHash) {
  for (const char* suite : {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"}) {
    for (const size_t piece : {1000000, 3000, 200, 40}) {
      const auto both = Impersonate(old_, suite);
      const std::string answer = both->Answer(both->Asked(), new_).Whole();
      both->Say(ContentType::kApplicationData, "before ");
      for (size_t at = 0; at < answer.size(); at += piece) {
        both->SayHandshake(answer.substr(at, piece));
      }
      both->Say(ContentType::kApplicationData, "after");
      ASSERT_EQ(both->server.last, EngineOutcome::kWantRead)
          << both->server.engine->failure().detail;
      EXPECT_EQ(LeafOf(*both->server.engine), LeafOf(new_));
      EXPECT_EQ(both->server.received, "before after");
    }
  }
}

TEST_F(ReauthRefusalTest, RefusesAnAnswerThatIsNotOurClients) {
  const auto flip = [](std::string& message) { message.back() ^= 1; };
  ExpectAnswerRefused("a wrong signature", kDecryptError,
                      [&](Impersonation&, Flight& f) { flip(f.verify); });
  ExpectAnswerRefused("a wrong Finished", kDecryptError,
                      [&](Impersonation&, Flight& f) { flip(f.finished); });
  ExpectAnswerRefused("a Finished that is too short", kDecryptError, [](Impersonation&, Flight& f) {
    f.finished = std::string("\x14\0\0\4abcd", 8);
  });
  ExpectAnswerRefused("a Finished that is too long", kIllegalParameter,
                      [](Impersonation&, Flight& f) {
                        f.finished = std::string("\x14\0\0\x21", 4) + std::string(33, 'x');
                      });
  ExpectAnswerRefused("another's key", kDecryptError, [&](Impersonation& both, Flight& f) {
    const Minted other = Leaf(kClientId, absl::Minutes(20));
    f.verify = both.AnswerTo({}, other, RunningHash::Restore(both.knows->transcript.Save())).verify;
  });
}

TEST_F(ReauthRefusalTest, RefusesAnAnswerToAnotherRequest) {
  ExpectAnswerRefused("another context", kIllegalParameter, [&](Impersonation& both, Flight& f) {
    f = both.AnswerTo(base::AsBytes(std::string(32, 'c')), new_,
                      RunningHash::Restore(both.knows->transcript.Save()));
  });
  ExpectAnswerRefused("no context", kIllegalParameter, [&](Impersonation& both, Flight& f) {
    f = both.AnswerTo({}, new_, RunningHash::Restore(both.knows->transcript.Save()));
  });
  // What answered one request answers no second one.
  const auto both = Impersonate(old_);
  const Flight first = both->Answer(both->Asked(), new_);
  both->SayHandshake(first.Whole());
  ASSERT_EQ(both->server.last, EngineOutcome::kWantRead);
  both->Asked();
  both->SayHandshake(first.Whole());
  ExpectRefused(*both, kIllegalParameter);
}

TEST_F(ReauthRefusalTest, RefusesCertificatesThatAHandshakeWouldRefuse) {
  const auto with = [&](const Minted& identity) {
    return [&](Impersonation& both, Flight& f) {
      f = both.AnswerTo(ParseCertificate(base::AsBytes(f.certificate)).message->context, identity,
                        RunningHash::Restore(both.knows->transcript.Save()));
    };
  };
  ExpectAnswerRefused("another identity", kBadCertificate,
                      with(Leaf("spiffe://example.org/other", absl::Minutes(20))));
  testing::CertificateSpec spec = testing::LeafSpec(kClientId);
  spec.LivesFrom(clock_.Now(), absl::Minutes(20));
  spec.uris.emplace_back("spiffe://example.org/second");
  ExpectAnswerRefused("two identities", kBadCertificate, with(ca_.Mint(spec)));
  spec = testing::LeafSpec(kClientId);
  spec.LivesFrom(clock_.Now(), absl::Minutes(20));
  spec.extended_key_usage = "serverAuth";
  ExpectAnswerRefused("no client's", 43, with(ca_.Mint(spec)));
  spec = testing::LeafSpec(kClientId);
  spec.not_before = clock_.Now() + absl::Minutes(10);
  spec.not_after = clock_.Now() + absl::Minutes(20);
  ExpectAnswerRefused("not valid yet", kBadCertificate, with(ca_.Mint(spec)));
  ExpectAnswerRefused("none", kCertificateRequired, [](Impersonation&, Flight& f) {
    const auto context = ParseCertificate(base::AsBytes(f.certificate)).message->context;
    f.certificate = std::string(base::AsText(MakeCertificate(context, {})));
  });
}

TEST_F(ReauthRefusalTest, RefusesMalformedMessages) {
  ExpectAnswerRefused("a Certificate with bytes behind it", kDecodeError,
                      [](Impersonation&, Flight& f) {
                        f.certificate.push_back('x');
                        const size_t body = f.certificate.size() - kHandshakeHeaderBytes;
                        f.certificate[2] = static_cast<char>(body >> 8U);
                        f.certificate[3] = static_cast<char>(body);
                      });
  ExpectAnswerRefused(
      "a CertificateVerify without a signature", kDecodeError,
      [](Impersonation&, Flight& f) { f.verify = std::string("\x0F\0\0\2\4\3", 6); });
  for (const char low : {'\3', '\4'}) {  // P-384's, and RSA's PKCS#1
    ExpectAnswerRefused("a scheme that is not for the key", kIllegalParameter,
                        [low](Impersonation&, Flight& f) {
                          f.verify[4] = low == '\3' ? 5 : 4;
                          f.verify[5] = low == '\3' ? 3 : 1;
                        });
  }
  ExpectAnswerRefused("an extension that nobody asked for", kUnsupportedExtension,
                      [&](Impersonation&, Flight& f) {
                        std::string& m = f.certificate;
                        const size_t size = m.size();
                        m.resize(size - 2);
                        m += std::string("\0\4\0\x12\0\0", 6);
                        const size_t body = m.size() - kHandshakeHeaderBytes;
                        const size_t list = body - 1 - 32 - 3;
                        m[2] = static_cast<char>(body >> 8U);
                        m[3] = static_cast<char>(body);
                        m[kHandshakeHeaderBytes + 1 + 32 + 1] = static_cast<char>(list >> 8U);
                        m[kHandshakeHeaderBytes + 1 + 32 + 2] = static_cast<char>(list);
                      });
  ExpectAnswerRefused(
      "a Certificate of more than 64 KiB", kIllegalParameter,
      [](Impersonation&, Flight& f) { f.certificate = std::string("\x0B\1\0\1", 4); });
}

TEST_F(ReauthRefusalTest, RefusesWhatComesBetweenTheMessagesOfAnAnswer) {
  for (const bool behind_verify : {false, true}) {
    const auto begin = [behind_verify](Impersonation& both, const Flight& f) {
      both.SayHandshake(behind_verify ? f.certificate + f.verify : f.certificate);
    };
    ExpectAnswerRefused("data", kUnexpectedMessage, [&](Impersonation& both, Flight& f) {
      begin(both, f);
      both.Say(ContentType::kApplicationData, "data");
    });
    ExpectAnswerRefused("no data", kUnexpectedMessage, [&](Impersonation& both, Flight& f) {
      begin(both, f);
      both.Say(ContentType::kApplicationData, "");
    });
    ExpectAnswerRefused("a KeyUpdate", kUnexpectedMessage, [&](Impersonation& both, Flight& f) {
      begin(both, f);
      both.SayHandshake(kUpdate);
    });
    ExpectAnswerRefused("the Certificate once more", kUnexpectedMessage,
                        [&](Impersonation& both, Flight& f) {
                          begin(both, f);
                          both.SayHandshake(f.certificate);
                        });
  }
  ExpectAnswerRefused("no CertificateVerify", kUnexpectedMessage,
                      [](Impersonation&, Flight& f) { f.verify.clear(); });
  ExpectAnswerRefused(
      "no Certificate", kUnexpectedMessage,
      [](Impersonation&, Flight& f) { f.certificate.clear(); }, CloseReason::kHandshakeFailed);
  // In the middle of one message it is the rule of records that is broken.
  ExpectAnswerRefused(
      "data inside the Certificate", kUnexpectedMessage,
      [](Impersonation& both, Flight& f) {
        both.SayHandshake(f.certificate.substr(0, 100));
        both.Say(ContentType::kApplicationData, "data");
      },
      CloseReason::kHandshakeFailed);
}

// Between a request and its answer the client is free, and its keys may change.
TEST_F(ReauthRefusalTest, AKeyUpdateInFrontOfTheAnswerChangesTheKeyOfItsFinished) {
  for (const bool stale : {false, true}) {
    const auto both = Impersonate(old_);
    const std::string request = both->Asked();
    const Flight early = both->Answer(request, new_);
    both->SayHandshake(kUpdate);
    ASSERT_TRUE(both->speaks.Advance());
    const Flight late = both->Answer(request, new_);
    both->SayHandshake(stale ? early.Whole() : late.Whole());
    if (stale) {
      ExpectRefused(*both, kDecryptError);
    } else {
      EXPECT_EQ(LeafOf(*both->server.engine), LeafOf(new_))
          << both->server.engine->failure().detail;
    }
  }
}

TEST_F(ReauthRefusalTest, RefusesAnswersThatNobodyAskedFor) {
  for (const bool answered : {false, true}) {
    const auto both = Impersonate(old_);
    Flight flight;
    if (answered) {  // once is asked, and twice is answered
      flight = both->Answer(both->Asked(), new_);
      both->SayHandshake(flight.Whole());
      ASSERT_EQ(both->server.last, EngineOutcome::kWantRead);
    } else {
      flight = both->AnswerTo({}, new_, RunningHash::Restore(both->knows->transcript.Save()));
    }
    both->SayHandshake(flight.Whole());
    ExpectRefused(*both, kUnexpectedMessage, CloseReason::kHandshakeFailed);
  }
}

TEST_F(ReauthRefusalTest, AnAlertInPlaceOfTheRestIsUnderstood) {
  const auto both = Impersonate(old_);
  const Flight flight = both->Answer(both->Asked(), new_);
  both->SayHandshake(flight.certificate);
  both->Say(ContentType::kAlert, std::string("\2\x50", 2));
  EXPECT_EQ(both->server.last, EngineOutcome::kFailed);
  EXPECT_EQ(both->server.engine->failure().reason, CloseReason::kRejectedByPeer);
  EXPECT_EQ(both->server.engine->failure().alert_received, 80);
}

// ---------------------------------------------------------------- what a server may not ask

class ReauthRequestTest : public ReauthTest {
 protected:
  // A client's engine with a server that says what it likes.
  struct Both {
    End client;
    ClientsKnowledge knows{};
    RecordCipher speaks{};
  };
  std::unique_ptr<Both> Begin(const TlsOptions& options = {}) {
    auto context = ClientContext(client_svid_, options);
    std::unique_ptr<Both> both(
        new Both{{TlsEngine::CreateClient(context, scratch_, Only(kServerId)).value(), &scratch_}});
    PlainPeer server = PlainPeer::Server(&server_identity_, [&](SSL_CTX* ctx) {
      SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256");
      both->knows.Attach(ctx);
    });
    both->client.Handshake();
    server.Talk(both->client);
    EXPECT_TRUE(both->speaks.Start(0x1301,
                                   base::AsBytes(both->knows.secrets["SERVER_TRAFFIC_SECRET_0"]),
                                   RecordCipher::Use::kSeal));
    // OpenSSL has sent its tickets under this secret.
    both->speaks.Skip(2);
    return both;
  }
  static void Say(Both& both, std::string_view messages) {
    RecordBuffer record;
    ASSERT_TRUE(both.speaks.Seal(ContentType::kHandshake, base::AsBytes(messages), record));
    both.client.Turn(base::AsText(record));
  }
  static std::string Request() {
    return std::string(base::AsText(MakeCertificateRequest(base::AsBytes("context"))));
  }

  const Minted server_identity_ = ca_.Mint(kServerId);
};

TEST_F(ReauthRequestTest, TwoRequestsAreTwoAnswers) {
  const auto both = Begin();
  Say(*both, Request() + Request());
  EXPECT_EQ(both->client.last, EngineOutcome::kWantRead) << both->client.engine->failure().detail;
  EXPECT_EQ(scratch_.reauths().answered, 2U);
}

TEST_F(ReauthRequestTest, RefusesARequestThatIsBrokenOrWasNotOffered) {
  auto both = Begin();
  Say(*both, std::string("\x0D\0\0\3\0\0\0", 7));
  EXPECT_EQ(both->client.engine->failure().reason, CloseReason::kReauthFailed);
  EXPECT_EQ(both->client.engine->failure().alert_sent, 109);  // missing_extension
  both = Begin();
  Say(*both, std::string("\x0D\0\0\1\0", 5));
  EXPECT_EQ(both->client.engine->failure().alert_sent, kDecodeError);
  TlsOptions options;
  options.post_handshake_auth = false;
  both = Begin(options);
  Say(*both, Request());
  EXPECT_EQ(both->client.engine->failure().reason, CloseReason::kHandshakeFailed);
  EXPECT_EQ(both->client.engine->failure().alert_sent, kUnexpectedMessage);
  EXPECT_EQ(scratch_.reauths().answered, 0U);
}

}  // namespace
}  // namespace postern::tls
