// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <utility>
#include <vector>

namespace postern::tls {

// What one call into OpenSSL's state machine came to. A value.
struct SslCallResult {
  int rc = 0;
  int error = SSL_ERROR_NONE;        // SSL_get_error
  std::vector<unsigned long> queue;  // what the call left in the error queue, oldest first
};

// The only way to SSL_do_handshake, SSL_read, SSL_write and SSL_shutdown. OpenSSL's error queue
// belongs to the thread, not to the connection, and SSL_get_error looks into it: what another
// connection left behind there would be blamed on this one. So: an empty queue before,
// SSL_get_error while the queue is as the call left it, an empty queue after.
template <typename Call>
SslCallResult SslCall(SSL* ssl, Call&& call) {
  ERR_clear_error();
  SslCallResult result;
  result.rc = std::forward<Call>(call)(ssl);
  result.error = SSL_get_error(ssl, result.rc);
  while (const unsigned long code = ERR_get_error()) {
    result.queue.push_back(code);
  }
  return result;
}

}  // namespace postern::tls
