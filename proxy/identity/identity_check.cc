// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/identity_check.h"

#include <span>

#include "common/base/close_reason.h"
#include "common/base/strings.h"
#include "common/x509/chain_verifier.h"

namespace postern::identity {
namespace {

bool IsAboutTime(base::CloseReason reason) {
  return reason == base::CloseReason::kPeerExpired || reason == base::CloseReason::kPeerNotYetValid;
}

}  // namespace

absl::Status CheckIdentity(const x509::Svid& svid, const x509::TrustBundleSet& bundles,
                           absl::Time now, std::string_view time_remark) {
  if (auto status = svid.CheckUsable(now); !status.ok()) {
    return {status.code(), base::ToAbsl(base::StrCat(base::Message(status), time_remark))};
  }
  const x509::X509StackPtr intermediates = x509::ShareX509Stack(std::span(svid.chain()).subspan(1));
  if (intermediates == nullptr) {
    return absl::InternalError("out of memory");
  }
  for (const auto role : {x509::PeerRole::kServer, x509::PeerRole::kClient}) {
    const x509::ChainVerdict verdict =
        x509::VerifyPeerChain(svid.leaf(), intermediates.get(), bundles, role, now);
    if (!verdict.peer.has_value()) {
      return absl::FailedPreconditionError(
          base::StrCat("the own certificate does not verify against the trust bundle (",
                       base::Token(verdict.error.reason), "): ", verdict.error.detail,
                       IsAboutTime(verdict.error.reason) ? time_remark : std::string_view()));
    }
  }
  return absl::OkStatus();
}

}  // namespace postern::identity
