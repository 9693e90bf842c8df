// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/record_layer.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "proxy/tls/record_input.h"
#include "tests/fakes/fake_clock.h"

namespace postern::tls {
namespace {

using Kind = RecordLayer::Kind;
using Role = RecordLayer::Role;
using Step = RecordLayer::Step;

constexpr uint32_t kSuite = 0x1301;
constexpr int kUnexpectedMessage = 10;
constexpr int kBadRecordMac = 20;
constexpr int kRecordOverflow = 22;
constexpr int kIllegalParameter = 47;
constexpr int kDecodeError = 50;

const std::string kPeerSecret(32, 'p');
const std::string kOwnSecret(32, 'o');
const std::string kUpdate("\x18\0\0\1\0", 5);
const std::string kUpdateRequested("\x18\0\0\1\1", 5);

// RFC 8448 section 3: the client's application traffic secret, and the key and IV that follow from
// it.
constexpr std::string_view kRfcSecret =
    "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
constexpr std::string_view kRfcKey = "17422dda596ed5d9acd890e3c63f5051";
constexpr std::string_view kRfcIv = "5b78923dee08579033e523d9";

std::string Bytes(std::string_view hex) {
  return base::FromHex(hex).value();
}

// The first record under that key, with whatever inside: RecordCipher would not seal so much.
std::vector<uint8_t> SealWithRfcKey(std::string_view inner) {
  const std::string key = Bytes(kRfcKey);
  const std::string iv = Bytes(kRfcIv);
  const size_t length = inner.size() + kRecordTagBytes;
  std::vector<uint8_t> record = {23, 3, 3, static_cast<uint8_t>(length >> 8U),
                                 static_cast<uint8_t>(length)};
  record.resize(kRecordHeaderBytes + length);
  const x509::OpensslPtr<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free> ctx(EVP_CIPHER_CTX_new());
  int size = 0;
  EXPECT_EQ(EVP_EncryptInit_ex(ctx.get(), EVP_aes_128_gcm(), nullptr, base::AsBytes(key).data(),
                               base::AsBytes(iv).data()),
            1);
  EXPECT_EQ(EVP_EncryptUpdate(ctx.get(), nullptr, &size, record.data(), kRecordHeaderBytes), 1);
  EXPECT_EQ(EVP_EncryptUpdate(ctx.get(), record.data() + kRecordHeaderBytes, &size,
                              base::AsBytes(inner).data(), static_cast<int>(inner.size())),
            1);
  uint8_t* tag = record.data() + kRecordHeaderBytes + inner.size();
  EXPECT_EQ(EVP_EncryptFinal_ex(ctx.get(), tag, &size), 1);
  EXPECT_EQ(EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, kRecordTagBytes, tag), 1);
  return record;
}

std::string Ticket(size_t size) {
  std::string message("\4\0", 2);
  message.push_back(static_cast<char>(size >> 8U));
  message.push_back(static_cast<char>(size));
  return message + std::string(size, 't');
}

// A layer, and a peer that holds the same secrets and says what it likes.
class RecordLayerTest : public ::testing::Test {
 protected:
  void SetUp() override { Begin(Role::kClient); }
  void Begin(Role role, uint64_t rekey_after = uint64_t{1} << 23U,
             const std::string& peer_secret = kPeerSecret) {
    layer_ = RecordLayer::Create({role, kSuite, &clock_, rekey_after}, base::AsBytes(peer_secret),
                                 base::AsBytes(kOwnSecret));
    ASSERT_NE(layer_, nullptr);
    ASSERT_TRUE(peer_.Start(kSuite, base::AsBytes(peer_secret), RecordCipher::Use::kSeal));
    ASSERT_TRUE(hears_.Start(kSuite, base::AsBytes(kOwnSecret), RecordCipher::Use::kOpen));
  }
  Step Open(base::ByteSpan record) {
    room_.assign(RecordCipher::RoomFor(record), 0);
    return layer_->Open(record, room_);
  }
  Step Say(ContentType type, std::string_view content) {
    RecordBuffer record;
    EXPECT_TRUE(peer_.Seal(type, base::AsBytes(content), record));
    return Open(record);
  }
  // The text of a record of data; what else it was otherwise.
  std::string Data(std::string_view content) {
    const Step step = Say(ContentType::kApplicationData, content);
    return step.kind == Kind::kData ? std::string(base::AsText(room_).substr(0, step.bytes))
                                    : "not data";
  }
  // The content of the first record of `out`, which is taken away.
  std::string Hear(RecordBuffer& out, ContentType type) {
    const size_t size = kRecordHeaderBytes + out[3] * 256U + out[4];
    std::vector<uint8_t> room(size);
    const auto opened = hears_.Open(base::ByteSpan(out).first(size), room);
    out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size));
    if (!opened.has_value() || opened->type != type) {
      return "not this";
    }
    return std::string(base::AsText(room).substr(0, opened->bytes));
  }
  void ExpectFault(const Step& step, int alert) {
    EXPECT_EQ(step.kind, Kind::kFault);
    EXPECT_EQ(step.fault.alert, alert) << step.fault.text;
    EXPECT_STRNE(step.fault.text, "");
  }

  fakes::FakeClock clock_;
  std::unique_ptr<RecordLayer> layer_;
  RecordCipher peer_;   // seals
  RecordCipher hears_;  // opens what the layer seals
  std::vector<uint8_t> room_;
};

