// SPDX-License-Identifier: Apache-2.0
#include "common/x509/bundle_json.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/certificate.h"
#include "common/x509/openssl_error.h"

namespace postern::x509 {
namespace {

using Json = nlohmann::json;
using BignumPtr = OpensslPtr<BIGNUM, BN_free>;

constexpr int kMaxNesting = 16;

// Reads JSON and refuses what nlohmann::json lets through: one key twice (the second would win
// silently) and deep nesting. The library's exceptions end here.
absl::StatusOr<Json> ParseStrictly(std::string_view text) {
  std::vector<std::set<std::string>> keys_of_open_objects;
  std::string problem;
  const auto check = [&keys_of_open_objects, &problem](int depth, Json::parse_event_t event,
                                                       Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys_of_open_objects.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys_of_open_objects.pop_back();
    } else if (event == Json::parse_event_t::key &&
               !keys_of_open_objects.back().insert(parsed.get<std::string>()).second) {
      problem = base::StrCat("the key '", base::Printable(parsed.get<std::string>(), 64),
                             "' stands twice in one object");
    }
    if (depth > kMaxNesting) {
      problem = "it is nested too deeply";
    }
    return problem.empty();
  };
  try {
    Json json = Json::parse(text, check);
    if (problem.empty()) {
      return json;
    }
  } catch (const Json::exception& error) {
    if (problem.empty()) {
      problem = base::Printable(error.what());
    }
  }
  return absl::InvalidArgumentError("the SPIFFE bundle is bad JSON: " + problem);
}

std::string_view TextMember(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string()
             ? std::string_view(found->get_ref<const std::string&>())
             : std::string_view();
}

// Section 4.2.2: a key of unknown type or use is ignored, not refused.
bool IsX509Authority(const Json& key) {
  const std::string_view kty = TextMember(key, "kty");
  return key.is_object() && TextMember(key, "use") == "x509-svid" &&
         (kty == "EC" || kty == "RSA" || kty == "OKP");
}

absl::StatusOr<X509Ptr> RootOfKey(const Json& key) {
  const auto x5c = key.find("x5c");
  if (x5c == key.end() || !x5c->is_array() || x5c->size() != 1 || !x5c->front().is_string()) {
    return absl::InvalidArgumentError("x5c must be an array of exactly one string");
  }
  std::string der;
  if (!absl::Base64Unescape(x5c->front().get_ref<const std::string&>(), &der)) {
    return absl::InvalidArgumentError("x5c is not base64");
  }
  return CertificateFromDer(base::AsBytes(der));
}

// nullopt: the document trusts nothing.
absl::StatusOr<std::optional<TrustBundle>> BundleOfDocument(const TrustDomain& trust_domain,
                                                            const Json& document) {
  const std::string where = base::StrCat("bundle of '", trust_domain.name(), "': ");
  const auto keys = document.is_object() ? document.find("keys") : document.end();
  if (!document.is_object() || keys == document.end() || !keys->is_array()) {
    return absl::InvalidArgumentError(where + "it needs an array \"keys\"");
  }
  std::vector<X509Ptr> roots;
  for (size_t i = 0; i < keys->size(); ++i) {
    if (!IsX509Authority((*keys)[i])) {
      continue;
    }
    absl::StatusOr<X509Ptr> root = RootOfKey((*keys)[i]);
    if (!root.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat(where, "key ", i + 1, ": ", base::Message(root.status())));
    }
    roots.push_back(*std::move(root));
  }
  if (roots.empty()) {
    return std::nullopt;
  }
  absl::StatusOr<TrustBundle> bundle = TrustBundle::Create(trust_domain, std::move(roots));
  if (!bundle.ok()) {
    return bundle.status();
  }
  return std::optional<TrustBundle>(*std::move(bundle));
}

