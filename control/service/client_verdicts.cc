// SPDX-License-Identifier: Apache-2.0
#include "control/service/client_verdicts.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <utility>

#include "common/base/strings.h"
#include "common/rpc/issuer_server.h"
#include "common/x509/certificate.h"
#include "common/x509/digest.h"

namespace postern::service {
namespace {

// Of all that the client presented, each part with its length. Two clients with one digest
// presented the same certificates.
base::Sha256Digest DigestOf(const grpc::AuthContext& connection) {
  std::string text;
  for (const char* property :
       {GRPC_X509_PEM_CERT_PROPERTY_NAME, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME}) {
    const auto values = connection.FindPropertyValues(property);
    base::StrAppend(text, values.size(), ";");
    for (const grpc::string_ref& value : values) {
      base::StrAppend(text, value.size(), ":", std::string_view(value.data(), value.size()));
    }
  }
  return x509::Sha256(base::AsBytes(text));
}

}  // namespace

x509::ChainVerdict ClientVerdicts::Verify(const grpc::AuthContext& connection) {
  const std::shared_ptr<const ca::SigningSlot> slot = ca_.current();
  const std::shared_ptr<const x509::TrustBundleSet> bundles = ca_.bundles();
  const base::Sha256Digest digest = DigestOf(connection);
  const absl::Time now = clock_.Now();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bundles_ != bundles || slot_ != slot) {
      kept_.Clear();
      bundles_ = bundles;
      slot_ = slot;
    }
    if (const x509::VerifiedPeer* known = kept_.Find(digest, now)) {
      return {*known, {}};
    }
  }
  x509::ChainVerdict verdict =
      rpc::VerifyClient(connection, *bundles, {slot->chain, slot->chain_pem}, now);
  if (verdict.peer.has_value()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bundles_ == bundles && slot_ == slot) {
      kept_.Add(digest, *verdict.peer);
    }
  }
  return verdict;
}

x509::ChainVerdict ClientVerdicts::VerifyForRenewal(const grpc::AuthContext& connection) {
  x509::ChainVerdict strict = Verify(connection);
  if (strict.peer.has_value() || strict.error.reason != base::CloseReason::kPeerExpired) {
    return strict;
  }
  const x509::X509Ptr leaf = rpc::ClientCertificate(connection);
  if (leaf == nullptr || x509::NotAfter(leaf.get()) > clock_.Now()) {
    return strict;  // a CA of its chain has expired: nothing below that is renewed
  }
  const std::shared_ptr<const ca::SigningSlot> slot = ca_.current();
  const std::shared_ptr<const x509::TrustBundleSet> bundles = ca_.bundles();
  return rpc::VerifyClient(connection, *bundles, {slot->chain, slot->chain_pem},
                           x509::NotAfter(leaf.get()) - absl::Seconds(1));
}

}  // namespace postern::service