TEST_F(RecordLayerTest, CarriesDataBothWays) {
  EXPECT_EQ(Data("hello"), "hello");
  EXPECT_EQ(Data(std::string(kMaxRecordPlaintext, 'x')).size(), kMaxRecordPlaintext);
  RecordBuffer out;
  ASSERT_TRUE(layer_->Seal(base::AsBytes("reply"), out));
  EXPECT_EQ(Hear(out, ContentType::kApplicationData), "reply");
}

TEST_F(RecordLayerTest, NeedsSecretsOfItsSuite) {
  EXPECT_EQ(RecordLayer::Create({Role::kClient, 0x1302}, base::AsBytes(kPeerSecret),
                                base::AsBytes(kOwnSecret)),
            nullptr);
  EXPECT_EQ(RecordLayer::Create({Role::kClient, kSuite}, {}, base::AsBytes(kOwnSecret)), nullptr);
  EXPECT_EQ(RecordLayer::Create({Role::kClient, kSuite}, base::AsBytes(kPeerSecret), {}), nullptr);
}

TEST_F(RecordLayerTest, TellsTheEndAndTheAlertsOfThePeer) {
  EXPECT_EQ(Say(ContentType::kAlert, std::string_view("\1\x5A", 2)).kind, Kind::kControl);
  EXPECT_EQ(Data("goes on"), "goes on");  // user_canceled is no end
  EXPECT_EQ(Say(ContentType::kAlert, std::string_view("\1\0", 2)).kind, Kind::kEnd);
  for (const int level : {1, 2}) {  // which says nothing
    const char alert[] = {static_cast<char>(level), 49};
    const Step step = Say(ContentType::kAlert, std::string_view(alert, 2));
    EXPECT_EQ(step.kind, Kind::kAlert);
    EXPECT_EQ(step.alert, 49);
  }
}

TEST_F(RecordLayerTest, SealsItsAlerts) {
  RecordBuffer out;
  ASSERT_TRUE(layer_->SealAlert(0, out));
  ASSERT_TRUE(layer_->SealAlert(49, out));
  EXPECT_EQ(Hear(out, ContentType::kAlert), std::string_view("\1\0", 2));
  EXPECT_EQ(Hear(out, ContentType::kAlert), std::string_view("\2\x31", 2));
}

