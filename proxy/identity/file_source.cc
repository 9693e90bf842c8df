// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/file_source.h"

#include <openssl/crypto.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/base/with_flag.h"
#include "common/x509/digest.h"
#include "proxy/identity/identity_check.h"

namespace postern::identity {

struct FileSource::Content {
  std::string svid, key, bundle;
  base::Sha256Digest digest{};

  Content() = default;
  Content(Content&&) = default;
  Content& operator=(Content&&) = default;
  ~Content() { OPENSSL_cleanse(key.data(), key.size()); }
};

namespace {

base::Sha256Digest DigestOf(std::initializer_list<const std::string*> parts) {
  // Digest of digests, so that no byte can move from one part to the next unnoticed.
  std::string joined;
  for (const std::string* part : parts) {
    joined.append(base::AsText(x509::Sha256(base::AsBytes(*part))));
  }
  return x509::Sha256(base::AsBytes(joined));
}

// For a status that does not name the file.
absl::Status Naming(std::string_view flag, const std::string& file, const absl::Status& status) {
  return base::WithFlag(base::StrCat(flag, " '", file, "'"), status);
}

}  // namespace

FileSource::FileSource(net::Loop& loop, const base::Clock& clock, Files files, SourceSink& sink)
    : clock_(clock),
      files_(std::move(files)),
      sink_(sink),
      watched_(clock, {files_.svid, files_.key, files_.bundle}),
      timer_(loop, [this] { OnFileEvent(); }) {}

absl::Status FileSource::LoadFirst() {
  const absl::Status status = Load();
  return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;
}

void FileSource::Start() {
  timer_.StartRepeating(absl::ToChronoMilliseconds(WatchedFiles::kPollEvery));
}

void FileSource::OnFileEvent() {
  if (watched_.Poll()) {
    Load().IgnoreError();  // reported by OnFailure
  }
}

absl::StatusOr<FileSource::Content> FileSource::Read() const {
  Content content;
  auto svid = base::ReadFile(files_.svid);
  if (!svid.ok()) {
    return base::WithFlag("--svid", svid.status());
  }
  content.svid = *std::move(svid);
  auto key = base::ReadSecretFile(files_.key, /*allow_symlink=*/true);
  if (!key.ok()) {
    return base::WithFlag("--svid-key", key.status());
  }
  content.key = *std::move(key);
  auto bundle = base::ReadFile(files_.bundle);
  if (!bundle.ok()) {
    return base::WithFlag("--bundle", bundle.status());
  }
  content.bundle = *std::move(bundle);
  content.digest = DigestOf({&content.svid, &content.key, &content.bundle});
  return content;
}

absl::Status FileSource::Load() {
  const auto content = Read();
  if (!content.ok()) {
    const bool known = tried_ == base::Sha256Digest{} && result_ == content.status();
    tried_ = {};
    OnFailure(content.status(), known);
    return content.status();
  }
  const bool known = content->digest == tried_;
  if (known && result_.ok()) {
    return absl::OkStatus();
  }
  tried_ = content->digest;
  const absl::Status status = Use(*content);
  if (!status.ok()) {
    OnFailure(status, known);
    return status;
  }
  result_ = absl::OkStatus();
  sink_.OnSourceChanged();
  return absl::OkStatus();
}

absl::Status FileSource::Use(const Content& content) {
  auto svid = x509::Svid::FromPem(content.svid, content.key);
  if (!svid.ok()) {
    return Naming("--svid", base::StrCat(files_.svid, "' with --svid-key '", files_.key),
                  svid.status());
  }
  auto bundles = x509::TrustBundleSet::FromFileContent(content.bundle, svid->id().trust_domain());
  if (!bundles.ok()) {
    return Naming("--bundle", files_.bundle, bundles.status());
  }
  if (auto usable = svid->CheckUsable(clock_.Now()); !usable.ok()) {
    return Naming("--svid", files_.svid, usable);  // FailedPrecondition: time may mend it
  }
  if (auto checked = CheckIdentity(*svid, *bundles, clock_.Now()); !checked.ok()) {
    return Naming("--svid", files_.svid, absl::InvalidArgumentError(checked.message()));
  }
  sink_.OnIdentity(std::make_shared<const x509::Svid>(*std::move(svid)),
                   std::make_shared<const x509::TrustBundleSet>(*std::move(bundles)), Version());
  return absl::OkStatus();
}

void FileSource::OnFailure(const absl::Status& status, bool known) {
  result_ = status;
  if (known) {
    return;
  }
  ++failures_;
  spdlog::error("the identity files are not used; what was loaded before, if anything, goes on: {}",
                base::Message(status));
  sink_.OnSourceChanged();
}

void FileSource::Describe(IdentityStatus& status) const {
  status.source = "files";
  status.reload_failures += failures_;
  if (!result_.ok()) {
    status.reload_error = std::string(base::Message(result_));
  }
}

}  // namespace postern::identity
