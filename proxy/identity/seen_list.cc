// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/seen_list.h"

#include <spdlog/spdlog.h>

#include <string_view>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/host_name.h"
#include "common/base/host_port.h"
#include "common/base/strings.h"

namespace postern::identity {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr char kFirstLine[] =
    "# Destinations seen in the mesh: plaintext to them is refused. `postern seen forget` lets one "
    "leave the mesh; so does taking its line out and sending SIGHUP.\n";

template <typename Visit>
void ForEachLine(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (!line.empty() && !line.starts_with('#')) {
      visit(line);
    }
  }
}

// A missing file is an empty one.
absl::StatusOr<std::string> ReadIfThere(const std::string& path) {
  auto content = base::ReadFile(path);
  if (absl::IsNotFound(content.status())) {
    return std::string();
  }
  return content;
}

// A line that an operator or an older release has written. What is ambiguous or odd as an address
// today, but was read as one, still is: to pass over it would let go of a destination that nobody
// has let go of. The port stands behind the last colon, whatever the brackets and zeros.
std::optional<SeenKey> ReadLine(std::string_view line) {
  const size_t colon = line.rfind(':');
  std::optional<SeenKey> key = SeenList::ParseKey(line);
  if (key.has_value() || colon == std::string_view::npos) {
    return key;
  }
  std::string_view host = line.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  const auto port = base::ParseNumber<uint16_t>(line.substr(colon + 1));
  return port.has_value() ? SeenList::ParseKey(base::JoinHostPort(host, *port)) : std::nullopt;
}

}  // namespace

bool SeenList::Memory::HasRoomFor(const SeenKey& key) const {
  return keys.size() < kMost && (key.name() == nullptr || names < kMostNames);
}

void SeenList::Memory::Insert(const SeenKey& key) {
  if (keys.insert(key).second && key.name() != nullptr) {
    ++names;
  }
}

void SeenList::Memory::Erase(const SeenKey& key) {
  if (keys.erase(key) > 0 && key.name() != nullptr) {
    --names;
  }
}

std::optional<SeenKey> SeenList::ParseKey(std::string_view line) {
  const auto parsed =
      base::HostPort::Parse(line, {.names = true, .final_dot = true, .port_0 = true});
  if (!parsed.ok()) {
    return std::nullopt;
  }
  if (parsed->ip.has_value()) {
    return AddressKey{*parsed->ip, *parsed->port};
  }
  return *parsed->port == 0 ? std::nullopt
                            : std::optional<SeenKey>(
                                  NameKey{base::CanonicalHostName(parsed->host), *parsed->port});
}

absl::Status SeenList::Reload() {
  if (path_.empty()) {
    return absl::OkStatus();
  }
  const auto content = ReadIfThere(path_);
  if (!content.ok()) {
    return content.status();
  }
  Memory seen;
  for (const SeenKey& key : unsaved_) {
    seen.Insert(key);
  }
  ForEachLine(*content, [&](std::string_view line) {
    const auto key = ReadLine(line);
    if (!key.has_value()) {
      spdlog::error("{}: '{}' is no IP:port or name:port; plaintext is refused to nobody for it",
                    path_, base::Printable(line, 64));
    } else if (seen.HasRoomFor(*key)) {
      seen.Insert(*key);
    }
  });
  seen_ = std::move(seen);
  return absl::OkStatus();
}

bool SeenList::Add(const SeenKey& key) {
  if (Contains(key)) {
    return false;
  }
  if (!seen_.HasRoomFor(key)) {
    if (!std::exchange(full_, true)) {
      spdlog::error(
          "{}: {} destinations were seen in the mesh; {} is not remembered, nor are others", path_,
          size(), key.ToString());
    }
    return false;
  }
  seen_.Insert(key);
  if (!path_.empty()) {
    unsaved_.push_back(key);
  }
  return true;
}

absl::Status SeenList::Save() {
  if (unsaved_.empty()) {
    return absl::OkStatus();
  }
  auto content = ReadIfThere(path_);
  if (!content.ok()) {
    return content.status();
  }
  if (content->empty()) {
    *content = kFirstLine;
  } else if (!content->ends_with('\n')) {
    content->push_back('\n');
  }
  for (const SeenKey& key : unsaved_) {
    content->append(key.ToString()).push_back('\n');
  }
  if (auto status = base::WriteFileAtomically(path_, *content, kFileMode); !status.ok()) {
    return status;
  }
  unsaved_.clear();
  return absl::OkStatus();
}

template <typename Keeps>
absl::Status SeenList::Rewrite(Keeps keeps) {
  if (path_.empty()) {
    return absl::OkStatus();
  }
  const auto content = ReadIfThere(path_);
  if (!content.ok() || content->empty()) {
    return content.status();
  }
  std::string kept = kFirstLine;
  ForEachLine(*content, [&](std::string_view line) {
    if (keeps(ReadLine(line))) {
      kept.append(line).push_back('\n');
    }
  });
  return base::WriteFileAtomically(path_, kept, kFileMode);
}

absl::Status SeenList::Forget(const SeenKey& key) {
  if (!Contains(key)) {
    return absl::NotFoundError(key.ToString() + " was not seen in the mesh");
  }
  if (auto status = Rewrite([&](const std::optional<SeenKey>& other) { return other != key; });
      !status.ok()) {
    return status;
  }
  seen_.Erase(key);
  full_ = false;
  std::erase(unsaved_, key);
  return absl::OkStatus();
}

absl::Status SeenList::ForgetAll() {
  if (auto status = Rewrite([](const std::optional<SeenKey>&) { return false; }); !status.ok()) {
    return status;
  }
  seen_ = {};
  full_ = false;
  unsaved_.clear();
  return absl::OkStatus();
}

}  // namespace postern::identity
