// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/soft_token.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "common/base/strings.h"

#if defined(__SANITIZE_ADDRESS__)
// OpenSSL's PKCS#11 provider (Debian 13) loads the module with RTLD_DEEPBIND, at which the
// sanitizer ends the process. The program's own function comes before the sanitizer's, and leaves
// the flag out.
extern "C" void* dlopen(const char* file, int mode) noexcept {
  static const auto next =
      reinterpret_cast<void* (*)(const char*, int)>(dlsym(RTLD_NEXT, "dlopen"));
  return next(file, mode & ~RTLD_DEEPBIND);
}
#endif

namespace postern::testing {
namespace {

namespace fs = std::filesystem;

std::string Module() {
  for (const char* path :
       {"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"}) {
    if (fs::exists(path)) {
      return path;
    }
  }
  return "";
}

// From OPENSSL_info's `MODULESDIR: "/usr/lib/..."`.
bool HasOpensslModule(int what) {
  const char* text = OPENSSL_info(what);
  const std::vector<std::string_view> parts =
      base::Split(text == nullptr ? std::string_view() : std::string_view(text), '"');
  return fs::exists(base::StrCat(parts.size() > 1 ? parts[1] : parts[0], "/pkcs11.so"));
}

void MustRun(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t quiet;
  posix_spawn_file_actions_init(&quiet);
  posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  int status = -1;
  const int started = posix_spawnp(&pid, argv[0], &quiet, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&quiet);
  if (started != 0 || waitpid(pid, &status, 0) != pid || status != 0) {
    std::fprintf(stderr, "%s %s failed\n", words[0].c_str(), words[1].c_str());
    std::abort();
  }
}

}  // namespace

std::string SoftToken::WhyNot() {
  if (!fs::exists("/usr/bin/softhsm2-util") || Module().empty()) {
    return "needs the package softhsm2";
  }
  if (!HasOpensslModule(OPENSSL_INFO_MODULES_DIR) && !HasOpensslModule(OPENSSL_INFO_ENGINES_DIR)) {
    return "needs the package pkcs11-provider or libengine-pkcs11-openssl";
  }
  return "";
}

SoftToken::SoftToken(const std::string& directory) : directory_(directory) {
  fs::create_directories(directory_ + "/tokens");
  const std::string settings = directory_ + "/softhsm2.conf";
  std::ofstream(settings) << "directories.tokendir = " << directory_ << "/tokens\n"
                          << "objectstore.backend = file\nlog.level = ERROR\n";
  setenv("SOFTHSM2_CONF", settings.c_str(), 1);
  MustRun({"softhsm2-util", "--init-token", "--free", "--label", "postern", "--so-pin", "0815",
           "--pin", std::string(kPin)});
}

void SoftToken::Import(std::string_view name, std::string_view key_pem,
                       std::string_view id_hex) const {
  const std::string file = directory_ + "/import.pem";
  std::ofstream(file) << key_pem;
  MustRun({"softhsm2-util", "--import", file, "--token", "postern", "--label", std::string(name),
           "--id", std::string(id_hex), "--pin", std::string(kPin)});
  fs::remove(file);
}

std::string SoftToken::Uri(std::string_view name) const {
  return base::StrCat("pkcs11:token=postern;object=", name, "?module-path=", Module());
}

}  // namespace postern::testing
