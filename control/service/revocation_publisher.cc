// SPDX-License-Identifier: Apache-2.0
#include "control/service/revocation_publisher.h"

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/rpc/issuer_server.h"
#include "common/x509/revocation_set.h"
#include "control/service/messages.h"

namespace postern::service {
namespace {

// Beside the list a message holds a signature and a chain.
constexpr size_t kLargestList = static_cast<size_t>(rpc::kMaxResponseBytes) - (64U << 10U);

absl::Status NotPublished(const absl::Status& status) {
  return {status.code(), base::ToAbsl(base::StrCat(
                             "the list of revocations is stored, but not sent to the proxies "
                             "yet (tried again every second): ",
                             base::Message(status)))};
}

}  // namespace

absl::StatusOr<mesh::SignedRevocations> RevocationPublisher::Sign(
    const store::RevocationList& list) {
  v1::RevocationList message = ToMessage(list);
  message.set_trust_domain(ca_.trust_domain().name());
  message.set_issued_at(absl::ToUnixSeconds(clock_.Now()));
  mesh::SignedRevocations made;
  made.version = list.version;
  made.list = message.SerializeAsString();
  if (made.list.size() > kLargestList) {
    return absl::ResourceExhaustedError(
        base::StrCat(list.revocations.size(),
                     " revocations are more than a message holds: revoke identities or "
                     "CAs instead of single certificates, and lift those"));
  }
  absl::StatusOr<ca::CaSignature> signature =
      ca_.SignBytes(base::AsBytes(x509::RevocationStatement(made.list)));
  if (!signature.ok()) {
    return signature.status();
  }
  made.signature = std::move(signature->signature);
  made.signer_chain_der = signature->signer->chain_der;
  signer_ = std::move(signature->signer);
  return made;
}

absl::Status RevocationPublisher::Publish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<const store::RevocationList> list = revocations_.list();
  const std::shared_ptr<const ca::SigningSlot> slot = ca_.current();
  if (list->version == published_ && signer_ == slot) {
    return absl::OkStatus();
  }
  const absl::StatusOr<bool> renumbered = store_.revocations().SetSigner(slot->ca_id);
  absl::Status status = renumbered.status();
  if (status.ok() && *renumbered) {
    status = revocations_.Reload();
    list = revocations_.list();
  }
  if (!status.ok()) {
    return NotPublished(status);
  }
  absl::StatusOr<mesh::SignedRevocations> made = Sign(*list);
  if (!made.ok()) {
    return NotPublished(made.status());
  }
  published_ = list->version;
  mesh_.SetRevocations(*std::move(made));
  return absl::OkStatus();
}

}  // namespace postern::service
