// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/ca_mount.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::testing {
namespace {

namespace fs = std::filesystem;

// In place and without a sync: tests write thousands.
void MustWrite(const std::string& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (!file.good() || chmod(path.c_str(), 0600) != 0) {
    std::fprintf(stderr, "cannot write %s\n", path.c_str());
    std::abort();
  }
}

// Signing certificate first, then what is above it up to below the root.
std::string ChainPem(const TestCa& ca) {
  return x509::CertificatesToPem(ca.Intermediates());
}

}  // namespace

CaMount::CaMount(std::string path, CaFileNames names) : path_(std::move(path)), names_(names) {
  fs::create_directories(path_);
}

void CaMount::WriteTo(const std::string& directory, const TestCa& ca,
                      std::string_view roots_pem) const {
  const auto at = [&directory](std::string_view name) {
    return base::StrCat(directory, "/", name);
  };
  const std::string roots = roots_pem.empty() ? ca.RootPem() : std::string(roots_pem);
  MustWrite(at(roots_name()), roots);
  if (names_ == CaFileNames::kIstio) {
    // Istio's own tool puts the root behind the chain.
    MustWrite(at("cert-chain.pem"), ChainPem(ca) + ca.RootPem());
    MustWrite(at(signing_name()), x509::CertificateToPem(ca.certificate()));
  } else {
    MustWrite(at(signing_name()), ChainPem(ca));
  }
  MustWrite(at(key_name()), KeyPem(ca.key()));
}

void CaMount::Write(const TestCa& ca, std::string_view roots_pem) const {
  WriteTo(path_, ca, roots_pem);
}

void CaMount::Swap(const TestCa& ca, std::string_view roots_pem) {
  const std::string version = base::StrCat("..version_", ++swaps_);
  fs::create_directory(Path(version));
  WriteTo(Path(version), ca, roots_pem);
  fs::create_directory_symlink(version, Path("..data_tmp"));
  fs::rename(Path("..data_tmp"), Path("..data"));
  for (const auto& file : fs::directory_iterator(Path(version))) {
    const std::string name = file.path().filename().string();
    if (!fs::is_symlink(Path(name))) {
      fs::create_symlink("..data/" + name, Path(name));
    }
  }
  if (swaps_ > 1) {
    fs::remove_all(Path(base::StrCat("..version_", swaps_ - 1)));
  }
}

std::string CaMount::Path(std::string_view name) const {
  return base::StrCat(path_, "/", name);
}

std::string CaMount::Read(std::string_view name) const {
  return *base::ReadFile(Path(name));
}

void CaMount::Put(std::string_view name, std::string_view content) const {
  MustWrite(Path(name), content);
}

std::string_view CaMount::signing_name() const {
  return names_ == CaFileNames::kIstio ? "ca-cert.pem"
         : names_ == CaFileNames::kTls ? "tls.crt"
                                       : "crt.pem";
}

std::string_view CaMount::key_name() const {
  return names_ == CaFileNames::kIstio ? "ca-key.pem"
         : names_ == CaFileNames::kTls ? "tls.key"
                                       : "key.pem";
}

std::string_view CaMount::roots_name() const {
  return names_ == CaFileNames::kIstio ? "root-cert.pem"
         : names_ == CaFileNames::kTls ? "ca.crt"
                                       : "ca-bundle.crt";
}

}  // namespace postern::testing
