// SPDX-License-Identifier: Apache-2.0
// Engines are deprecated since OpenSSL 3.0, and Debian 12 has nothing else for PKCS#11.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "control/ca/pkcs11_key.h"

#include <openssl/crypto.h>
#include <openssl/provider.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#if !defined(OPENSSL_NO_ENGINE) && __has_include(<openssl/engine.h>)
#include <openssl/engine.h>
#define POSTERN_HAS_ENGINES 1
#else
#define POSTERN_HAS_ENGINES 0
#endif

#include <cstdlib>
#include <cstring>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/x509/openssl_error.h"
#include "common/x509/public_key.h"

namespace postern::ca {
namespace {

constexpr std::string_view kScheme = "pkcs11:";
constexpr size_t kMostPinBytes = 256;

using x509::OpensslPtr;
using UiMethodPtr = OpensslPtr<UI_METHOD, UI_destroy_method>;
using StoreInfoPtr = OpensslPtr<OSSL_STORE_INFO, OSSL_STORE_INFO_free>;
using StorePtr = OpensslPtr<OSSL_STORE_CTX, OSSL_STORE_close>;

// A PIN, wiped when it dies; empty: none. Never moved: a short text would stay behind.
struct Pin {
  Pin() = default;
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  ~Pin() { OPENSSL_cleanse(text.data(), text.size()); }
  std::string text;
  int asked = 0;
};

struct SplitUri {
  std::string key;     // without its query, private keys only
  std::string module;  // empty: not named
};

// "%2f" and the like (RFC 3986 section 2.1); nullopt: malformed, or a NUL.
std::optional<std::string> PercentDecoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const absl::StatusOr<std::string> byte = base::FromHex(text.substr(i + 1, 2));
    if (!byte.ok() || byte->size() != 1 || byte->front() == '\0') {
      return std::nullopt;
    }
    out += *byte;
    i += 2;
  }
  return out;
}

absl::StatusOr<SplitUri> Split(std::string_view uri) {
  const auto wrong = [](std::string_view what) {
    return absl::InvalidArgumentError(base::StrCat("not a usable PKCS#11 URI: ", what));
  };
  if (!uri.starts_with(kScheme)) {
    return wrong("it does not begin with 'pkcs11:' (RFC 7512)");
  }
  const size_t question = uri.find('?');
  SplitUri split{.key = std::string(uri.substr(0, question)), .module = {}};
  bool says_type = false;
  for (const std::string_view attribute :
       base::Split(std::string_view(split.key).substr(kScheme.size()), ';')) {
    if (attribute.starts_with("type=")) {
      says_type = true;
      if (attribute != "type=private") {
        return wrong("its type is not 'private'");
      }
    }
  }
  if (!says_type) {
    split.key += split.key.size() == kScheme.size() ? "type=private" : ";type=private";
  }
  const std::string_view query =
      question == std::string_view::npos ? std::string_view() : uri.substr(question + 1);
  for (const std::string_view attribute : base::Split(query, '&')) {
    if (attribute.starts_with("pin-value=") || attribute.starts_with("pin-source=")) {
      return wrong("a PIN does not belong into it: put the PIN into a file of its own");
    }
    constexpr std::string_view kModule = "module-path=";
    if (attribute.starts_with(kModule)) {
      const auto path = PercentDecoded(attribute.substr(kModule.size()));
      if (!path.has_value() || !path->starts_with('/')) {
        return wrong("its module-path is no absolute path");
      }
      split.module = *path;
    } else if (!attribute.empty()) {
      return wrong("its query may hold a module-path and nothing else");
    }
  }
  return split;
}

