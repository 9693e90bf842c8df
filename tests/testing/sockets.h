// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace postern::testing {

// How reading came to its end.
enum class ReadEnd : uint8_t { kEnd, kReset, kTimeout, kError };
std::string_view Name(ReadEnd end);

// A blocking stream socket of a test. Every operation gives up after 20 s, so that a test that
// fails does not hang.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd);
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  // Aborts the test program when it cannot connect. A small `receive_buffer` (bytes) must be asked
  // for before the connection stands; 0: the system's.
  static Socket Connect(std::string_view ip, uint16_t port, int receive_buffer = 0);
  static Socket ConnectUnix(const std::string& path);
  // The same without a guarantee: !IsOpen() when it was refused.
  static Socket TryConnect(std::string_view ip, uint16_t port);

  bool IsOpen() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  int Release();

  bool Send(std::string_view bytes);  // false: the peer is gone
  std::string Read(size_t most);      // one recv; empty at the end and on errors (see last_end)
  std::string ReadExactly(size_t bytes);
  std::string ReadToEnd();
  ReadEnd last_end() const { return last_end_; }
  // Reads until the connection ends; says how.
  ReadEnd DrainToEnd();
  // Sends as long as the kernel takes it without waiting; returns how much that was.
  size_t SendUntilFull(size_t most, std::chrono::milliseconds patience);

  void ShutdownWrite();
  void Close();
  void Reset();  // RST instead of FIN
  void SetSendBuffer(int bytes);
  void SetTimeout(std::chrono::milliseconds time);

 private:
  int fd_ = -1;
  ReadEnd last_end_ = ReadEnd::kEnd;
  bool was_reset_ = false;  // a Send was told so; the kernel tells once, and reads end from then on
};

// A server on 127.0.0.1 (port picked by the system) or a unix path, that serves each connection in
// a thread of its own. Its destructor closes the port and waits for the threads.
class Server {
 public:
  using Serve = std::function<void(Socket)>;
  explicit Server(Serve serve, int receive_buffer = 0);
  Server(const std::string& unix_path, Serve serve);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const { return port_; }
  int accepted() const { return accepted_; }
  void StopAccepting();

 private:
  void Run();

  Serve serve_;
  int fd_ = -1;
  uint16_t port_ = 0;
  std::atomic<int> accepted_{0};
  std::mutex mutex_;
  std::vector<std::thread> threads_;  // guarded by mutex_
  std::thread acceptor_;
};

// Serves by sending back what comes, ending when the peer ends.
void Echo(Socket socket);

// Waits until the condition holds; false after 20 s.
bool Await(const std::function<bool()>& condition,
           std::chrono::milliseconds limit = std::chrono::seconds(20));

// Bytes that look random and depend on the seed and the place alone.
std::string Pattern(size_t bytes, uint64_t seed);

size_t OpenDescriptors();  // of this process
size_t ResidentBytes();    // of this process

}  // namespace postern::testing
