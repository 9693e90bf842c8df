// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/handshake_messages.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "common/x509/certificate.h"
#include "proxy/tls/handshake_signature.h"
#include "tests/testing/test_ca.h"

namespace postern::tls {
namespace {

constexpr int kBadCertificate = 42;
constexpr int kDecodeError = 50;
constexpr int kMissingExtension = 109;
constexpr int kUnsupportedExtension = 110;

template <typename Message>
int AlertOf(const Parsed<Message>& parsed) {
  EXPECT_EQ(parsed.fault.reason, base::CloseReason::kReauthFailed);
  EXPECT_STRNE(parsed.fault.text, "");
  return parsed.message.has_value() ? -1 : parsed.fault.alert;
}

// A message of `type` around a body.
std::string Message(char type, const std::string& body) {
  return std::string{type, 0, static_cast<char>(body.size() >> 8U),
                     static_cast<char>(body.size())} +
         body;
}

class HandshakeMessagesTest : public ::testing::Test {
 protected:
  testing::TestCa root_{"example.org"};
  testing::TestCa ca_ = root_.Intermediate();
  testing::Minted identity_ = ca_.Mint("spiffe://example.org/a");
};

TEST_F(HandshakeMessagesTest, RequestsAreReadAsTheyWereMade) {
  const std::vector<uint8_t> request = MakeCertificateRequest(base::AsBytes("context"));
  const auto parsed = ParseCertificateRequest(request);
  ASSERT_TRUE(parsed.message.has_value());
  EXPECT_EQ(base::AsText(parsed.message->context), "context");
  EXPECT_EQ(parsed.message->schemes.size(), 2 * AcceptedSchemes().size());
  EXPECT_EQ(base::ToHex(parsed.message->schemes.first(4)), "04030807");
}

TEST_F(HandshakeMessagesTest, CertificatesAreReadAsTheyWereMade) {
  ASSERT_EQ(identity_.chain.size(), 2U);
  const std::vector<uint8_t> message = MakeCertificate(base::AsBytes("c"), identity_.chain);
  const auto parsed = ParseCertificate(message);
  ASSERT_TRUE(parsed.message.has_value());
  EXPECT_EQ(base::AsText(parsed.message->context), "c");
  ASSERT_EQ(parsed.message->chain.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(X509_cmp(parsed.message->chain[i].get(), identity_.chain[i].get()), 0);
  }
  EXPECT_TRUE(ParseCertificate(MakeCertificate({}, {})).message->chain.empty());
  const std::vector<uint8_t> signed_by = MakeCertificateVerify(0x0403, base::AsBytes("sig"));
  const auto verify = ParseCertificateVerify(signed_by);
  ASSERT_TRUE(verify.message.has_value());
  EXPECT_EQ(verify.message->scheme, 0x0403);
  EXPECT_EQ(base::AsText(verify.message->signature), "sig");
}

TEST_F(HandshakeMessagesTest, RefusesBrokenRequests) {
  const std::string schemes("\0\x0D\0\4\0\2\4\3", 8);
  const auto request = [](const std::string& extensions) {
    const std::string size{static_cast<char>(extensions.size() >> 8U),
                           static_cast<char>(extensions.size())};
    return Message(13, std::string(1, '\0') + size + extensions);
  };
  const auto alert = [](const std::string& message) {
    return AlertOf(ParseCertificateRequest(base::AsBytes(message)));
  };
  const std::string good = request(schemes);
  EXPECT_TRUE(ParseCertificateRequest(base::AsBytes(good)).message.has_value());
  const std::string unknown("\xFA\xFA\0\1x", 5);
  EXPECT_TRUE(
      ParseCertificateRequest(base::AsBytes(request(unknown + schemes))).message.has_value());
  EXPECT_EQ(alert(request("")), kMissingExtension);
  EXPECT_EQ(alert(request(unknown)), kMissingExtension);
  EXPECT_EQ(alert(request(schemes + schemes)), kDecodeError);
  EXPECT_EQ(alert(request(std::string("\0\x0D\0\2\0\0", 6))), kDecodeError);
  EXPECT_EQ(alert(request(std::string("\0\x0D\0\3\0\1\4", 7))), kDecodeError);
  EXPECT_EQ(alert(good + "x"), kDecodeError);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(alert(good.substr(0, size)), kDecodeError) << size;
  }
}

TEST_F(HandshakeMessagesTest, RefusesBrokenCertificates) {
  const auto alert = [](const std::string& message) {
    return AlertOf(ParseCertificate(base::AsBytes(message)));
  };
  const std::string good(base::AsText(MakeCertificate(base::AsBytes("c"), identity_.chain)));
  for (size_t size = 0; size < good.size(); size += 7) {
    EXPECT_EQ(alert(good.substr(0, size)), kDecodeError) << size;
  }
  EXPECT_EQ(alert(good + "x"), kDecodeError);
  const std::string der = x509::CertificateToDer(identity_.leaf());
  const auto with = [](const std::string& entry) {
    const std::string size{0, static_cast<char>(entry.size() >> 8U),
                           static_cast<char>(entry.size())};
    return Message(11, std::string(1, '\0') + size + entry);
  };
  const auto sized = [](const std::string& text) {
    return std::string{0, static_cast<char>(text.size() >> 8U), static_cast<char>(text.size())} +
           text;
  };
  const std::string none("\0\0", 2);
  EXPECT_TRUE(ParseCertificate(base::AsBytes(with(sized(der) + none))).message.has_value());
  EXPECT_EQ(alert(with(sized(der) + std::string("\0\4\0\5\0\0", 6))), kUnsupportedExtension);
  EXPECT_EQ(alert(with(sized("no certificate") + none)), kBadCertificate);
  EXPECT_EQ(alert(with(sized("") + none)), kBadCertificate);
  EXPECT_EQ(alert(with(sized(der + "x") + none)), kBadCertificate);
  std::string many;
  for (size_t i = 0; i <= kMaxCertificates; ++i) {
    many += sized(der) + none;
  }
  EXPECT_EQ(alert(with(many)), kBadCertificate);
}

TEST_F(HandshakeMessagesTest, RefusesBrokenSignatureMessages) {
  for (const std::string& body : {std::string(), std::string("\4\3", 2),
                                  std::string("\4\3\0\2x", 5), std::string("\4\3\0\1xx", 6)}) {
    EXPECT_EQ(AlertOf(ParseCertificateVerify(base::AsBytes(Message(15, body)))), kDecodeError);
  }
}

// ---------------------------------------------------------------- signatures

TEST(HandshakeSignatureTest, EachKindOfKeySignsAndIsVerifiedWithItsOwnScheme) {
  using testing::KeyType;
  std::vector<uint8_t> offered;
  for (const uint16_t scheme : AcceptedSchemes()) {
    offered.push_back(static_cast<uint8_t>(scheme >> 8U));
    offered.push_back(static_cast<uint8_t>(scheme));
  }
  const std::string hash(32, 'h');
  for (const auto& [type, scheme] :
       {std::pair(KeyType::kP256, 0x0403), std::pair(KeyType::kEd25519, 0x0807),
        std::pair(KeyType::kP384, 0x0503), std::pair(KeyType::kRsa2048, 0x0804)}) {
    const x509::PkeyPtr key = testing::MakeKey(type);
    const uint16_t chosen = ChooseScheme(key.get(), offered);
    EXPECT_EQ(chosen, scheme);
    auto signature = SignAsClient(key.get(), chosen, base::AsBytes(hash));
    ASSERT_TRUE(signature.has_value());
    EXPECT_TRUE(VerifyClient(key.get(), chosen, base::AsBytes(hash), *signature));
    EXPECT_FALSE(VerifyClient(key.get(), chosen, base::AsBytes(std::string(32, 'x')), *signature));
    EXPECT_FALSE(
        VerifyClient(testing::MakeKey(type).get(), chosen, base::AsBytes(hash), *signature));
    signature->back() ^= 1;
    EXPECT_FALSE(VerifyClient(key.get(), chosen, base::AsBytes(hash), *signature));
    EXPECT_FALSE(VerifyClient(key.get(), chosen, base::AsBytes(hash), {}));
  }
}

TEST(HandshakeSignatureTest, AKeyTakesNoSchemeOfAnotherKindOrCurve) {
  using testing::KeyType;
  const x509::PkeyPtr p256 = testing::MakeKey(KeyType::kP256);
  const x509::PkeyPtr p521 = testing::MakeKey(KeyType::kP521);
  const x509::PkeyPtr rsa = testing::MakeKey(KeyType::kRsa2048);
  const std::string hash(32, 'h');
  EXPECT_FALSE(SchemeFits(p256.get(), 0x0503));
  EXPECT_FALSE(SchemeFits(p256.get(), 0x0804));
  EXPECT_FALSE(SchemeFits(rsa.get(), 0x0401));  // PKCS#1: inside certificates alone
  EXPECT_FALSE(SchemeFits(rsa.get(), 0x0403));
  EXPECT_FALSE(SchemeFits(nullptr, 0x0403));
  EXPECT_FALSE(SignAsClient(p256.get(), 0x0503, base::AsBytes(hash)).has_value());
  const std::vector<uint8_t> offered = {4, 3, 5, 3, 8};  // and half a one
  EXPECT_EQ(ChooseScheme(p521.get(), offered), 0);
  EXPECT_EQ(ChooseScheme(rsa.get(), offered), 0);
  EXPECT_EQ(ChooseScheme(p256.get(), {}), 0);
}

}  // namespace
}  // namespace postern::tls
