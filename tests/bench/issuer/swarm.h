// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "tests/bench/issuer/http2.h"

namespace postern::bench {

// What a connection presents: leaf, then intermediates. An empty chain: no certificate.
struct Credential {
  std::vector<x509::X509Ptr> chain;
  EVP_PKEY* key = nullptr;  // borrowed
};

class LightConnection;

// Told what happens to a connection, on the thread that runs the swarm. A connection may be closed
// in any of these.
class ConnectionUser {
 public:
  virtual ~ConnectionUser() = default;
  virtual void OnOpen(LightConnection& connection) = 0;
  virtual void OnMessage(LightConnection& connection, std::string_view message) = 0;
  virtual void OnCallEnd(LightConnection& connection, std::string_view trailers) = 0;
  virtual void OnFailure(LightConnection& connection, std::string_view reason) = 0;
};

class Swarm;

// One TCP connection with TLS and HTTP/2, as one proxy has it: nothing is shared with another.
// Owned by its swarm; one thread.
class LightConnection {
 public:
  // Begins a call and sends its first message; `last`: the only one. One call at a time.
  void StartCall(std::string_view method, std::string_view message, bool last);
  void SendMessage(std::string_view message);
  void Close();  // destroyed once the swarm's turn ends
  size_t index() const { return index_; }

 private:
  friend class Swarm;
  LightConnection(Swarm& swarm, ConnectionUser& user, size_t index);
  void Send(std::string_view bytes);
  void Flush();
  void OnReady(uint32_t events);
  void Handshake();
  void ReadAll();
  void Fail(std::string_view reason);

  Swarm& swarm_;
  ConnectionUser& user_;
  const size_t index_;
  int fd_ = -1;
  x509::SslPtr ssl_;
  FrameReader reader_;
  std::string out_;
  uint32_t stream_ = 0;
  bool open_ = false;
  bool closed_ = false;
  bool wants_write_ = false;
};

// Many light connections to one address, on the calling thread.
class Swarm {
 public:
  explicit Swarm(uint16_t port);  // of 127.0.0.1
  ~Swarm();
  Swarm(const Swarm&) = delete;
  Swarm& operator=(const Swarm&) = delete;

  // Connects from 127.`source` (three bytes), so that each simulated proxy has an address of its
  // own. `index` comes back as index(). Null, with a line on standard error: no descriptor or port.
  LightConnection* Open(const Credential& credential, uint32_t source, ConnectionUser& user,
                        size_t index);

  // Serves the connections until `done` or the deadline; false: the deadline came.
  bool RunUntil(const std::function<bool()>& done, absl::Duration patience);

  void CloseAll();
  size_t size() const { return connections_.size(); }

 private:
  friend class LightConnection;
  void Collect();

  const int epoll_;
  const uint16_t port_;
  const x509::SslCtxPtr context_;
  std::vector<std::unique_ptr<LightConnection>> connections_;
  bool has_closed_ = false;
};

}  // namespace postern::bench
