// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/x509/openssl_ptr.h"
#include "control/ca/ca_signer.h"
#include "control/ca/key_files.h"
#include "control/store/types.h"

// New CAs and the order in which keys and records are written. Internal to control/ca.
namespace postern::ca {

// A key of ours and the certificate that was made for it. Move-only.
struct NewCa {
  x509::PkeyPtr key;
  x509::X509Ptr certificate;
  store::CaRecord record;
};

// A P-256 key and its CA certificate in the given slot: signed by `issuer`, or by itself when that
// is null, for the lifetime that the options give and no longer than the issuer. Internal: OpenSSL.
absl::StatusOr<NewCa> MakeCa(const CaOptions& options, store::CaRole role, store::CaState state,
                             const NewCa* issuer, absl::Time now);

// Writes the keys under preliminary names, then the records in one transaction. KeyFiles::Adopt
// follows in the caller; a crash in between leaves that to the next start. The store's and the
// file system's errors pass through; nothing that counts is left behind then.
absl::Status StoreNewCas(std::span<const NewCa> made, const KeyFiles& keys, store::CaStore& store);

}  // namespace postern::ca