TEST_F(RecordLayerTest, FollowsThePeersKeysAndAnswersOnceInFrontOfItsNextData) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Say(ContentType::kHandshake, kUpdateRequested).kind, Kind::kControl);
    ASSERT_TRUE(peer_.Advance());
    EXPECT_EQ(Data("under new keys"), "under new keys");
  }
  RecordBuffer out;
  ASSERT_TRUE(layer_->Seal(base::AsBytes("a"), out));
  EXPECT_EQ(Hear(out, ContentType::kHandshake), kUpdate);
  ASSERT_TRUE(hears_.Advance());
  EXPECT_EQ(Hear(out, ContentType::kApplicationData), "a");
  EXPECT_EQ(Say(ContentType::kHandshake, kUpdate).kind, Kind::kControl);  // asks for nothing
  ASSERT_TRUE(peer_.Advance());
  ASSERT_TRUE(layer_->Seal(base::AsBytes("b"), out));
  EXPECT_EQ(Hear(out, ContentType::kApplicationData), "b");
}

TEST_F(RecordLayerTest, RenewsItsOwnKeysBeforeTheyHaveProtectedTooMuch) {
  Begin(Role::kServer, 10);
  RecordBuffer out;
  int updates = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(layer_->Seal(base::AsBytes("x"), out));
    if (out.size() > 23) {
      EXPECT_EQ(hears_.sequence(), 9U);  // the update is the tenth
      EXPECT_EQ(Hear(out, ContentType::kHandshake), kUpdate);
      ASSERT_TRUE(hears_.Advance());
      ++updates;
    }
    ASSERT_EQ(Hear(out, ContentType::kApplicationData), "x");
  }
  EXPECT_EQ(updates, 11);
}

TEST_F(RecordLayerTest, GoesOnWhereSomebodyElseHasWritten) {
  RecordBuffer theirs;
  RecordCipher other;
  ASSERT_TRUE(other.Start(kSuite, base::AsBytes(kOwnSecret), RecordCipher::Use::kSeal));
  ASSERT_TRUE(other.Seal(ContentType::kHandshake, base::AsBytes("ticket"), theirs));
  layer_->CountWritten();
  ASSERT_TRUE(layer_->Seal(base::AsBytes("behind it"), theirs));
  EXPECT_EQ(Hear(theirs, ContentType::kHandshake), "ticket");
  EXPECT_EQ(Hear(theirs, ContentType::kApplicationData), "behind it");
}

TEST_F(RecordLayerTest, TellsRecordsOfTicketsFromThoseThatHoldMore) {
  EXPECT_EQ(Say(ContentType::kHandshake, Ticket(40)).kind, Kind::kTickets);
  EXPECT_EQ(Say(ContentType::kHandshake, Ticket(40) + Ticket(0)).kind, Kind::kTickets);
  EXPECT_EQ(Say(ContentType::kHandshake, Ticket(40) + Ticket(9).substr(0, 7)).kind, Kind::kControl);
  EXPECT_EQ(Say(ContentType::kHandshake, Ticket(9).substr(7)).kind, Kind::kControl);
  EXPECT_EQ(Say(ContentType::kHandshake, Ticket(40) + kUpdate).kind, Kind::kControl);
  ASSERT_TRUE(peer_.Advance());
  EXPECT_EQ(Data("still in step"), "still in step");
}

