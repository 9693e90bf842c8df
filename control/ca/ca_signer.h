// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/x509/openssl_ptr.h"
#include "common/x509/spiffe_id.h"
#include "common/x509/trust_bundle.h"
#include "control/store/store.h"

namespace postern::ca {

inline constexpr absl::Duration kRootLifetime = absl::Hours(24 * 3652);
inline constexpr absl::Duration kIntermediateLifetime = absl::Hours(24 * 365);
inline constexpr absl::Duration kCaBackdate = absl::Hours(24);  // and the issuer's own certificate
inline constexpr absl::Duration kLeafBackdate = absl::Minutes(2);

using SerialBytes = std::array<uint8_t, 16>;

// 128 bits of OpenSSL's random generator. Internal when it fails.
absl::StatusOr<SerialBytes> RandomSerial();

// What main decides about the CA.
struct CaOptions {
  std::string state_dir;  // exists, 0700; keys go to its "keys"
  x509::TrustDomain trust_domain;
  absl::Duration root_lifetime = kRootLifetime;  // tests shorten both
  absl::Duration intermediate_lifetime = kIntermediateLifetime;
  // Where serial numbers come from; empty: RandomSerial.
  std::function<absl::StatusOr<SerialBytes>()> serial_source = {};
};

// What is to be signed. Everything but the key comes from the issuer, never from the CSR.
struct SvidTemplate {
  x509::SpiffeId id;
  EVP_PKEY* public_key;  // borrowed
  absl::Duration ttl;    // from now; cut to what the chain has left
  absl::Duration backdate = kLeafBackdate;
};

// One CA that can sign: certificate, key, and the path up to its root. Immutable.
struct SigningSlot {
  std::string ca_id;
  x509::PkeyPtr key;
  std::vector<x509::X509Ptr> chain;  // the signing certificate first, then up to below the root
  std::vector<std::string> chain_der;
  std::string chain_pem;
  x509::X509Ptr root;
  absl::Time not_before;  // the latest of chain and root
  absl::Time not_after;   // the earliest
};

// Bytes that the CA vouches for, and the slot whose chain and root go with the signature.
struct CaSignature {
  std::string signature;  // ECDSA (DER) or RSA PKCS #1 with SHA-256, or Ed25519: as the key is
  std::shared_ptr<const SigningSlot> signer;
};

struct SignedSvid {
  std::string leaf_der;
  std::shared_ptr<const SigningSlot> signer;  // whose chain goes with the leaf
  std::string serial;                         // as x509::SerialHex gives it
  absl::Time not_before;
  absl::Time not_after;
};

// What a CA from outside says of roots.
struct PluggedRoots {
  std::vector<x509::X509Ptr> trusted;
  std::vector<base::Sha256Digest> retired = {};  // see TrustBundle::SetRetiredRoots
};

class KeyFiles;

// The certificate authority of one trust domain: holds the signing key, makes root and intermediate
// on first start, signs X.509-SVIDs with the current slot. The next slot, its activation and its
// end belong to CaRotation, which tells this one to look again. Made by main after the store; the
// store and the clock outlive it. Thread-safe.
class CaSigner {
 public:
  // Loads the CA of the store, or makes it when the store has none: root and intermediate, P-256,
  // keys in <state_dir>/keys/{root,intermediate}-<id>.pem (0600, directory 0700), certificates in
  // the store in one transaction. A crash in between leaves either nothing or a whole CA. The
  // root's key is not needed and not read once the intermediate exists: it can be taken offline.
  // FailedPrecondition: keys without a CA in the store (a lost database: restore it, or move the
  // keys away), or the intermediate's key is missing or does not fit. The store's errors pass
  // through.
  static absl::StatusOr<std::unique_ptr<CaSigner>> Open(CaOptions options, store::CaStore& store,
                                                        const base::Clock& clock);

  // A signer whose CA comes from outside (PluggedCaKeeper): nothing is read from or made in the
  // store. InvalidArgument: a root that cannot be trusted.
  static absl::StatusOr<std::unique_ptr<CaSigner>> OpenPlugged(
      CaOptions options, std::shared_ptr<const SigningSlot> slot, PluggedRoots roots,
      store::Version version, const base::Clock& clock);

  // For PluggedCaKeeper: what signs from now on, and what is to be trusted from now on.
  // InvalidArgument: as above; the roots before go on.
  void UseSlot(std::shared_ptr<const SigningSlot> slot);
  absl::Status UseRoots(PluggedRoots roots, store::Version version);

  // Signs with the current slot, by its key (ECDSA or RSA with SHA-256, or Ed25519): empty subject,
  // SAN (critical) with just the URI, CA:FALSE, digitalSignature (critical), serverAuth and
  // clientAuth, SKI, AKI, a random positive serial, notAfter = min(now + ttl, chain's). The
  // serial's uniqueness is the certificate log's to decide: on AlreadyExists there, sign again.
  // FailedPrecondition: the chain has expired (or not begun). InvalidArgument: a weak key, another
  // trust domain, a ttl that is not positive. Internal: OpenSSL.
  absl::StatusOr<SignedSvid> SignX509Svid(const SvidTemplate& wanted) const;

  // Signs `data` with the current slot's key. The caller puts a context of its own in front of what
  // it signs ("postern-revocations-v1", a zero byte), so that no signature is good for anything
  // else, least of all as a certificate's. FailedPrecondition: the chain has expired (or not
  // begun). Internal: OpenSSL.
  absl::StatusOr<CaSignature> SignBytes(base::ByteSpan data) const;

  // What SignX509Svid would refuse with right now for reasons of its own chain; OK otherwise.
  absl::Status CheckUsable() const;

  const x509::TrustDomain& trust_domain() const { return options_.trust_domain; }

  const CaOptions& options() const { return options_; }

  // For CaRotation: reads records and keys again, after a step of the store. On an error what was
  // in use goes on; as the step has been made then, the next start or step reads it.
  absl::Status Reload(store::CaStore& store, const KeyFiles& keys);

  // All roots that are to be trusted (next, current and retired), and the names of those that were
  // withdrawn in order.
  std::shared_ptr<const x509::TrustBundleSet> bundles() const;
  store::Version bundle_version() const;

  // The slot that signs: its root (which the issuer's port sends along) and its end of life.
  std::shared_ptr<const SigningSlot> current() const;

  // Whether the current root's key lies in the state directory (it should be taken offline).
  bool root_key_present() const;

 private:
  CaSigner(CaOptions options, const base::Clock& clock);
  absl::Status Load(store::CaStore& store);

  const CaOptions options_;
  const base::Clock& clock_;
  mutable std::mutex mutex_;  // guards the three below; rotation swaps them
  std::shared_ptr<const SigningSlot> current_;
  std::shared_ptr<const x509::TrustBundleSet> bundles_;
  store::Version bundle_version_;
};

}  // namespace postern::ca
