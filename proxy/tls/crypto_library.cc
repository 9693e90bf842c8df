// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/crypto_library.h"

#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace postern::tls {
namespace {

constexpr const char* kName = "postern";

// Of a default provider's algorithms those that TLS here has use for, and the end.
class Selection {
 public:
  using Judge = bool (*)(std::string_view name, std::string_view properties);
  // False: nothing is left.
  bool Fill(OSSL_PROVIDER* whole, int operation, Judge keeps);
  const OSSL_ALGORITHM* algorithms() const { return kept_.data(); }

 private:
  std::vector<OSSL_ALGORITHM> kept_;
};

bool Selection::Fill(OSSL_PROVIDER* whole, int operation, Judge keeps) {
  int no_cache = 0;
  const OSSL_ALGORITHM* one = OSSL_PROVIDER_query_operation(whole, operation, &no_cache);
  for (; one != nullptr && one->algorithm_names != nullptr; ++one) {
    const std::string_view names(one->algorithm_names);
    if (keeps(names.substr(0, names.find(':')), one->property_definition)) {
      kept_.push_back(*one);
    }
  }
  const bool found = !kept_.empty();
  kept_.push_back({nullptr, nullptr, nullptr, nullptr});
  return found;
}

// With the default provider's own dispatch functions and context, as OpenSSL's test of filtering
// providers does it.
struct Filter {
  OSSL_PROVIDER* whole = nullptr;  // the process's default provider
  Selection decoders;
  Selection ciphers;  // all names that are known are gone through for each key that is made
};

Filter& TheFilter() {
  static auto* const filter = new Filter();
  return *filter;
}

template <size_t N>
bool IsOneOf(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsDecoderOfCertificates(std::string_view name, std::string_view properties) {
  constexpr std::array<std::string_view, 4> kKeys = {"EC", "RSA", "RSA-PSS", "ED25519"};
  return IsOneOf(kKeys, name) && properties.find("input=der") != std::string_view::npos &&
         properties.find("structure=SubjectPublicKeyInfo") != std::string_view::npos;
}

bool IsCipherOfSuites(std::string_view name, std::string_view /*properties*/) {
  constexpr std::array<std::string_view, 3> kCiphers = {"AES-128-GCM", "AES-256-GCM",
                                                        "ChaCha20-Poly1305"};
  return IsOneOf(kCiphers, name);
}

const OSSL_ALGORITHM* Query(void* /*provider*/, int operation, int* no_cache) noexcept {
  const Filter& filter = TheFilter();
  switch (operation) {
    case OSSL_OP_DECODER:
      *no_cache = 0;
      return filter.decoders.algorithms();
    case OSSL_OP_CIPHER:
      *no_cache = 0;
      return filter.ciphers.algorithms();
    default:
      return OSSL_PROVIDER_query_operation(filter.whole, operation, no_cache);
  }
}

int Capabilities(void* /*provider*/, const char* capability, OSSL_CALLBACK* callback,
                 void* arg) noexcept {
  return OSSL_PROVIDER_get_capabilities(TheFilter().whole, capability, callback, arg);
}

using Function = void (*)();

int Init(const OSSL_CORE_HANDLE* /*core*/, const OSSL_DISPATCH* /*in*/, const OSSL_DISPATCH** out,
         void** provider) noexcept {
  static const std::array<OSSL_DISPATCH, 3> functions = {
      {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, reinterpret_cast<Function>(&Query)},
       {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, reinterpret_cast<Function>(&Capabilities)},
       {0, nullptr}}};
  *provider = OSSL_PROVIDER_get0_provider_ctx(TheFilter().whole);
  *out = functions.data();
  return 1;
}

int CountProvider(OSSL_PROVIDER* /*provider*/, void* count) noexcept {
  ++*static_cast<int*>(count);
  return 1;
}

// The default provider and no other: else somebody has decided what cryptography comes from where.
bool HasDefaultProviderAlone() {
  int count = 0;
  return OSSL_PROVIDER_available(nullptr, "default") == 1 &&
         OSSL_PROVIDER_do_all(nullptr, &CountProvider, &count) == 1 && count == 1;
}

bool FillFilter() {
  Filter& filter = TheFilter();
  filter.whole = OSSL_PROVIDER_load(nullptr, "default");  // for good
  return filter.whole != nullptr &&
         filter.decoders.Fill(filter.whole, OSSL_OP_DECODER, &IsDecoderOfCertificates) &&
         filter.ciphers.Fill(filter.whole, OSSL_OP_CIPHER, &IsCipherOfSuites);
}

OSSL_LIB_CTX* MakeLibrary() {
  const bool caches_decoders =
      OPENSSL_version_major() > 3 || (OPENSSL_version_major() == 3 && OPENSSL_version_minor() >= 2);
  OSSL_LIB_CTX* library = nullptr;
  if (!caches_decoders && HasDefaultProviderAlone() && FillFilter()) {
    library = OSSL_LIB_CTX_new();
    if (library != nullptr && (OSSL_PROVIDER_add_builtin(library, kName, &Init) != 1 ||
                               OSSL_PROVIDER_load(library, kName) == nullptr)) {
      OSSL_LIB_CTX_free(library);
      library = nullptr;
    }
  }
  ERR_clear_error();
  return library;
}

}  // namespace

OSSL_LIB_CTX* TlsLibraryFor(const EVP_PKEY* own_key) {
  static OSSL_LIB_CTX* const library = MakeLibrary();
  return EVP_PKEY_get_base_id(own_key) == EVP_PKEY_EC ? library : nullptr;
}

}  // namespace postern::tls
