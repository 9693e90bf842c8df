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
  std::vector<unsigned long> queue;  // what a failed call left in the error queue, oldest first
};

// The only way to SSL_do_handshake, SSL_read, SSL_write and SSL_shutdown. OpenSSL's error queue
// belongs to the thread, not to the connection, and SSL_get_error looks into it: what another
// connection left behind there would be blamed on this one. So: an empty queue before, and after a
// failure SSL_get_error while the queue is as the call left it, then an empty queue. A success is
// not looked behind: nobody reads the queue without emptying it first.
template <typename Call>
SslCallResult SslCall(SSL* ssl, Call&& call) {
  // Emptying the queue wipes its sixteen places each time; a look costs a quarter of that.
  if (ERR_peek_error() != 0) {
    ERR_clear_error();
  }
  SslCallResult result;
  result.rc = std::forward<Call>(call)(ssl);
  if (result.rc == 1) {
    return result;
  }
  result.error = SSL_get_error(ssl, result.rc);
  while (const unsigned long code = ERR_get_error()) {
    result.queue.push_back(code);
  }
  return result;
}

}  // namespace postern::tls