TEST_F(RecordLayerTest, PutsMessagesTogetherFromRecordsOfAnySize) {
  const std::string ticket = Ticket(16'000);
  for (size_t at = 0; at < ticket.size(); at += 1000) {
    EXPECT_EQ(Say(ContentType::kHandshake, ticket.substr(at, 1000)).kind, Kind::kControl);
  }
  for (const char byte : kUpdate) {
    EXPECT_EQ(Say(ContentType::kHandshake, std::string_view(&byte, 1)).kind, Kind::kControl);
  }
  ASSERT_TRUE(peer_.Advance());
  EXPECT_EQ(Data("x"), "x");
}

TEST_F(RecordLayerTest, RefusesATypeInsideAMessageOfAnother) {
  for (const auto& [type, content] : {std::pair(ContentType::kApplicationData, std::string("data")),
                                      std::pair(ContentType::kApplicationData, std::string()),
                                      std::pair(ContentType::kAlert, std::string("\1\0", 2))}) {
    Begin(Role::kClient);
    EXPECT_EQ(Say(ContentType::kHandshake, Ticket(40).substr(0, 2)).kind, Kind::kControl);
    ExpectFault(Say(type, content), kUnexpectedMessage);
  }
}

TEST_F(RecordLayerTest, RefusesMessagesThatHaveNoPlace) {
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\x0D\0\0\0", 4)), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\1", 1)), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kHandshake, ""), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\4\0\x40\0", 4)), kIllegalParameter);
  Begin(Role::kServer);
  ExpectFault(Say(ContentType::kHandshake, Ticket(40)), kUnexpectedMessage);
}

TEST_F(RecordLayerTest, RefusesBrokenKeyUpdates) {
  ExpectFault(Say(ContentType::kHandshake, kUpdate + kUpdate), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kHandshake, kUpdate + "\4"), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\x18\0\0\1\2", 5)), kIllegalParameter);
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\x18\0\0\0", 4)), kDecodeError);
  ExpectFault(Say(ContentType::kHandshake, std::string_view("\x18\0\0\2\0\0", 6)), kDecodeError);
}

TEST_F(RecordLayerTest, RefusesBrokenAlerts) {
  for (const std::string_view alert :
       {std::string_view(), std::string_view("\2", 1), std::string_view("\1\0\1\0", 4)}) {
    ExpectFault(Say(ContentType::kAlert, alert), kDecodeError);
  }
}

TEST_F(RecordLayerTest, RefusesUnknownTypesAndPaddingAlone) {
  ExpectFault(Say(ContentType::kChangeCipherSpec, "\1"), kUnexpectedMessage);
  ExpectFault(Say(static_cast<ContentType>(24), "heartbeat"), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kInvalid, std::string(20, '\0')), kUnexpectedMessage);
  ExpectFault(Say(ContentType::kInvalid, ""), kUnexpectedMessage);
}

TEST_F(RecordLayerTest, RefusesRecordsInTheClear) {
  for (const char type : {'\x14', '\x15', '\x16', '\x18', '\0'}) {
    const std::string record{type, 3, 3, 0, 1, 1};
    ExpectFault(Open(base::AsBytes(record)), kUnexpectedMessage);
    ExpectFault(Open(base::AsBytes(record).first(5)), kUnexpectedMessage);
  }
}

TEST_F(RecordLayerTest, RefusesRecordsThatAreTooLong) {
  const std::string header("\x17\3\3\x41\1", 5);
  ExpectFault(Open(base::AsBytes(header)), kRecordOverflow);
  // Within the limit of ciphertext, but with too much inside: padding counts.
  for (const size_t inner :
       {kMaxRecordPlaintext + 1, kMaxRecordPlaintext + 2, kMaxRecordCiphertext - kRecordTagBytes}) {
    Begin(Role::kServer, 10, Bytes(kRfcSecret));
    std::string text(inner, '\0');
    text[0] = 'x';
    text[1] = '\x17';
    const Step step = Open(SealWithRfcKey(text));
    if (inner == kMaxRecordPlaintext + 1) {
      EXPECT_EQ(step.kind, Kind::kData);
    } else {
      ExpectFault(step, kRecordOverflow);
    }
  }
}

