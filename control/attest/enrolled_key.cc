// SPDX-License-Identifier: Apache-2.0
#include "control/attest/enrolled_key.h"

#include <utility>

#include "common/base/bytes.h"
#include "common/base/strings.h"
#include "common/x509/member_key.h"
#include "common/x509/member_proof.h"
#include "control/attest/refusal.h"

namespace postern::attest {
namespace {

class EnrolledKeyAttestor : public Attestor {
 public:
  EnrolledKeyAttestor(ChallengeTable& challenges, x509::SpiffeId issuer)
      : challenges_(challenges), issuer_(std::move(issuer)) {}

  absl::StatusOr<Attestation> Attest(const Evidence& evidence) override {
    const auto* shown = std::get_if<EnrolledKeyEvidence>(&evidence);
    if (shown == nullptr || shown->csr_public_key_der.empty()) {
      return Refuse(RefusalReason::kInternal, "evidence went to the wrong attestor");
    }
    if (shown->connection.empty()) {
      return Refuse(RefusalReason::kUnattested,
                    "an enrolled key attests over TLS alone; a unix socket is evidence by itself");
    }
    const base::ByteSpan spki = base::AsBytes(shown->public_key_der);
    const absl::StatusOr<x509::PkeyPtr> key = x509::MemberKeyFromDer(spki);
    if (!key.ok()) {
      return Refuse(RefusalReason::kBadMemberKey, base::Message(key.status()));
    }
    if (absl::Status used = challenges_.Use(shown->connection, shown->challenge); !used.ok()) {
      return used;
    }
    const absl::Status proven = x509::VerifyMemberStatement(
        key->get(), {shown->challenge, base::AsBytes(shown->csr_public_key_der), issuer_},
        base::AsBytes(shown->signature));
    if (!proven.ok()) {
      return Refuse(RefusalReason::kBadProof, base::Message(proven));
    }
    return Attestation{.selectors = {x509::MemberKeySelector(spki)}, .entry_id = {}};
  }

 private:
  ChallengeTable& challenges_;
  const x509::SpiffeId issuer_;
};

}  // namespace

std::unique_ptr<Attestor> MakeEnrolledKeyAttestor(ChallengeTable& challenges,
                                                  x509::SpiffeId issuer) {
  return std::make_unique<EnrolledKeyAttestor>(challenges, std::move(issuer));
}

}  // namespace postern::attest
