// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <string>
#include <string_view>

#include "common/x509/openssl_ptr.h"
#include "tests/testing/sockets.h"
#include "tests/testing/test_ca.h"

namespace postern::testing {

// A TLS end that is not ours, over a blocking socket: plain OpenSSL that checks nothing and can be
// told to misbehave. The other implementation in tests of refusals and truncations.
class RawTls {
 public:
  struct Options {
    const Minted* certificate = nullptr;  // null: none
    int max_version = TLS1_3_VERSION;
    std::string alpn{};  // one protocol; empty: no extension
    bool server = false;
  };
  RawTls(Socket socket, const Options& options);
  ~RawTls();
  RawTls(const RawTls&) = delete;
  RawTls& operator=(const RawTls&) = delete;

  // Whether the handshake was completed, on this side.
  bool ok() const { return ok_; }
  // The fatal alert that the peer sent; -1 none.
  int alert() const { return alert_; }
  std::string alpn() const;
  std::string version() const { return SSL_get_version(ssl_.get()); }

  bool Send(std::string_view bytes);
  std::string Read(size_t most);  // empty at the end or on an error
  std::string ReadExactly(size_t bytes);
  // Reads until the end: true when it came with close_notify.
  bool DrainToCleanEnd();
  void CloseNotify();
  Socket& socket() { return socket_; }

 private:
  static void OnInfo(const SSL* ssl, int where, int value);

  Socket socket_;
  x509::SslCtxPtr ctx_;
  x509::SslPtr ssl_;
  int alert_ = -1;
  bool ok_ = false;
};

// The ClientHello of a client that asks for this name and offers this protocol.
std::string ClientHelloBytes(const std::string& sni, const std::string& alpn);

}  // namespace postern::testing
