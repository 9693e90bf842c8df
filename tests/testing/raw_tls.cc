// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/raw_tls.h"

#include <openssl/err.h>

#include <cerrno>
#include <utility>

namespace postern::testing {
namespace {

// OpenSSL gives an interrupted call back to its caller, who asks again.
template <typename Call>
int Uninterrupted(Call call) {
  int result = 0;
  do {
    errno = 0;
    result = call();
  } while (result <= 0 && errno == EINTR);
  return result;
}

}  // namespace

RawTls::RawTls(Socket socket, const Options& options)
    : socket_(std::move(socket)), ctx_(SSL_CTX_new(TLS_method())) {
  SSL_CTX* const ctx = ctx_.get();
  SSL_CTX_set_max_proto_version(ctx, options.max_version);
  SSL_CTX_set_security_level(ctx, 0);
  // Asks for a certificate and takes any.
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
  if (options.certificate != nullptr) {
    SSL_CTX_use_certificate(ctx, options.certificate->leaf());
    SSL_CTX_use_PrivateKey(ctx, options.certificate->key.get());
    for (size_t i = 1; i < options.certificate->chain.size(); ++i) {
      SSL_CTX_add1_chain_cert(ctx, options.certificate->chain[i].get());
    }
  }
  ssl_.reset(SSL_new(ctx));
  SSL_set_app_data(ssl_.get(), this);
  SSL_set_info_callback(ssl_.get(), &OnInfo);
  if (!options.alpn.empty()) {
    std::string wire(1, static_cast<char>(options.alpn.size()));
    wire += options.alpn;
    SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                        static_cast<unsigned>(wire.size()));
  }
  SSL_set_fd(ssl_.get(), socket_.fd());
  ok_ = Uninterrupted(
            [&] { return options.server ? SSL_accept(ssl_.get()) : SSL_connect(ssl_.get()); }) == 1;
  ERR_clear_error();
}

RawTls::~RawTls() = default;

void RawTls::OnInfo(const SSL* ssl, int where, int value) {
  if ((where & SSL_CB_ALERT) != 0 && (where & SSL_CB_READ) != 0 && (value >> 8) == SSL3_AL_FATAL) {
    static_cast<RawTls*>(SSL_get_app_data(ssl))->alert_ = value & 0xFF;
  }
}

std::string RawTls::alpn() const {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl_.get(), &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

bool RawTls::Send(std::string_view bytes) {
  const int n = Uninterrupted(
      [&] { return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())); });
  ERR_clear_error();
  return n == static_cast<int>(bytes.size());
}

std::string RawTls::Read(size_t most) {
  std::string bytes(most, '\0');
  const int n = Uninterrupted(
      [&] { return SSL_read(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())); });
  ERR_clear_error();
  bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return bytes;
}

std::string RawTls::ReadExactly(size_t bytes) {
  std::string all;
  while (all.size() < bytes) {
    const std::string some = Read(bytes - all.size());
    if (some.empty()) {
      break;
    }
    all += some;
  }
  return all;
}

bool RawTls::DrainToCleanEnd() {
  while (!Read(1U << 14U).empty()) {
  }
  return (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0 && alert_ < 0;
}

void RawTls::CloseNotify() {
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

std::string ClientHelloBytes(const std::string& sni, const std::string& alpn) {
  const x509::SslCtxPtr ctx(SSL_CTX_new(TLS_client_method()));
  const x509::SslPtr ssl(SSL_new(ctx.get()));
  SSL_set_tlsext_host_name(ssl.get(), sni.c_str());
  std::string wire(1, static_cast<char>(alpn.size()));
  wire += alpn;
  SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                      static_cast<unsigned>(wire.size()));
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);  // which owns both
  SSL_connect(ssl.get());                             // stops where it waits for the server
  ERR_clear_error();
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(out, &bytes);
  return {bytes, static_cast<size_t>(size)};
}

}  // namespace postern::testing
