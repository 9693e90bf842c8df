// SPDX-License-Identifier: Apache-2.0
#include "control/service/unix_listener.h"

#include <fcntl.h>
#include <grpcpp/server.h>
#include <grpcpp/server_posix.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <mutex>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "common/base/strings.h"
#include "common/base/unique_fd.h"
#include "common/base/unix_socket.h"

namespace postern::service {

struct UnixListener::Impl {
  std::unique_ptr<base::UnixServerSocket> socket;
  base::UniqueFd stop;
  std::thread thread;

  // gRPC names such a connection by its descriptor's number. A number is overwritten when it comes
  // again, before gRPC can call a handler for it, so a stale row is never read.
  mutable std::mutex mutex;
  absl::flat_hash_map<std::string, std::shared_ptr<const attest::UnixPeer>> peers;

  void AcceptAll(grpc::Server& server);
  void HandOver(int fd, grpc::Server& server);
};

void UnixListener::Impl::AcceptAll(grpc::Server& server) {
  for (int fd = socket->AcceptUnless(stop.get()); fd >= 0; fd = socket->AcceptUnless(stop.get())) {
    HandOver(fd, server);
  }
}

void UnixListener::Impl::HandOver(int fd, grpc::Server& server) {
  absl::StatusOr<attest::UnixPeer> peer = attest::UnixPeer::FromSocket(fd);
  if (!peer.ok() || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
    spdlog::warn("unix socket: a connection was refused: {}", peer.status().ToString());
    close(fd);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    peers[base::StrCat("fd:", fd)] = std::make_shared<const attest::UnixPeer>(*std::move(peer));
  }
  grpc::AddInsecureChannelFromFd(&server, fd);  // owns the descriptor from here on
}

absl::StatusOr<std::unique_ptr<UnixListener>> UnixListener::Listen(const std::string& path) {
  absl::StatusOr<std::unique_ptr<base::UnixServerSocket>> socket =
      base::UnixServerSocket::Listen(path, 0666, 128);
  if (!socket.ok()) {
    return socket.status();
  }
  auto impl = std::make_unique<Impl>();
  impl->socket = *std::move(socket);
  impl->stop = base::UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!impl->stop.is_open()) {
    return absl::UnavailableError("cannot make an eventfd");
  }
  return std::unique_ptr<UnixListener>(new UnixListener(std::move(impl)));
}

UnixListener::UnixListener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

void UnixListener::Serve(grpc::Server& server) {
  impl_->thread = std::thread([impl = impl_.get(), &server] { impl->AcceptAll(server); });
}

UnixListener::~UnixListener() {
  Stop();
}

void UnixListener::Stop() {
  eventfd_write(impl_->stop.get(), 1);
  if (impl_->thread.joinable()) {
    impl_->thread.join();
  }
}

std::shared_ptr<const attest::UnixPeer> UnixListener::PeerOf(std::string_view grpc_peer) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->peers.find(base::ToAbsl(grpc_peer));
  return found == impl_->peers.end() ? nullptr : found->second;
}

}  // namespace postern::service
