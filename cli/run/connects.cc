// SPDX-License-Identifier: Apache-2.0
#include "cli/run/connects.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "common/handover/handover.h"

namespace postern::run {
namespace {

using std::chrono::milliseconds;

// A unix listener with a full queue says EAGAIN and cannot be polled for room.
constexpr milliseconds kFirstPause{1};
constexpr milliseconds kLongestPause{50};

// Whether the path of a unix address is found from the working directory.
bool IsRelativePath(const SocketFacts& facts, base::ByteSpan address) {
  constexpr size_t kPath = offsetof(sockaddr_un, sun_path);
  return facts.domain == AF_UNIX && address.size() > kPath && address[kPath] != 0 &&
         address[kPath] != '/';
}

// Any path at all: for it the caller must have the root directory of this process.
bool IsPath(const SocketFacts& facts, base::ByteSpan address) {
  constexpr size_t kPath = offsetof(sockaddr_un, sun_path);
  return facts.domain == AF_UNIX && address.size() > kPath && address[kPath] != 0;
}

// ConnectNow from within `directory`, if there is one.
int ConnectFrom(const base::UniqueFd& directory, int socket, base::ByteSpan address) {
  if (!directory.is_open()) {
    return ConnectNow(socket, address);
  }
  const base::UniqueFd home(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!home.is_open() || fchdir(directory.get()) != 0) {
    return errno;
  }
  const int error = ConnectNow(socket, address);
  return fchdir(home.get()) == 0 ? error : errno;
}

// Who may not have got the answer that a connect was begun must not be told that there was one.
int Begun(int error, bool begun) {
  return begun && error == EALREADY ? EINPROGRESS : error;
}

milliseconds SendTimeout(int socket) {
  timeval limit{};
  socklen_t length = sizeof(limit);
  if (getsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, &length) != 0) {
    return milliseconds(0);
  }
  return milliseconds(limit.tv_sec * 1000 + (limit.tv_usec + 999) / 1000);
}

}  // namespace

Connects::~Connects() {
  for (const auto& [inode, pending] : pending_) {
    loop_.Cancel(pending->timer);
    for (const base::UniqueFd* const fd : {&pending->socket, &pending->outcome}) {
      if (fd->is_open()) {
        loop_.Forget(fd->get());
      }
    }
  }
}

void Connects::Handle(const Call& call, const Caller& caller) {
  base::UniqueFd socket;
  SocketFacts facts;
  std::vector<uint8_t> address;
  int error = caller.TakeDescriptor(call.int_argument(0), &socket);
  if (error == 0) {
    error = ReadSocketFacts(socket.get(), &facts);
  }
  if (error == 0) {
    error = caller.ReadAddress(&address);
  }
  if (error != 0) {
    notifier_.Answer(call.id, error);
    return;
  }
  const LateAnswers::Again again = answers_.AnswerAgain(call, facts.inode, address);
  if (again == LateAnswers::Again::kAnswered || GoesOnFor(call, facts)) {
    return;
  }
  const bool begun = again == LateAnswers::Again::kBegun;
  const Judgement judgement = JudgeConnect(facts, address);
  switch (judgement.course) {
    case Course::kRefused:
      notifier_.Answer(call.id, judgement.error);
      return;
    case Course::kCaught:
      Catch(call, facts, judgement, std::move(socket), std::move(address), begun);
      return;
    case Course::kAsAsked:
      DoAsAsked(call, caller, facts, std::move(socket), std::move(address), begun);
      return;
  }
}

// A call on a socket whose connect is under way.
bool Connects::GoesOnFor(const Call& call, const SocketFacts& facts) {
  const auto found = pending_.find(facts.inode);
  if (found == pending_.end()) {
    return false;
  }
  Pending& pending = *found->second;
  if (facts.non_blocking || notifier_.IsWaiting(pending.call.id)) {
    notifier_.Answer(call.id, EALREADY);
    return true;
  }
  pending.call = call;
  return true;
}

void Connects::Catch(const Call& call, const SocketFacts& facts, const Judgement& judgement,
                     base::UniqueFd socket, std::vector<uint8_t> address, bool begun) {
  const Place destination{judgement.ip, judgement.port};
  if (facts.non_blocking) {
    const Doorway::Result done =
        doorway_.Connect(socket.get(), facts.domain, destination, base::UniqueFd());
    answers_.Answer(call, facts.inode, address, Begun(done.error, begun));
    return;
  }
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    notifier_.Answer(call.id, errno);
    return;
  }
  base::UniqueFd outcome(ends[0]);
  const Doorway::Result done =
      doorway_.Connect(socket.get(), facts.domain, destination, base::UniqueFd(ends[1]));
  if (done.announced) {
    Pending& pending = Wait(call, facts.inode, std::move(socket), std::move(address));
    pending.outcome = std::move(outcome);
    loop_.Watch(pending.outcome.get(), EPOLLIN, [this, inode = facts.inode] { OnOutcome(inode); });
  } else if (done.error == EALREADY || done.error == EINPROGRESS) {
    // Begun before the socket was made to block.
    Wait(call, facts.inode, std::move(socket), std::move(address));
    AwaitWritable(facts.inode);
  } else {
    notifier_.Answer(call.id, done.error);
  }
}

