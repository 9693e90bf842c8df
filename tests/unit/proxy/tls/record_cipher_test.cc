// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/record_cipher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"

namespace postern::tls {
namespace {

using Use = RecordCipher::Use;

constexpr uint32_t kAes128 = 0x1301;
constexpr uint32_t kAes256 = 0x1302;
constexpr uint32_t kChaCha = 0x1303;

// RFC 8448 section 3, "Simple 1-RTT Handshake": the application traffic secrets and what each side
// sends under them.
constexpr std::string_view kClientSecret =
    "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
constexpr std::string_view kServerSecret =
    "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
constexpr std::string_view kClientData =
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e"
    "2b"
    "62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
constexpr std::string_view kClientAlert = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
constexpr std::string_view kServerTicket =
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db28"
    "9a"
    "015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75"
    "e0"
    "9c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a"
    "77"
    "f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c"
    "74"
    "bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f";
constexpr std::string_view kServerData =
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59"
    "a8"
    "fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
constexpr std::string_view kServerAlert = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

std::string Bytes(std::string_view hex) {
  return base::FromHex(hex).value();
}

// 00 01 .. 31, what both sides of the example say.
std::vector<uint8_t> Payload() {
  std::vector<uint8_t> bytes(50);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  return bytes;
}

std::string Secret(uint32_t suite, char fill = 'S') {
  return std::string(suite == kAes256 ? 48 : 32, fill);
}

void Start(RecordCipher& cipher, uint32_t suite, std::string_view secret, Use use) {
  ASSERT_TRUE(cipher.Start(suite, base::AsBytes(secret), use));
}

struct Content {
  ContentType type;
  std::string text;
};

std::optional<Content> Open(RecordCipher& cipher, base::ByteSpan record) {
  std::vector<uint8_t> room(RecordCipher::RoomFor(record));  // not a byte more
  const auto opened = cipher.Open(record, room);
  if (!opened.has_value()) {
    EXPECT_TRUE(std::all_of(room.begin(), room.end(), [](uint8_t byte) { return byte == 0; }));
    return std::nullopt;
  }
  EXPECT_EQ(opened->inner, room.size());
  return Content{opened->type, std::string(base::AsText(room).substr(0, opened->bytes))};
}

TEST(RecordCipherTest, SealsWhatRfc8448Says) {
  RecordCipher client;
  Start(client, kAes128, Bytes(kClientSecret), Use::kSeal);
  RecordBuffer out;
  ASSERT_TRUE(client.Seal(ContentType::kApplicationData, Payload(), out));
  EXPECT_EQ(base::ToHex(out), kClientData);
  out.clear();
  ASSERT_TRUE(client.Seal(ContentType::kAlert, base::AsBytes(std::string_view("\1\0", 2)), out));
  EXPECT_EQ(base::ToHex(out), kClientAlert);
  EXPECT_EQ(client.sequence(), 2U);
}

TEST(RecordCipherTest, OpensWhatRfc8448Says) {
  RecordCipher server;
  Start(server, kAes128, Bytes(kServerSecret), Use::kOpen);
  const auto ticket = Open(server, base::AsBytes(Bytes(kServerTicket)));
  ASSERT_TRUE(ticket.has_value());
  EXPECT_EQ(ticket->type, ContentType::kHandshake);
  EXPECT_EQ(ticket->text.substr(0, 4), std::string("\4\0\0\xC9", 4));
  const auto data = Open(server, base::AsBytes(Bytes(kServerData)));
  ASSERT_TRUE(data.has_value());
  EXPECT_EQ(data->type, ContentType::kApplicationData);
  EXPECT_EQ(data->text, base::AsText(Payload()));
  const auto alert = Open(server, base::AsBytes(Bytes(kServerAlert)));
  ASSERT_TRUE(alert.has_value());
  EXPECT_EQ(alert->type, ContentType::kAlert);
  EXPECT_EQ(alert->text, std::string_view("\1\0", 2));
}

TEST(RecordCipherTest, ANumberThatIsSkippedIsNotUsed) {
  RecordCipher server;
  Start(server, kAes128, Bytes(kServerSecret), Use::kSeal);
  server.Skip(1);  // the ticket
  RecordBuffer out;
  ASSERT_TRUE(server.Seal(ContentType::kApplicationData, Payload(), out));
  EXPECT_EQ(base::ToHex(out), kServerData);
}

TEST(RecordCipherTest, CarriesEachSizeUnderEachSuiteAndOverGenerationsOfKeys) {
  for (const uint32_t suite : {kAes128, kAes256, kChaCha}) {
    RecordCipher seals;
    RecordCipher opens;
    Start(seals, suite, Secret(suite), Use::kSeal);
    Start(opens, suite, Secret(suite), Use::kOpen);
    for (const size_t size :
         {0, 1, 15, 16, 17, 95, 96, 97, 288, 1000, 2047, 2048, 2049, 16'383, 16'384}) {
      const std::string text(size, static_cast<char>('a' + size % 26));
      RecordBuffer out;
      ASSERT_TRUE(seals.Seal(ContentType::kApplicationData, base::AsBytes(text), out));
      EXPECT_EQ(out.size(), size + 22);
      const auto content = Open(opens, out);
      ASSERT_TRUE(content.has_value()) << suite << " " << size;
      EXPECT_EQ(content->type, ContentType::kApplicationData);
      EXPECT_TRUE(content->text == text);
      EXPECT_FALSE(Open(opens, out).has_value());  // a second time
      if (size % 2 == 0) {
        ASSERT_TRUE(seals.Advance());
        ASSERT_TRUE(opens.Advance());
        EXPECT_EQ(seals.sequence(), 0U);
      }
    }
    RecordBuffer out;
    ASSERT_TRUE(seals.Seal(ContentType::kAlert, Payload(), out));
    ASSERT_TRUE(seals.Advance());  // the other side does not follow
    ASSERT_TRUE(Open(opens, out).has_value());
    out.clear();
    ASSERT_TRUE(seals.Seal(ContentType::kAlert, Payload(), out));
    EXPECT_FALSE(Open(opens, out).has_value());
  }
}

TEST(RecordCipherTest, AppendsBehindWhatIsThere) {
  RecordCipher seals;
  RecordCipher opens;
  Start(seals, kChaCha, Secret(kChaCha), Use::kSeal);
  Start(opens, kChaCha, Secret(kChaCha), Use::kOpen);
  RecordBuffer out;
  ASSERT_TRUE(seals.Seal(ContentType::kApplicationData, base::AsBytes("one"), out));
  const size_t first = out.size();
  ASSERT_TRUE(seals.Seal(ContentType::kHandshake, base::AsBytes("two"), out));
  EXPECT_EQ(Open(opens, base::ByteSpan(out).first(first))->text, "one");
  EXPECT_EQ(Open(opens, base::ByteSpan(out).subspan(first))->text, "two");
}

TEST(RecordCipherTest, TakesPaddingOffAndTellsARecordOfPaddingAlone) {
  RecordCipher seals;
  RecordCipher opens;
  Start(seals, kAes256, Secret(kAes256), Use::kSeal);
  Start(opens, kAes256, Secret(kAes256), Use::kOpen);
  // The content type of a padded record is the last byte that is not zero.
  RecordBuffer out;
  ASSERT_TRUE(
      seals.Seal(ContentType::kInvalid, base::AsBytes(std::string("text\0\x17\0\0\0", 9)), out));
  const auto padded = Open(opens, out);
  ASSERT_TRUE(padded.has_value());
  EXPECT_EQ(padded->type, ContentType::kApplicationData);
  EXPECT_EQ(padded->text, std::string_view("text\0", 5));
  out.clear();
  ASSERT_TRUE(seals.Seal(ContentType::kInvalid, base::AsBytes(std::string(300, '\0')), out));
  const auto nothing = Open(opens, out);
  ASSERT_TRUE(nothing.has_value());
  EXPECT_EQ(nothing->type, ContentType::kInvalid);
}

TEST(RecordCipherTest, OpensNothingThatWasChangedAnywhere) {
  for (const uint32_t suite : {kAes128, kAes256, kChaCha}) {
    RecordCipher seals;
    Start(seals, suite, Secret(suite), Use::kSeal);
    RecordBuffer out;
    ASSERT_TRUE(seals.Seal(ContentType::kApplicationData, Payload(), out));
    RecordCipher opens;
    Start(opens, suite, Secret(suite), Use::kOpen);
    for (size_t at = 0; at < out.size(); ++at) {
      RecordBuffer changed = out;
      changed[at] ^= 0x40;
      EXPECT_FALSE(Open(opens, changed).has_value()) << suite << " " << at;
    }
    for (size_t size = 0; size < out.size(); ++size) {
      EXPECT_FALSE(Open(opens, base::ByteSpan(out).first(size)).has_value()) << size;
    }
    EXPECT_EQ(opens.sequence(), 0U);
    EXPECT_TRUE(Open(opens, out).has_value());
  }
}

TEST(RecordCipherTest, RefusesWhatItCanNotDo) {
  RecordCipher cipher;
  RecordBuffer out;
  EXPECT_FALSE(cipher.Seal(ContentType::kApplicationData, Payload(), out));  // never started
  EXPECT_FALSE(cipher.Advance());
  for (const uint32_t suite : {0x1304U, 0x1305U, 0xC02FU, 0U}) {
    EXPECT_FALSE(cipher.Start(suite, base::AsBytes(Secret(kAes128)), Use::kSeal)) << suite;
  }
  for (const size_t size : {0, 31, 33, 48, 64}) {
    EXPECT_FALSE(cipher.Start(kAes128, base::AsBytes(std::string(size, 'x')), Use::kSeal)) << size;
  }
  Start(cipher, kAes128, Secret(kAes128), Use::kSeal);
  const std::vector<uint8_t> long_one(kMaxRecordPlaintext + 1);
  EXPECT_FALSE(cipher.Seal(ContentType::kApplicationData, long_one, out));
  EXPECT_TRUE(out.empty());
  std::vector<uint8_t> room(100);
  EXPECT_FALSE(cipher.Open(base::AsBytes(Bytes(kClientData)), room).has_value());  // it seals
  RecordCipher opens;
  Start(opens, kAes128, Bytes(kClientSecret), Use::kOpen);
  EXPECT_FALSE(opens.Seal(ContentType::kApplicationData, Payload(), out));
  EXPECT_FALSE(opens.Open(base::AsBytes(Bytes(kClientData)), {room.data(), 50}).has_value());
}

TEST(RecordCipherTest, NeverWrapsItsNumbers) {
  for (const Use use : {Use::kSeal, Use::kOpen}) {
    RecordCipher cipher;
    Start(cipher, kAes128, Bytes(kClientSecret), use);
    cipher.Skip(UINT64_MAX - 1);
    RecordBuffer out;
    if (use == Use::kSeal) {
      EXPECT_TRUE(cipher.Seal(ContentType::kApplicationData, Payload(), out));
      EXPECT_FALSE(cipher.Seal(ContentType::kApplicationData, Payload(), out));
    } else {
      cipher.Skip(1);
      EXPECT_FALSE(Open(cipher, base::AsBytes(Bytes(kClientData))).has_value());
    }
  }
}

}  // namespace
}  // namespace postern::tls
