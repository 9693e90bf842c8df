// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "cli/command.h"
#include "cli/member_key_file.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/key.h"
#include "common/x509/member_key.h"

namespace postern::cli {
namespace {

constexpr size_t kLargestPem = 256U << 10U;  // a certificate with its chain, at the most

absl::StatusOr<std::string> ReadStandardInput() {
  std::string text;
  text.reserve(4096);
  for (std::istreambuf_iterator<char> at(std::cin), end; at != end; ++at) {
    if (text.size() == kLargestPem) {
      return absl::InvalidArgumentError(
          base::StrCat("--member-key -: more than ", kLargestPem, " bytes"));
    }
    text.push_back(*at);
  }
  return text;
}

// A file of that name must not be there: it may be somebody's only key.
absl::Status WriteNewSecret(const std::string& path, std::string_view content) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  const auto failed = [&path] {
    return absl::UnavailableError(
        base::StrCat("--out ", base::Printable(path, 512), ": ",
                     std::error_code(errno, std::generic_category()).message()));
  };
  if (fd < 0) {
    return failed();
  }
  absl::Status status;
  for (size_t done = 0; done < content.size();) {
    const ssize_t wrote = write(fd, content.data() + done, content.size() - done);
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      status = failed();
      break;
    }
    done += static_cast<size_t>(wrote);
  }
  if (status.ok() && fsync(fd) != 0) {
    status = failed();
  }
  if (close(fd) != 0 && status.ok()) {
    status = failed();
  }
  if (!status.ok()) {
    unlink(path.c_str());
  }
  return status;
}

absl::Status Keygen(const std::string& out, const std::string& type, Context& context) {
  const auto key = x509::GenerateMemberKey(type == "p256" ? x509::MemberKeyType::kP256
                                                          : x509::MemberKeyType::kEd25519);
  if (!key.ok()) {
    return key.status();
  }
  const auto der = x509::MemberKeyToDer(key->get());
  const auto public_pem = x509::MemberKeyToPem(key->get());
  auto private_pem = x509::PrivateKeyToPem(key->get());
  for (const absl::Status& status : {der.status(), public_pem.status(), private_pem.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  const absl::Cleanup wipe = [&private_pem] {
    explicit_bzero(private_pem->data(), private_pem->size());
  };
  if (auto written = WriteNewSecret(out, *private_pem); !written.ok()) {
    return written;
  }
  context.out << *public_pem;
  context.err << "postern: " << base::Printable(out, 512)
              << " holds the private key, which no other machine needs; its public half, above, is "
              << x509::MemberKeySelector(base::AsBytes(*der))
              << ": enrol it with `postern entry create --member-key`\n";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadMemberKeySelector(const std::string& file) {
  const absl::StatusOr<std::string> pem =
      file == "-" ? ReadStandardInput() : base::ReadFile(file, kLargestPem);
  if (!pem.ok()) {
    return pem.status();
  }
  const absl::StatusOr<std::string> der = x509::MemberKeyDerFromPem(*pem);
  if (!der.ok()) {
    return absl::InvalidArgumentError(base::StrCat("--member-key ", base::Printable(file, 512),
                                                   ": ", base::Message(der.status())));
  }
  return x509::MemberKeySelector(base::AsBytes(*der));
}

void AddMember(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("member", "keys of workloads that attest without a token");
  noun->require_subcommand(1);
  struct Options {
    std::string out, type = "ed25519";
  };
  auto o = std::make_shared<Options>();
  CLI::App* keygen = noun->add_subcommand(
      "keygen", "a new private key for postern-proxy --member-key; prints its public half");
  keygen->add_option("--out", o->out, "file to make, readable by this user only")->required();
  keygen->add_option("--type", o->type, "ed25519 or p256")
      ->check(CLI::IsMember({"ed25519", "p256"}))
      ->capture_default_str();
  OnSelected(keygen, context, [o](Context& c) { return Keygen(o->out, o->type, c); });
}

}  // namespace postern::cli
