// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/lean_session.h"

#include <openssl/asn1.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include <algorithm>

namespace postern::tls {
namespace {

// SSL_SESSION's ASN.1 in OpenSSL is a SEQUENCE, in which the certificate is the explicit [3].
constexpr int kPeerTag = 3;
constexpr size_t kMostHeader = 4;  // of the SEQUENCE: a tag and up to three bytes of length
constexpr size_t kMostLength = 0xFFFF;

void Wipe(std::vector<uint8_t>& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

// One DER element: how long it is with its header, and its header alone. 0: no such thing.
struct Element {
  size_t header = 0;
  size_t total = 0;
  int tag = 0;
  int tag_class = 0;
};

Element ElementAt(const uint8_t* at, size_t left) {
  Element element;
  const uint8_t* content = at;
  long length = 0;
  const int result =
      ASN1_get_object(&content, &length, &element.tag, &element.tag_class, static_cast<long>(left));
  if ((result & 0x80) != 0 || (result & 1) != 0 || length < 0) {  // broken, or of indefinite length
    ERR_clear_error();
    return {};
  }
  element.header = static_cast<size_t>(content - at);
  element.total = element.header + static_cast<size_t>(length);
  return element.total <= left ? element : Element{};
}

void WriteSequenceHeader(std::vector<uint8_t>& out, size_t length) {
  out.push_back(0x30);
  if (length < 0x80) {
    out.push_back(static_cast<uint8_t>(length));
    return;
  }
  if (length > 0xFF) {
    out.push_back(0x82);
    out.push_back(static_cast<uint8_t>(length >> 8U));
  } else {
    out.push_back(0x81);
  }
  out.push_back(static_cast<uint8_t>(length));
}

std::vector<uint8_t> WithoutPeer(const std::vector<uint8_t>& der) {
  const Element whole = ElementAt(der.data(), der.size());
  if (whole.total != der.size() || whole.tag != V_ASN1_SEQUENCE || der.size() > kMostLength) {
    return {};
  }
  for (size_t at = whole.header; at < der.size();) {
    const Element element = ElementAt(der.data() + at, der.size() - at);
    if (element.total == 0) {
      return {};
    }
    if (element.tag_class == V_ASN1_CONTEXT_SPECIFIC && element.tag == kPeerTag) {
      std::vector<uint8_t> lean;
      lean.reserve(der.size() - element.total + kMostHeader);
      WriteSequenceHeader(lean, der.size() - whole.header - element.total);
      const auto begin = der.begin();
      lean.insert(lean.end(), begin + static_cast<std::ptrdiff_t>(whole.header),
                  begin + static_cast<std::ptrdiff_t>(at));
      lean.insert(lean.end(), begin + static_cast<std::ptrdiff_t>(at + element.total), der.end());
      return lean;
    }
    at += element.total;
  }
  return der;  // there was none
}

}  // namespace

std::vector<uint8_t> LeanSession(const SSL_SESSION* session) {
  const int length = i2d_SSL_SESSION(session, nullptr);
  if (length <= 0) {
    ERR_clear_error();
    return {};
  }
  std::vector<uint8_t> der(static_cast<size_t>(length));
  uint8_t* out = der.data();
  if (i2d_SSL_SESSION(session, &out) != length) {
    Wipe(der);
    ERR_clear_error();
    return {};
  }
  std::vector<uint8_t> lean = WithoutPeer(der);
  Wipe(der);
  return lean;
}

bool DropCertificate(SSL_SESSION* session) {
  std::vector<uint8_t> lean = LeanSession(session);
  if (lean.empty()) {
    return true;
  }
  const uint8_t* at = lean.data();
  SSL_SESSION* same = session;
  // Decoding into an existing session sets each field that the DER has and frees the certificate
  // that it lacks.
  const bool done = d2i_SSL_SESSION(&same, &at, static_cast<long>(lean.size())) == session;
  Wipe(lean);
  ERR_clear_error();
  return done;
}

}  // namespace postern::tls
