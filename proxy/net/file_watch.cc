// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/file_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <deque>
#include <map>
#include <memory>

#include "common/base/strings.h"
#include "proxy/net/errno_status.h"
#include "proxy/net/handle_block.h"
#include "proxy/net/loop_impl.h"

namespace postern::net {
namespace {

constexpr int kMostLinks = 40;  // as the kernel's own limit
constexpr int kMostRounds = 4;
constexpr uint32_t kInside =
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ATTRIB;
constexpr uint32_t kItself = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;

using Places = std::set<std::pair<std::string, std::string>>;

// "a//b/./c" in front of `rest`, as "a", "b", "c".
void PushFront(std::string_view path, std::deque<std::string>& rest) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (const std::string_view part = path.substr(0, end); !part.empty() && part != ".") {
      parts.emplace_back(part);
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  rest.insert(rest.begin(), parts.begin(), parts.end());
}

// Where the symlink leads; empty: it is none.
std::string LinkTarget(const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t size = readlink(path.c_str(), target.data(), target.size());
  return size > 0 ? std::string(target.data(), static_cast<size_t>(size)) : std::string();
}

bool IsDirectory(const std::string& path) {
  struct stat facts {};
  return stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
}

}  // namespace

Places PlacesOnTheWay(const std::string& path) {
  Places places;
  std::deque<std::string> rest;
  PushFront(path, rest);
  std::string at = path.starts_with('/') ? "/" : ".";  // never through a symlink
  for (int links = 0; !rest.empty() && links <= kMostLinks;) {
    const std::string name = rest.front();
    rest.pop_front();
    const std::string full = base::StrCat(at == "/" ? "" : at, "/", name);
    if (const std::string target = LinkTarget(full); !target.empty()) {
      places.emplace(at, name);
      PushFront(target, rest);
      at = target.starts_with('/') ? "/" : at;
      ++links;
    } else if (rest.empty() || !IsDirectory(full)) {
      places.emplace(at, name);
      break;
    } else {
      at = full;
    }
  }
  return places;
}

// Owns the inotify descriptor, which libuv polls until its close callback.
struct FileWatch::Block final : HandleBlock {
  ~Block() override { close(fd); }
  uv_handle_t* handle() noexcept override { return reinterpret_cast<uv_handle_t*>(&poll); }
  static void OnPoll(uv_poll_t* poll, int /*status*/, int /*events*/) noexcept {
    auto* block = static_cast<Block*>(static_cast<HandleBlock*>(poll->data));
    if (block->usable() && block->TakeEvents()) {
      block->settle->Start(kSettle);
    }
  }

  bool TakeEvents() const;
  bool IsOurs(const inotify_event& event) const;
  void WatchAll(const std::vector<std::string>& paths);
  void Watch(const Places& places);

  uv_poll_t poll{};
  int fd = -1;
  Timer* settle = nullptr;                     // the FileWatch's; used while usable()
  std::map<int, std::set<std::string>> names;  // by watch descriptor
};

bool FileWatch::Block::IsOurs(const inotify_event& event) const {
  if ((event.mask & IN_Q_OVERFLOW) != 0) {
    return true;
  }
  const auto at = names.find(event.wd);
  if (at == names.end()) {
    return false;  // of a directory that is not watched any more
  }
  return (event.mask & (kItself | IN_IGNORED)) != 0 || event.len == 0 ||
         at->second.contains(event.name);
}

// Empties the descriptor; whether any of it matters.
bool FileWatch::Block::TakeEvents() const {
  bool ours = false;
  alignas(inotify_event) std::array<char, 4096> buffer{};
  ssize_t got = 0;
  while ((got = read(fd, buffer.data(), buffer.size())) > 0) {
    for (ssize_t at = 0; at < got;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      ours = IsOurs(*event) || ours;
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
  }
  return ours;
}

void FileWatch::Block::Watch(const Places& places) {
  std::map<int, std::set<std::string>> now;
  for (const auto& [directory, name] : places) {
    const int wd = inotify_add_watch(fd, directory.c_str(), kInside | kItself | IN_ONLYDIR);
    if (wd >= 0) {  // else it cannot be watched: the timer looks
      now[wd].insert(name);
    }
  }
  for (const auto& [wd, unused] : names) {
    if (!now.contains(wd)) {
      inotify_rm_watch(fd, wd);
    }
  }
  names = std::move(now);
}

// Again when a symlink was swapped between looking and watching.
void FileWatch::Block::WatchAll(const std::vector<std::string>& paths) {
  Places watched;
  for (int round = 0; round < kMostRounds; ++round) {
    Places places;
    for (const std::string& path : paths) {
      places.merge(PlacesOnTheWay(path));
    }
    if (round > 0 && places == watched) {
      return;
    }
    Watch(places);
    watched = std::move(places);
  }
}

FileWatch::FileWatch(Loop& loop, std::vector<std::string> paths, std::function<void()> on_change)
    : loop_(loop),
      paths_(std::move(paths)),
      on_change_(std::move(on_change)),
      settle_(loop, [this] { OnSettled(); }) {}

FileWatch::~FileWatch() {
  if (block_ != nullptr) {
    block_->Release();
  }
}

absl::Status FileWatch::Start() {
  const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) {
    return ErrnoStatus(errno, "cannot watch files");
  }
  auto block = std::make_unique<Block>();
  block->fd = fd;
  block->settle = &settle_;
  if (const int error = uv_poll_init(&loop_.impl()->loop, &block->poll, fd); error != 0) {
    return ErrnoStatus(-error, "cannot watch files");
  }
  block_ = block.release();
  block_->poll.data = static_cast<HandleBlock*>(block_);
  uv_poll_start(&block_->poll, UV_READABLE, &Block::OnPoll);
  block_->WatchAll(paths_);
  if (block_->names.empty() && !paths_.empty()) {
    return absl::ResourceExhaustedError(
        "no directory can be watched for changes (fs.inotify.max_user_watches?)");
  }
  return absl::OkStatus();
}

// Watches first and calls then: what happens after the call is an event again.
void FileWatch::OnSettled() {
  block_->WatchAll(paths_);
  on_change_();
}

}  // namespace postern::net
