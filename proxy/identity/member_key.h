// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"

namespace postern::v1 {
class CertifyRequest;
class ChallengeResponse;
}  // namespace postern::v1

namespace postern::identity {

// The --member-key: a private key whose public half an entry of the issuer's names. The number
// lives in locked memory (x509::LockKeyMemory) and only as long as this does: it is read for each
// attempt, like a join token. Main loop only; never formatted.
class MemberKey {
 public:
  // PermissionDenied: others may read the file, or it belongs to neither root nor this user;
  // NotFound; InvalidArgument: no unencrypted Ed25519 or P-256 key in PEM form. The message names
  // the file and holds nothing of it.
  static absl::StatusOr<MemberKey> Load(const std::string& path);

  // Puts the answer to `challenge` into `request` as its evidence, for the key of its CSR
  // (SubjectPublicKeyInfo, DER). `issuer` is whom the channel was verified to lead to.
  // FailedPrecondition: the challenge is another issuer's, or no challenge.
  absl::Status Answer(const v1::ChallengeResponse& challenge, const x509::SpiffeId& issuer,
                      base::ByteSpan csr_public_key, v1::CertifyRequest& request) const;

 private:
  MemberKey(x509::PkeyPtr key, std::string public_key_der)
      : key_(std::move(key)), public_key_der_(std::move(public_key_der)) {}
  x509::PkeyPtr key_;
  std::string public_key_der_;
};

}  // namespace postern::identity
