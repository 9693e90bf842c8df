// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "proxy/identity/source.h"
#include "proxy/identity/watched_file.h"
#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::identity {

// Identity from --svid, --svid-key and --bundle. The three are read together, checked together and
// used together or not at all: a set that is half replaced, damaged or not valid now leaves the old
// one in use, and is tried again until it fits. Main loop only.
class FileSource final : public Source {
 public:
  struct Files {
    std::string svid, key, bundle;
  };

  FileSource(net::Loop& loop, const base::Clock& clock, Files files, SourceSink& sink);

  // The first reading, before Start. An error (naming the file) is one of configuration; a set that
  // is merely expired or not valid yet is none: it may be replaced while the proxy runs.
  absl::Status LoadFirst();

  void Start() override;
  void Reload() override { Load().IgnoreError(); }  // reported by OnFailure
  void OnFileEvent() override;
  void Describe(IdentityStatus& status) const override;

 private:
  struct Content;
  absl::Status Load();
  absl::StatusOr<Content> Read() const;
  absl::Status Use(const Content& content);
  void OnFailure(const absl::Status& status, bool known);

  const base::Clock& clock_;
  const Files files_;
  SourceSink& sink_;
  WatchedFiles watched_;
  net::Timer timer_;
  base::Sha256Digest tried_{};  // of the contents that were tried last; zeros: none
  absl::Status result_;         // of that try
  uint64_t failures_ = 0;
};

}  // namespace postern::identity
