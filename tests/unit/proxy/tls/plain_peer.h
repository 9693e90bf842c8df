// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/x509/openssl_ptr.h"
#include "tests/testing/test_ca.h"
#include "tests/unit/proxy/tls/engine_pair.h"

namespace postern::tls {

// The other implementation: OpenSSL as any program would use it, over memory, with no verification
// of its own and whatever settings a test gives it.
class PlainPeer {
 public:
  using Setup = std::function<void(SSL_CTX*)>;

  static PlainPeer Client(const testing::Minted* identity, const Setup& setup = {}) {
    return PlainPeer(TLS_client_method(), identity, setup);
  }
  static PlainPeer Server(const testing::Minted* identity, const Setup& setup = {}) {
    PlainPeer peer(TLS_server_method(), identity, setup);
    SSL_set_accept_state(peer.ssl());
    return peer;
  }

  SSL* ssl() const { return ssl_.get(); }
  void Feed(std::string_view bytes) {
    BIO_write(SSL_get_rbio(ssl()), bytes.data(), static_cast<int>(bytes.size()));
  }
  std::string TakeOutput() {
    std::string out(static_cast<size_t>(BIO_ctrl_pending(SSL_get_wbio(ssl()))), '\0');
    BIO_read(SSL_get_wbio(ssl()), out.data(), static_cast<int>(out.size()));
    return out;
  }
  // Drives handshake and reads; what was read is kept.
  void Turn() {
    ERR_clear_error();
    SSL_do_handshake(ssl());
    char buffer[20000];
    size_t got = 0;
    while (SSL_is_init_finished(ssl()) != 0 &&
           SSL_read_ex(ssl(), buffer, sizeof(buffer), &got) == 1) {
      received_.append(buffer, got);
    }
    const unsigned long error = ERR_peek_error();
    if (error != 0) {
      reason_ = ERR_GET_REASON(error);
    }
    ERR_clear_error();
  }
  void Write(std::string_view text) {
    ERR_clear_error();
    SSL_write(ssl(), text.data(), static_cast<int>(text.size()));
    ERR_clear_error();
  }
  const std::string& received() const { return received_; }
  int reason() const { return reason_; }  // of the first error; 0 none

  // Carries bytes between this peer and an engine until both are quiet.
  void Talk(End& engine) {
    Turn();
    for (std::string out = TakeOutput(); !out.empty() || !engine.outbox.empty();
         out = TakeOutput()) {
      for (size_t at = 0; at < out.size(); at += 60'000) {
        engine.Turn(std::string_view(out).substr(at, 60'000));
      }
      Feed(std::exchange(engine.outbox, ""));
      Turn();
    }
  }

 private:
  PlainPeer(const SSL_METHOD* method, const testing::Minted* identity, const Setup& setup)
      : ctx_(SSL_CTX_new(method)) {
    SSL_CTX_set_security_level(ctx_.get(), 0);
    if (identity != nullptr) {
      SSL_CTX_use_certificate(ctx_.get(), identity->leaf());
      SSL_CTX_use_PrivateKey(ctx_.get(), identity->key.get());
      for (size_t i = 1; i < identity->chain.size(); ++i) {
        SSL_CTX_add1_chain_cert(ctx_.get(), identity->chain[i].get());
      }
    }
    SSL_CTX_set_verify(ctx_.get(), SSL_VERIFY_NONE, nullptr);
    if (setup) {
      setup(ctx_.get());
    }
    ssl_.reset(SSL_new(ctx_.get()));
    SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl_.get());
  }

  x509::SslCtxPtr ctx_;
  x509::SslPtr ssl_;
  std::string received_;
  int reason_ = 0;
};

}  // namespace postern::tls