absl::Status ReadPin(const std::string& path, Pin& pin) {
  if (path.empty()) {
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> text = base::ReadMountedSecret(path, kMostPinBytes);
  if (!text.ok()) {
    return text.status();
  }
  pin.text = *text;
  OPENSSL_cleanse(text->data(), text->size());
  while (!pin.text.empty() && (pin.text.back() == '\n' || pin.text.back() == '\r')) {
    pin.text.pop_back();
  }
  if (pin.text.empty()) {
    return absl::InvalidArgumentError(base::StrCat("'", base::Printable(path), "' holds no PIN"));
  }
  return absl::OkStatus();
}

// OpenSSL's question for the PIN. Answered once: a second question means that it was wrong.
int AnswerPin(char* buffer, int size, int /*for_writing*/, void* data) {
  auto* pin = static_cast<Pin*>(data);
  if (pin->text.empty() || pin->asked++ > 0 || size <= static_cast<int>(pin->text.size())) {
    return -1;
  }
  std::memcpy(buffer, pin->text.data(), pin->text.size());
  return static_cast<int>(pin->text.size());
}

absl::Status NoSuchKey(const SplitUri& uri, std::string_view how) {
  return absl::NotFoundError(
      base::StrCat("the PKCS#11 ", how, " finds no private key '", base::Printable(uri.key),
                   "' (token away, another name, or a wrong PIN): ", x509::TakeOpensslReason()));
}

// The provider, in a library context of its own: loading it into the default one would change how
// everything else in this process finds its algorithms. Never unloaded: keys refer to it.
struct Provider {
  OSSL_LIB_CTX* context = nullptr;
  bool loaded = false;
  std::string module;
};

Provider LoadProvider(const std::string& module) {
  Provider provider;
  provider.module = module;
  if (!module.empty()) {
    setenv("PKCS11_PROVIDER_MODULE", module.c_str(), 1);  // read once, while it is loaded
  }
  provider.context = OSSL_LIB_CTX_new();
  // It hashes with the default one's digests where the token does not hash.
  provider.loaded = provider.context != nullptr &&
                    OSSL_PROVIDER_load(provider.context, "default") != nullptr &&
                    OSSL_PROVIDER_load(provider.context, "pkcs11") != nullptr;
  return provider;
}

// pkcs11-provider 1.0 hands a key out twice that it has handed out before, and EVP_PKEY_eq does not
// know its two for one.
bool AreOneKey(EVP_PKEY* one, EVP_PKEY* other) {
  const absl::StatusOr<std::string> first = x509::PublicKeyToDer(one);
  const absl::StatusOr<std::string> second = x509::PublicKeyToDer(other);
  return first.ok() && second.ok() && *first == *second;
}

absl::StatusOr<x509::PkeyPtr> LoadByProvider(const Provider& provider, const SplitUri& uri,
                                             Pin& pin) {
  const UiMethodPtr ui(UI_UTIL_wrap_read_pem_callback(&AnswerPin, 0));
  if (ui == nullptr) {
    return x509::OpensslFailure("cannot ask for a PIN");
  }
  const StorePtr store(OSSL_STORE_open_ex(uri.key.c_str(), provider.context, nullptr, ui.get(),
                                          &pin, nullptr, nullptr, nullptr));
  if (store == nullptr) {
    return NoSuchKey(uri, "provider");
  }
  x509::PkeyPtr found;
  while (OSSL_STORE_eof(store.get()) == 0) {
    const StoreInfoPtr info(OSSL_STORE_load(store.get()));
    if (info == nullptr || OSSL_STORE_INFO_get_type(info.get()) != OSSL_STORE_INFO_PKEY) {
      continue;
    }
    x509::PkeyPtr key(OSSL_STORE_INFO_get1_PKEY(info.get()));
    if (found != nullptr && !AreOneKey(found.get(), key.get())) {
      return absl::InvalidArgumentError(base::StrCat(
          "several private keys match '", base::Printable(uri.key), "': name token, object or id"));
    }
    found = std::move(key);
  }
  return found == nullptr ? absl::StatusOr<x509::PkeyPtr>(NoSuchKey(uri, "provider"))
                          : std::move(found);
}

#if POSTERN_HAS_ENGINES
struct Engine {
  ENGINE* engine = nullptr;  // never released: keys refer to it
  std::string module;
};

Engine LoadEngine(const std::string& module) {
  ENGINE_load_dynamic();
  ENGINE* engine = ENGINE_by_id("pkcs11");
  if (engine != nullptr && !module.empty() &&
      ENGINE_ctrl_cmd_string(engine, "MODULE_PATH", module.c_str(), 0) != 1) {
    engine = nullptr;
  }
  if (engine != nullptr && ENGINE_init(engine) != 1) {
    engine = nullptr;
  }
  return {engine, module};
}

absl::StatusOr<x509::PkeyPtr> LoadByEngine(ENGINE* engine, const SplitUri& uri, Pin& pin) {
  // Never the engine's own question, which would be put to a terminal.
  const UiMethodPtr ui(UI_UTIL_wrap_read_pem_callback(&AnswerPin, 0));
  if (ui == nullptr) {
    return x509::OpensslFailure("cannot ask for a PIN");
  }
  x509::PkeyPtr key(ENGINE_load_private_key(engine, uri.key.c_str(), ui.get(), &pin));
  return key == nullptr ? absl::StatusOr<x509::PkeyPtr>(NoSuchKey(uri, "engine")) : std::move(key);
}
#endif

absl::Status OtherModule(const std::string& first) {
  return absl::FailedPreconditionError(base::StrCat("the PKCS#11 module was loaded from '",
                                                    base::Printable(first),
                                                    "' before; another needs a restart"));
}

}  // namespace

absl::Status CheckPkcs11Uri(std::string_view uri) {
  return Split(uri).status();
}

absl::StatusOr<x509::PkeyPtr> LoadPkcs11Key(const Pkcs11Location& location) {
  const x509::ErrorQueueGuard guard;
  const absl::StatusOr<SplitUri> uri = Split(location.uri);
  if (!uri.ok()) {
    return uri.status();
  }
  Pin pin;
  if (absl::Status status = ReadPin(location.pin_file, pin); !status.ok()) {
    return status;
  }
  static const Provider provider = LoadProvider(uri->module);
  if (provider.loaded) {
    return provider.module == uri->module ? LoadByProvider(provider, *uri, pin)
                                          : OtherModule(provider.module);
  }
#if POSTERN_HAS_ENGINES
  static const Engine engine = LoadEngine(uri->module);
  if (engine.engine != nullptr) {
    return engine.module == uri->module ? LoadByEngine(engine.engine, *uri, pin)
                                        : OtherModule(engine.module);
  }
#endif
  return absl::FailedPreconditionError(base::StrCat(
      "OpenSSL has no way to PKCS#11 tokens, or it does not load (", x509::TakeOpensslReason(),
      "): install pkcs11-provider (Debian 13) or libengine-pkcs11-openssl "
      "(Debian 12), and check the module-path"));
}

}  // namespace postern::ca
