// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/temp_dir.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace postern::testing {
namespace {

[[noreturn]] void Die(std::string_view what, const std::string& path) {
  std::fprintf(stderr, "TempDir: %.*s '%s'\n", static_cast<int>(what.size()), what.data(),
               path.c_str());
  std::abort();
}

}  // namespace

TempDir::TempDir() {
  const char* parent = std::getenv("TMPDIR");
  path_ = std::string(parent != nullptr && *parent != '\0' ? parent : "/tmp") + "/postern.XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) {
    Die("cannot make", path_);
  }
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::Path(std::string_view name) const {
  return path_ + "/" + std::string(name);
}

std::string TempDir::Write(std::string_view name, std::string_view content, int mode) const {
  const std::string path = Path(name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file || chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) {
    Die("cannot write", path);
  }
  return path;
}

}  // namespace postern::testing