absl::Status AppendBundle(const TrustDomain& trust_domain, const Json& document,
                          std::vector<TrustBundle>& bundles) {
  absl::StatusOr<std::optional<TrustBundle>> bundle = BundleOfDocument(trust_domain, document);
  if (!bundle.ok()) {
    return bundle.status();
  }
  if (bundle->has_value()) {
    bundles.push_back(**std::move(bundle));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TrustBundle>> BundlesOfMap(const Json& map) {
  if (!map.is_object()) {
    return absl::InvalidArgumentError("\"trust_domains\" must be an object");
  }
  std::vector<TrustBundle> bundles;
  std::set<std::string> seen;  // "td" and "spiffe://td" are one trust domain
  for (const auto& [name, document] : map.items()) {
    absl::StatusOr<TrustDomain> trust_domain = TrustDomain::Parse(name);
    if (!trust_domain.ok()) {
      return trust_domain.status();
    }
    if (!seen.insert(trust_domain->name()).second) {
      return absl::InvalidArgumentError(
          base::StrCat("the trust domain '", trust_domain->name(), "' stands twice"));
    }
    if (absl::Status status = AppendBundle(*trust_domain, document, bundles); !status.ok()) {
      return status;
    }
  }
  return bundles;
}

std::string Base64Url(base::ByteSpan bytes) {
  return absl::WebSafeBase64Escape(base::ToAbsl(base::AsText(bytes)));
}

// A number of the key as JWK writes it: big-endian, padded to `width` bytes (0: no padding).
std::string NumberMember(EVP_PKEY* key, const char* parameter, int width) {
  BIGNUM* read = nullptr;
  EVP_PKEY_get_bn_param(key, parameter, &read);
  const BignumPtr number(read);
  if (number == nullptr) {
    return {};
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(std::max(width, BN_num_bytes(number.get()))));
  BN_bn2binpad(number.get(), bytes.data(), static_cast<int>(bytes.size()));
  return Base64Url(bytes);
}

// RFC 7518 section 6, RFC 8037 section 2. A bundle holds keys of these three types only.
Json PublicMembers(EVP_PKEY* key) {
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC: {
      const int width = (EVP_PKEY_get_bits(key) + 7) / 8;
      return {{"kty", "EC"},
              {"crv", width == 32 ? "P-256" : "P-384"},
              {"x", NumberMember(key, OSSL_PKEY_PARAM_EC_PUB_X, width)},
              {"y", NumberMember(key, OSSL_PKEY_PARAM_EC_PUB_Y, width)}};
    }
    case EVP_PKEY_ED25519: {
      std::array<uint8_t, 32> raw{};
      size_t size = raw.size();
      EVP_PKEY_get_raw_public_key(key, raw.data(), &size);
      return {{"kty", "OKP"}, {"crv", "Ed25519"}, {"x", Base64Url(raw)}};
    }
    default:
      return {{"kty", "RSA"},
              {"n", NumberMember(key, OSSL_PKEY_PARAM_RSA_N, 0)},
              {"e", NumberMember(key, OSSL_PKEY_PARAM_RSA_E, 0)}};
  }
}

Json KeyOfRoot(const X509* root) {
  Json key = PublicMembers(X509_get0_pubkey(root));
  key["use"] = "x509-svid";
  key["x5c"] = Json::array({absl::Base64Escape(CertificateToDer(root))});
  return key;
}

Json KeysOf(const TrustBundle& bundle) {
  Json keys = Json::array();
  for (const X509Ptr& root : bundle.roots()) {
    keys.push_back(KeyOfRoot(root.get()));
  }
  return keys;
}

// A member that is an integer of at least zero; nullopt: there is none.
absl::StatusOr<std::optional<uint64_t>> NumberOf(const Json& document, const char* name) {
  const auto found = document.find(name);
  if (found == document.end()) {
    return std::optional<uint64_t>();
  }
  if (!found->is_number_unsigned()) {
    return absl::InvalidArgumentError(base::StrCat(name, " must be an integer from 0 on"));
  }
  return std::optional<uint64_t>(found->get<uint64_t>());
}

}  // namespace

absl::StatusOr<std::vector<TrustBundle>> BundlesFromSpiffeJson(std::string_view json,
                                                               const TrustDomain& own) {
  const ErrorQueueGuard guard;
  const absl::StatusOr<Json> document = ParseStrictly(json);
  if (!document.ok()) {
    return document.status();
  }
  const bool is_map = document->is_object() && document->contains("trust_domains");
  if (is_map && document->contains("keys")) {
    return absl::InvalidArgumentError(
        "the SPIFFE bundle holds both \"trust_domains\" and \"keys\"; one of them is meant");
  }
  if (is_map) {
    return BundlesOfMap((*document)["trust_domains"]);
  }
  std::vector<TrustBundle> bundles;
  if (absl::Status status = AppendBundle(own, *document, bundles); !status.ok()) {
    return status;
  }
  return bundles;
}

std::string BundlesToSpiffeJson(const TrustBundleSet& bundles) {
  const ErrorQueueGuard guard;
  Json domains = Json::object();
  for (const auto& [name, bundle] : bundles.bundles()) {
    domains[name]["keys"] = KeysOf(bundle);
  }
  Json map = Json::object();
  map["trust_domains"] = std::move(domains);
  return map.dump();
}

absl::StatusOr<SpiffeBundle> SpiffeBundleFromJson(std::string_view json,
                                                  const TrustDomain& trust_domain) {
  const ErrorQueueGuard guard;
  const absl::StatusOr<Json> document = ParseStrictly(json);
  if (!document.ok()) {
    return document.status();
  }
  if (document->is_object() && document->contains("trust_domains")) {
    return absl::InvalidArgumentError(base::StrCat(
        "it is a map of trust domains, and not the bundle of '", trust_domain.name(), "' alone"));
  }
  absl::StatusOr<std::optional<TrustBundle>> bundle = BundleOfDocument(trust_domain, *document);
  if (!bundle.ok()) {
    return bundle.status();
  }
  if (bundle->has_value() && (*bundle)->roots().size() > kMaxRootsOfDocument) {
    return absl::InvalidArgumentError(
        base::StrCat("it holds more than ", kMaxRootsOfDocument, " roots"));
  }
  const auto sequence = NumberOf(*document, "spiffe_sequence");
  const auto hint = NumberOf(*document, "spiffe_refresh_hint");
  if (!sequence.ok() || !hint.ok()) {
    return sequence.ok() ? hint.status() : sequence.status();
  }
  SpiffeBundle read{*std::move(bundle), *sequence, std::nullopt};
  if (hint->has_value() && **hint > 0) {
    constexpr uint64_t kLongest = 366ULL * 24 * 3600;  // so that no arithmetic overflows
    read.refresh_hint = absl::Seconds(static_cast<int64_t>(std::min(**hint, kLongest)));
  }
  return read;
}

std::string SpiffeBundleToJson(const TrustBundle& bundle, std::optional<uint64_t> sequence,
                               std::optional<absl::Duration> refresh_hint) {
  const ErrorQueueGuard guard;
  Json document = Json::object();
  document["keys"] = KeysOf(bundle);
  if (sequence.has_value()) {
    document["spiffe_sequence"] = *sequence;
  }
  if (refresh_hint.has_value()) {
    document["spiffe_refresh_hint"] = absl::ToInt64Seconds(*refresh_hint);
  }
  return document.dump();
}

}  // namespace postern::x509
