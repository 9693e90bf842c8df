// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/crl_files.h"

#include <dirent.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"

namespace postern::identity {
namespace {

constexpr size_t kMostFiles = 1024;

bool IsDirectory(const std::string& path) {
  struct stat facts;
  return stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
}

absl::Status AddDirectory(const std::string& path, std::vector<std::string>& files) {
  DIR* const directory = opendir(path.c_str());
  if (directory == nullptr) {
    return absl::InvalidArgumentError(base::StrCat(path, ": ", std::strerror(errno)));
  }
  // A mounted secret's files are symlinks into a directory whose name begins with two dots.
  while (const dirent* entry = readdir(directory)) {
    const std::string name = entry->d_name;
    const std::string whole = base::StrCat(path, "/", name);
    if (!name.starts_with('.') && !IsDirectory(whole)) {
      files.push_back(whole);
    }
  }
  closedir(directory);
  return files.size() <= kMostFiles
             ? absl::OkStatus()
             : absl::InvalidArgumentError(base::StrCat(path, ": more than ", kMostFiles, " files"));
}

absl::Status Naming(const std::string& path, const absl::Status& status) {
  return absl::InvalidArgumentError(base::StrCat(path, ": ", base::Message(status)));
}

}  // namespace

CrlFiles::CrlFiles(const base::Clock& clock, std::vector<std::string> paths)
    : clock_(clock), paths_(std::move(paths)), watched_(clock, paths_) {}

absl::StatusOr<std::vector<std::string>> CrlFiles::ListFiles() const {
  std::vector<std::string> files;
  for (const std::string& path : paths_) {
    if (!IsDirectory(path)) {
      files.push_back(path);
    } else if (absl::Status listed = AddDirectory(path, files); !listed.ok()) {
      return listed;
    }
  }
  return files;
}

absl::Status CrlFiles::ReadOne(const std::string& path) {
  const absl::StatusOr<std::string> content = base::ReadFile(path, x509::kMaxCrlBytes);
  if (!content.ok()) {
    return content.status();
  }
  File& file = files_[path];
  if (file.content == *content) {
    return absl::OkStatus();
  }
  absl::StatusOr<x509::CrlContent> parsed = x509::ParseCrlFile(*content);
  if (!parsed.ok()) {
    return Naming(path, parsed.status());
  }
  file.content = *content;
  file.parsed = *std::move(parsed);
  changed_ = true;
  return absl::OkStatus();
}

absl::Status CrlFiles::ReadAll(bool first) {
  const absl::StatusOr<std::vector<std::string>> listed = ListFiles();
  if (!listed.ok()) {
    return listed.status();
  }
  for (const std::string& path : *listed) {
    const absl::Status read = ReadOne(path);
    if (!read.ok() && first) {
      return read;
    }
    File& file = files_[path];
    Note(file, file.read_error, read);
  }
  const std::set<std::string> present(listed->begin(), listed->end());
  for (auto at = files_.begin(); at != files_.end();) {
    if (present.contains(at->first)) {
      ++at;
      continue;
    }
    spdlog::warn("{} is gone: its CRLs count no more", at->first);
    at = files_.erase(at);
    changed_ = true;
  }
  return absl::OkStatus();
}

absl::Status CrlFiles::LoadFirst() {
  if (absl::Status read = ReadAll(/*first=*/true); !read.ok()) {
    return read;
  }
  Verify();
  return absl::OkStatus();
}

bool CrlFiles::Poll() {
  if (paths_.empty()) {
    return false;
  }
  SayStale();
  return watched_.Poll() && Reload();
}

bool CrlFiles::Reload() {
  if (paths_.empty()) {
    return false;
  }
  const auto before = verified();
  const absl::Status read = ReadAll(/*first=*/false);
  const std::string message(base::Message(read));
  if (!read.ok() && message != list_error_) {
    ++failures_;
    spdlog::error("the CRLs cannot be listed, the last good ones go on: {}", message);
  }
  list_error_ = message;
  if (changed_) {
    Verify();
  }
  SumUp();
  return verified() != before;
}

bool CrlFiles::SetTrust(std::shared_ptr<const x509::TrustBundleSet> bundles,
                        std::shared_ptr<const x509::Svid> svid) {
  bundles_ = std::move(bundles);
  svid_ = std::move(svid);
  return Verify();
}

bool CrlFiles::Verify() {
  changed_ = false;
  std::vector<x509::X509Ptr> authorities;
  const auto add = [&authorities](const x509::X509Ptr& one) {
    authorities.push_back(x509::ShareX509(one.get()));
  };
  for (const auto& [path, file] : files_) {
    std::for_each(file.parsed.authorities.begin(), file.parsed.authorities.end(), add);
  }
  if (bundles_ != nullptr) {
    for (const auto& [name, bundle] : bundles_->bundles()) {
      std::for_each(bundle.roots().begin(), bundle.roots().end(), add);
    }
  }
  if (svid_ != nullptr) {
    std::for_each(svid_->chain().begin() + 1, svid_->chain().end(), add);
  }
  const auto before = verified();
  for (auto& [path, file] : files_) {
    const absl::Status verdict = VerifyOne(path, file, authorities);
    // Before the bundles have come, a CA that is not known is no fault of the file.
    if (verdict.ok() || bundles_ != nullptr) {
      Note(file, file.verify_error, verdict);
    }
  }
  SumUp();
  return verified() != before;
}

absl::Status CrlFiles::VerifyOne(const std::string& path, File& file,
                                 const std::vector<x509::X509Ptr>& authorities) {
  std::vector<std::shared_ptr<const x509::Crl>> fresh;
  for (const x509::X509CrlPtr& crl : file.parsed.crls) {
    auto verified = x509::VerifyCrl(crl.get(), path, authorities);
    if (!verified.ok()) {
      return Naming(path, verified.status());
    }
    const auto former =
        std::find_if(file.verified.begin(), file.verified.end(),
                     [&](const auto& one) { return one->issuer_key == (*verified)->issuer_key; });
    if (former != file.verified.end() && (*former)->this_update > (*verified)->this_update) {
      return Naming(path, absl::InvalidArgumentError(
                              "it is older than the CRL that it replaces: a roll-back is refused"));
    }
    // The same one stays the same object, so that nobody takes it for news.
    const bool same = former != file.verified.end() &&
                      (*former)->this_update == (*verified)->this_update &&
                      (*former)->next_update == (*verified)->next_update &&
                      (*former)->revoked == (*verified)->revoked;
    fresh.push_back(same ? *former : *std::move(verified));
  }
  if (fresh != file.verified) {
    file.said_stale = false;
  }
  file.verified = std::move(fresh);
  return absl::OkStatus();
}

void CrlFiles::Note(const File& file, std::string& error, const absl::Status& status) {
  const std::string message(base::Message(status));
  if (!status.ok() && message != error) {
    ++failures_;
    spdlog::error("the CRL is refused{}: {}",
                  file.verified.empty() ? "" : ", the last good one of this file goes on", message);
  }
  error = message;
}

void CrlFiles::SayStale() {
  for (auto& [path, file] : files_) {
    for (const auto& crl : file.verified) {
      if (!file.said_stale && crl->next_update <= clock_.Now()) {
        file.said_stale = true;
        spdlog::error(
            "the CRL of {} ({}) should have been replaced before {}: new connections with "
            "certificates of this CA are refused until it is (open ones go on)",
            base::Printable(crl->issuer), path,
            absl::FormatTime(crl->next_update, absl::UTCTimeZone()));
      }
    }
  }
}

void CrlFiles::SumUp() {
  error_ = list_error_;
  for (const auto& [path, file] : files_) {
    if (error_.empty()) {
      error_ = file.read_error.empty() ? file.verify_error : file.read_error;
    }
  }
}

std::vector<std::shared_ptr<const x509::Crl>> CrlFiles::verified() const {
  std::vector<std::shared_ptr<const x509::Crl>> all;
  for (const auto& [path, file] : files_) {
    all.insert(all.end(), file.verified.begin(), file.verified.end());
  }
  return all;
}

size_t CrlFiles::stale() const {
  size_t stale = 0;
  for (const auto& [path, file] : files_) {
    stale += static_cast<size_t>(
        std::count_if(file.verified.begin(), file.verified.end(),
                      [this](const auto& crl) { return crl->next_update <= clock_.Now(); }));
  }
  return stale;
}

}  // namespace postern::identity