void Connects::DoAsAsked(const Call& call, const Caller& caller, const SocketFacts& facts,
                         base::UniqueFd socket, std::vector<uint8_t> address, bool begun) {
  base::UniqueFd directory;
  if (IsPath(facts, address)) {
    if (const int error = caller.TakeDirectory(&directory); error != 0) {
      notifier_.Answer(call.id, error);
      return;
    }
    if (!IsRelativePath(facts, address)) {
      directory.Reset();
    }
  }
  const int error = ConnectFrom(directory, socket.get(), address);
  const bool would_wait =
      error == EINPROGRESS || error == EALREADY || (error == EAGAIN && facts.domain == AF_UNIX);
  if (facts.non_blocking || !would_wait) {
    answers_.Answer(call, facts.inode, address, Begun(error, begun));
    return;
  }
  Pending& pending = Wait(call, facts.inode, std::move(socket), std::move(address));
  if (error == EAGAIN) {
    pending.directory = std::move(directory);
    pending.pause = kFirstPause;
    TryAgainLater(facts.inode);
  } else {
    AwaitWritable(facts.inode);
  }
}

Connects::Pending& Connects::Wait(const Call& call, ino_t inode, base::UniqueFd socket,
                                  std::vector<uint8_t> address) {
  std::unique_ptr<Pending>& pending = pending_[inode];
  pending = std::make_unique<Pending>();
  pending->call = call;
  pending->socket = std::move(socket);
  pending->address = std::move(address);
  const milliseconds limit = SendTimeout(pending->socket.get());
  if (limit.count() > 0) {
    pending->timer = loop_.After(limit, [this, inode] { OnTimeIsOver(inode); });
  }
  return *pending;
}

void Connects::AwaitWritable(ino_t inode) {
  loop_.Watch(pending_.at(inode)->socket.get(), EPOLLOUT, [this, inode] { OnWritable(inode); });
}

void Connects::TryAgainLater(ino_t inode) {
  Pending& pending = *pending_.at(inode);
  loop_.Cancel(pending.timer);
  pending.timer = loop_.After(pending.pause, [this, inode] {
    Pending& again = *pending_.at(inode);
    again.timer = 0;
    const int error = ConnectFrom(again.directory, again.socket.get(), again.address);
    if (error == EAGAIN && notifier_.IsWaiting(again.call.id)) {
      again.pause = std::min(again.pause * 2, kLongestPause);
      TryAgainLater(inode);
    } else {
      End(inode, error);
    }
  });
}

void Connects::OnOutcome(ino_t inode) {
  const Pending& pending = *pending_.at(inode);
  const std::optional<int> outcome = handover::ReadOutcome(pending.outcome.get());
  if (!outcome.has_value()) {
    return;
  }
  // Whoever was broken off polls the socket instead, and finds the reset there.
  if (*outcome != 0 && notifier_.IsWaiting(pending.call.id)) {
    Disconnect(pending.socket.get());
  }
  End(inode, *outcome);
}

void Connects::OnWritable(ino_t inode) {
  End(inode, IntOption(pending_.at(inode)->socket.get(), SOL_SOCKET, SO_ERROR));
}

// As with the kernel the connect goes on, and the next call takes it over.
void Connects::OnTimeIsOver(ino_t inode) {
  Pending& pending = *pending_.at(inode);
  pending.timer = 0;
  notifier_.Answer(pending.call.id, EINPROGRESS);
  pending.call.id = 0;
}

void Connects::End(ino_t inode, int error) {
  const auto found = pending_.find(inode);
  const std::unique_ptr<Pending> pending = std::move(found->second);
  pending_.erase(found);
  loop_.Cancel(pending->timer);
  loop_.Forget(pending->socket.get());
  if (pending->outcome.is_open()) {
    loop_.Forget(pending->outcome.get());
  }
  if (pending->call.id != 0) {
    answers_.Answer(pending->call, inode, pending->address, error);
  }
}

}  // namespace postern::run
