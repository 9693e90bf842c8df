// SPDX-License-Identifier: Apache-2.0
#include "control/ca/published_roots.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::ca {
namespace {

constexpr std::string_view kHead =
    "# The roots of --ca-dir that proxies were told to trust. Kept by postern-identity.\n";
constexpr std::string_view kMark = "root ";  // "root signs=1 until=0 retired=0", 0: no end

std::string PathOf(const std::string& state_dir) {
  return base::StrCat(state_dir, "/", kPublishedRootsFile);
}

absl::Status Damaged(const std::string& path) {
  return absl::DataLossError(base::StrCat(
      "'", base::Printable(path),
      "' is damaged: restore it from a backup; or remove it, and then proxies are told to trust "
      "the roots of --ca-dir alone"));
}

// The facts of "signs=1 until=0 retired=0".
std::optional<PublishedRoot> ParseFacts(std::string_view line) {
  const std::vector<std::string_view> parts = base::Split(line, ' ');
  if (parts.size() != 3 || !parts[0].starts_with("signs=") || !parts[1].starts_with("until=") ||
      !parts[2].starts_with("retired=")) {
    return std::nullopt;
  }
  const auto signs = base::ParseNumber<int>(parts[0].substr(6));
  const auto until = base::ParseNumber<int64_t>(parts[1].substr(6));
  const auto retired = base::ParseNumber<int>(parts[2].substr(8));
  if (!signs.has_value() || !until.has_value() || !retired.has_value()) {
    return std::nullopt;
  }
  return PublishedRoot{nullptr, *signs != 0,
                       *until == 0 ? absl::InfiniteFuture() : absl::FromUnixSeconds(*until),
                       *retired != 0};
}

std::optional<PublishedRoot> ParseOne(std::string_view text) {
  const size_t line_end = std::min(text.find('\n'), text.size());
  std::optional<PublishedRoot> root = ParseFacts(text.substr(0, line_end));
  if (!root.has_value()) {
    return std::nullopt;
  }
  absl::StatusOr<std::vector<x509::X509Ptr>> certificates =
      x509::CertificatesFromPem(text.substr(line_end));
  // Nothing but what was written: a PEM reader passes over much.
  if (!certificates.ok() || certificates->size() != 1 ||
      text.substr(std::min(line_end + 1, text.size())) !=
          x509::CertificateToPem(certificates->front().get())) {
    return std::nullopt;
  }
  root->certificate = std::move(certificates->front());
  return root;
}

}  // namespace

const PublishedRoot* FindRoot(const std::vector<PublishedRoot>& roots, const X509* certificate) {
  for (const PublishedRoot& root : roots) {
    if (X509_cmp(root.certificate.get(), certificate) == 0) {
      return &root;
    }
  }
  return nullptr;
}

bool SameRoots(const std::vector<PublishedRoot>& a, const std::vector<PublishedRoot>& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&b](const PublishedRoot& root) {
           const PublishedRoot* other = FindRoot(b, root.certificate.get());
           return other != nullptr && other->retired == root.retired;
         });
}

bool SameRootsAndFacts(const std::vector<PublishedRoot>& a, const std::vector<PublishedRoot>& b) {
  return SameRoots(a, b) && std::all_of(a.begin(), a.end(), [&b](const PublishedRoot& root) {
           const PublishedRoot* other = FindRoot(b, root.certificate.get());
           return other->signs == root.signs && other->until == root.until;
         });
}

absl::StatusOr<std::vector<PublishedRoot>> ReadPublishedRoots(const std::string& state_dir) {
  const std::string path = PathOf(state_dir);
  const absl::StatusOr<std::string> text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return std::vector<PublishedRoot>();
  }
  if (!text.ok()) {
    return text.status();
  }
  std::string_view rest = *text;
  if (!rest.starts_with(kHead)) {
    return Damaged(path);
  }
  rest.remove_prefix(kHead.size());
  std::vector<PublishedRoot> roots;
  while (!rest.empty()) {
    if (!rest.starts_with(kMark)) {
      return Damaged(path);
    }
    rest.remove_prefix(kMark.size());
    const size_t next = rest.find(base::StrCat("\n", kMark));
    const size_t size = next == std::string_view::npos ? rest.size() : next + 1;
    std::optional<PublishedRoot> root = ParseOne(rest.substr(0, size));
    if (!root.has_value()) {
      return Damaged(path);
    }
    roots.push_back(*std::move(root));
    rest.remove_prefix(size);
  }
  return roots;
}

absl::Status WritePublishedRoots(const std::string& state_dir,
                                 const std::vector<PublishedRoot>& roots) {
  std::string text(kHead);
  for (const PublishedRoot& root : roots) {
    const int64_t until =
        root.until == absl::InfiniteFuture() ? 0 : absl::ToUnixSeconds(root.until);
    base::StrAppend(text, kMark, "signs=", root.signs ? 1 : 0, " until=", until,
                    " retired=", root.retired ? 1 : 0, "\n",
                    x509::CertificateToPem(root.certificate.get()));
  }
  return base::WriteFileAtomically(PathOf(state_dir), text, 0600);
}

}  // namespace postern::ca
