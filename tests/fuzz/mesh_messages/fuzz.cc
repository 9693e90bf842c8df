// SPDX-License-Identifier: Apache-2.0
// What an issuer may send on the mesh stream: a MeshResponse, converted and judged as the proxy
// does.
#include "tests/fuzz/fuzz.h"

#include <google/protobuf/stubs/logging.h>
#include <openssl/err.h>

#include <string>

#include "common/x509/certificate.h"
#include "proxy/identity/issued_revocations.h"
#include "proxy/identity/wire.h"

namespace v1 = postern::v1;
using postern::identity::IssuedRevocations;

namespace {

void CheckBundles(const v1::BundleSet& wire) {
  const auto bundles = postern::identity::BundlesFromWire(wire);
  POSTERN_FUZZ_CHECK(ERR_peek_error() == 0);
  if (!bundles.ok()) {
    return;
  }
  POSTERN_FUZZ_CHECK(bundles->bundles().size() == static_cast<size_t>(wire.bundles_size()));
  for (const auto& [name, bundle] : bundles->bundles()) {
    POSTERN_FUZZ_CHECK(postern::x509::TrustDomain::Parse(name).ok());
    POSTERN_FUZZ_CHECK(!bundle.roots().empty());
    for (const postern::x509::X509Ptr& root : bundle.roots()) {
      POSTERN_FUZZ_CHECK(postern::x509::IsCa(root.get()));
    }
  }
}

void CheckAnswer(const v1::MeshResponse::EndpointUpdate::Answer& wire) {
  if (const auto asked = postern::identity::AddressFromWire(wire.asked()); asked.has_value()) {
    const auto again = postern::identity::AddressFromWire(postern::identity::AddressToWire(*asked));
    POSTERN_FUZZ_CHECK(again.has_value() && again->ip == asked->ip && again->port == asked->port);
  }
  const auto answer = postern::identity::AnswerFromWire(wire);
  // Never "not of the mesh", which would mean plaintext, when somebody was named.
  POSTERN_FUZZ_CHECK(!answer.ok() || answer->has_value() == !wire.endpoints().empty());
  if (answer.ok() && answer->has_value()) {
    POSTERN_FUZZ_CHECK(!(*answer)->expected.empty());
  }
}

void CheckRevocations(const v1::SignedRevocations& wire) {
  IssuedRevocations held;
  if (!held.Restore(wire, std::nullopt, true).ok()) {
    POSTERN_FUZZ_CHECK(held.set() == nullptr && !held.version().has_value());
    return;
  }
  for (const postern::x509::Revocation& one : held.set()->revocations()) {
    const auto canonical = postern::x509::CanonicalSubject(one.by, one.subject);
    POSTERN_FUZZ_CHECK(canonical.ok() && *canonical == one.subject);
    const postern::x509::Revocation* const found = held.set()->Find(one.by, one.subject);
    POSTERN_FUZZ_CHECK(found != nullptr && found->subject == one.subject);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const google::protobuf::LogHandler* const silence =
      google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(silence);
  v1::MeshResponse message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  CheckBundles(message.bundles());
  CheckRevocations(message.revocations());
  for (const auto& answer : message.endpoints().answers()) {
    CheckAnswer(answer);
  }
  POSTERN_FUZZ_CHECK(postern::identity::DocumentsFromWire(message.policy()).size() ==
                     static_cast<size_t>(message.policy().documents_size()));
  return 0;
}