TEST_F(RecordLayerTest, RefusesRecordsThatAreNotAuthentic) {
  RecordBuffer record;
  ASSERT_TRUE(peer_.Seal(ContentType::kApplicationData, base::AsBytes("text"), record));
  record.back() ^= 1;
  ExpectFault(Open(record), kBadRecordMac);
  for (const char length : {'\0', '\1', '\x10'}) {
    std::string short_one("\x17\3\3\0", 4);
    short_one.push_back(length);
    short_one.append(static_cast<size_t>(length), 'x');
    ExpectFault(Open(base::AsBytes(short_one)), kBadRecordMac);
  }
}

TEST_F(RecordLayerTest, BoundsEachKindOfRecordWithoutData) {
  for (const auto& [type, content] : {std::pair(ContentType::kApplicationData, std::string()),
                                      std::pair(ContentType::kAlert, std::string("\1\x5A", 2)),
                                      std::pair(ContentType::kHandshake, Ticket(1))}) {
    Begin(Role::kClient);
    Step step{Kind::kControl};
    int taken = 0;
    for (; taken < 1000 && step.kind != Kind::kFault; ++taken) {
      step = Say(type, content);
      EXPECT_EQ(Data("between"), "between");  // data is free
    }
    EXPECT_LT(taken, 100);
    ExpectFault(step, kUnexpectedMessage);
    EXPECT_EQ(step.fault.code, absl::StatusCode::kResourceExhausted);
    Begin(Role::kClient);
    for (int i = 0; i < 300; ++i) {
      EXPECT_NE(Say(type, content).kind, Kind::kFault);
      clock_.Advance(absl::Milliseconds(101));
    }
  }
}

// ---------------------------------------------------------------- RecordInput

TEST(RecordInputTest, GivesWholeRecordsHoweverTheyAreCut) {
  std::string stream;
  std::vector<std::string> records;
  for (const size_t size : {0, 1, 50, 16'640, 3}) {
    std::string record("\x17\3\3", 3);
    record.push_back(static_cast<char>(size >> 8U));
    record.push_back(static_cast<char>(size));
    record.append(size, static_cast<char>('a' + size % 26));
    records.push_back(record);
    stream += record;
  }
  for (const size_t piece : {1, 2, 5, 6, 100, 5000, 16'650, 20'000}) {
    RecordInput input;
    std::vector<std::string> got;
    for (size_t at = 0; at < stream.size(); at += piece) {
      const std::string fed = stream.substr(at, piece);
      input.Feed(base::AsBytes(fed));
      while (input.HasNext()) {
        const base::ByteSpan record = input.Next();
        ASSERT_FALSE(record.empty());
        got.emplace_back(base::AsText(record));
        input.Pop(record.size());
        if (at % 2 == 0) {
          input.Keep();
        }
      }
      EXPECT_TRUE(input.Next().empty());
      input.Keep();
    }
    EXPECT_TRUE(got == records) << piece;
    EXPECT_TRUE(input.empty());
  }
}

TEST(RecordInputTest, GivesAHeaderThatIsNoRecordsAtOnce) {
  for (const std::string& header : {std::string("\x16\3\3\0\x10", 5), std::string("HTTP/", 5),
                                    std::string("\x17\3\3\x41\1", 5)}) {
    RecordInput input;
    input.Feed(base::AsBytes(header).first(4));
    EXPECT_FALSE(input.HasNext());
    EXPECT_TRUE(input.Next().empty());
    input.Keep();
    input.Feed(base::AsBytes(header).subspan(4));
    EXPECT_TRUE(input.HasNext());
    EXPECT_EQ(base::AsText(input.Next()), header);
  }
}

TEST(RecordInputTest, GivesBytesInOrderToTheHandshake) {
  RecordInput input;
  input.Feed(base::AsBytes("abc"));
  input.Feed(base::AsBytes("def"));  // a second one in the same turn
  uint8_t two[2];
  std::string got;
  for (size_t size = input.Take(two); size > 0; size = input.Take(two)) {
    got.append(reinterpret_cast<const char*>(two), size);
    input.Keep();
  }
  EXPECT_EQ(got, "abcdef");
}

}  // namespace
}  // namespace postern::tls
