// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/x509/spiffe_id.h"
#include "control/store/types.h"

// What the issuer remembers, one small interface for each noun. Every call may block on the disk
// and may be made from any thread. A call that returns OK has been synced: it survives a power cut.
//
// Errors that every call may give, beside its own:
//   Unavailable  disk full, read-only, locked or an I/O error: nothing was changed; try again
//   DataLoss     the database is damaged; the message names the file and the mend
//   Internal     a fault of Postern itself
namespace postern::store {

// Registration entries.
class EntryStore {
 public:
  virtual ~EntryStore() = default;

  // Stores `entry` under a fresh random id (its own `id` and `created_at` are ignored) and returns
  // it as stored. InvalidArgument: no selectors. AlreadyExists: an entry with just these selectors
  // exists (both would match the same workloads, so neither would ever be used).
  virtual absl::StatusOr<Entry> CreateEntry(const Entry& entry) = 0;

  // All, or those of one SPIFFE ID, oldest first.
  virtual absl::StatusOr<std::vector<Entry>> ListEntries(std::string_view spiffe_id = {}) = 0;

  // NotFound: no such entry.
  virtual absl::StatusOr<Entry> GetEntry(std::string_view id) = 0;

  // The entries all of whose selectors are among `selectors`; may be none or several.
  virtual absl::StatusOr<std::vector<Entry>> MatchEntries(
      const std::vector<std::string>& selectors) = 0;

  // Deletes the entry and the tokens that attest to it, and revokes, in the same transaction, the
  // certificates that were issued for it and have not expired (RevocationStore). NotFound: no such
  // entry.
  virtual absl::Status DeleteEntry(std::string_view id) = 0;
};

// What using a token gives.
struct UsedToken {
  std::string token_id;  // what the entry's selector "join-token:ID" names
  std::string entry_id;
};

// Single-use join tokens. Only the SHA-256 of a token comes here.
class TokenStore {
 public:
  virtual ~TokenStore() = default;

  // In one transaction: the token, and `entry` with the selector "join-token:ID" (a fresh random
  // ID) added to its own. Returns the entry as stored. AlreadyExists: this token exists.
  virtual absl::StatusOr<Entry> CreateToken(const base::Sha256Digest& token_sha256,
                                            const Entry& entry, absl::Time expires_at) = 0;

  // Takes the token out, in one transaction that succeeds for exactly one caller. NotFound: never
  // existed, used already, or its entry was deleted. DeadlineExceeded: it has expired at `now` (it
  // is taken out as well).
  virtual absl::StatusOr<UsedToken> UseToken(const base::Sha256Digest& token_sha256,
                                             absl::Time now) = 0;

  // Deletes the tokens that have expired at `now`; their entries stay. Returns how many.
  virtual absl::StatusOr<uint64_t> DeleteExpiredTokens(absl::Time now) = 0;
};

// The log of issued certificates.
class CertificateLog {
 public:
  virtual ~CertificateLog() = default;

  // AlreadyExists: this serial was issued before; nothing was changed. FailedPrecondition: its CA
  // is retired or withdrawn, so the certificate must not go out: sign again with the current one.
  virtual absl::Status Append(const IssuedCertificate& certificate) = 0;

  // NotFound: not issued here, or pruned.
  virtual absl::StatusOr<IssuedCertificate> FindBySerial(std::string_view serial) = 0;

  // Those that end after `time`, in no order; the issuer's own are left out.
  virtual absl::StatusOr<std::vector<LiveCertificate>> ListLive(absl::Time time) = 0;

  // How many were ever issued, the pruned ones included.
  virtual absl::StatusOr<uint64_t> CountIssued() = 0;

  // Forgets certificates whose not_after lies before `before`, at most 10,000 at a time so that
  // issuing is not held up. Returns how many.
  virtual absl::StatusOr<uint64_t> PruneExpired(absl::Time before) = 0;
};

// How many withdrawn CAs ListWithdrawnCas tells of: a bundle names their roots.
inline constexpr int kMaxWithdrawnCas = 128;

// CA certificates and their slots, never keys.
class CaStore {
 public:
  virtual ~CaStore() = default;

  // All, roots first, oldest first.
  virtual absl::StatusOr<std::vector<CaRecord>> ListCas() = 0;

  // All or none, in one transaction; the bundle version grows when a root is among them.
  // AlreadyExists: an id exists, or the slot (role, state) of a current or next one is taken.
  virtual absl::Status AddCas(const std::vector<CaRecord>& records) = 0;

  // A rotation's steps, each all or nothing, in one transaction. The bundle version grows when the
  // set of roots changes, and when a root's withdrawal is remembered.
  //
  // Each next CA becomes the current one, and the current one of its role retired.
  // FailedPrecondition: there is no next one, or a retired one is still there.
  virtual absl::Status ActivateNextCas() = 0;
  // Deletes every next CA; OK when there is none.
  virtual absl::Status DropNextCas() = 0;
  // Deletes every retired CA and remembers it as withdrawn; OK when there is none.
  virtual absl::Status WithdrawRetiredCas(absl::Time now, bool in_order) = 0;

  // The newest kMaxWithdrawnCas, newest first.
  virtual absl::StatusOr<std::vector<WithdrawnCa>> ListWithdrawnCas() = 0;

  // The version of the set of roots.
  virtual absl::StatusOr<Version> BundleVersion() = 0;

  // The version under which a set of bundles with this digest is to be published: the one of the
  // last time if it is the same content, else a new one.
  virtual absl::StatusOr<Version> VersionOfBundles(const base::Sha256Digest& content) = 0;

  // A new, larger one, for a set of roots that changed outside of the store (a plugged-in CA's).
  virtual absl::StatusOr<Version> RaiseBundleVersion() = 0;
};

// What is held of the trust domains that this one is federated with; never our own.
class ForeignBundleStore {
 public:
  virtual ~ForeignBundleStore() = default;

  // By trust domain.
  virtual absl::StatusOr<std::vector<ForeignBundle>> ListForeignBundles() = 0;

  // Adds it, or replaces what is held of that trust domain.
  virtual absl::Status PutForeignBundle(const ForeignBundle& bundle) = 0;

  // Forgets it; one that is not held is no error.
  virtual absl::Status DeleteForeignBundle(std::string_view trust_domain) = 0;
};

// The policy documents in force.
class PolicyStore {
 public:
  virtual ~PolicyStore() = default;

  // Empty, with a version, before the first PutPolicy.
  virtual absl::StatusOr<PolicyDocuments> GetPolicy() = 0;

  // Replaces the whole set, in one transaction, and returns it with its new version.
  // InvalidArgument: two documents with one name, or one without.
  virtual absl::StatusOr<PolicyDocuments> PutPolicy(
      const std::vector<PolicyDocument>& documents) = 0;
};

// The certificates that a revocation names, as far as the log knows them. Of a key that an entry
// names, also those that were issued for that entry.
struct NamedCertificates {
  uint64_t living = 0;                               // not expired
  absl::Time last_not_after = absl::InfinitePast();  // of these
  bool enrolled = false;                             // an entry names the key
};

// What is revoked. Each change makes a new version of the list.
class RevocationStore {
 public:
  virtual ~RevocationStore() = default;

  virtual absl::StatusOr<RevocationList> ListRevocations() = 0;

  // Stores `wanted` (a canonical subject; its own sequence and revoked_at are ignored) as of now
  // and returns it as stored. What is revoked already is revoked anew, in its place. With a key
  // that an entry names go, in the same transaction and under the same number, the certificates
  // that were issued for the entry and have not expired.
  virtual absl::StatusOr<x509::Revocation> Revoke(const x509::Revocation& wanted) = 0;

  // Whether that (a canonical subject) is revoked by what has been stored before this call.
  virtual absl::StatusOr<bool> IsRevoked(x509::RevokedBy by, std::string_view subject) = 0;

  // Takes back everything that came with that version of the list, and returns it. NotFound:
  // nothing (any more).
  virtual absl::StatusOr<std::vector<x509::Revocation>> Lift(uint64_t sequence) = 0;

  // Forgets what names no certificate that lives at `now` (forget_at). Returns how much.
  virtual absl::StatusOr<uint64_t> Forget(absl::Time now) = 0;

  // Notes which CA (its id) signs the list. Another one than before makes a new version, for those
  // who hold the list by the old one's signature; true then.
  virtual absl::StatusOr<bool> SetSigner(std::string_view ca_id) = 0;

  // What a revocation of that would name. kIssuer: nothing, the log knows no certificates of CAs.
  virtual absl::StatusOr<NamedCertificates> CountNamed(x509::RevokedBy by,
                                                       std::string_view subject) = 0;
};

// Which proxies serve which entry, and from where.
class SpeakerStore {
 public:
  virtual ~SpeakerStore() = default;

  virtual absl::StatusOr<std::vector<Speaker>> ListSpeakers() = 0;

  // In one transaction: forgets `gone` (by entry_id and source), then adds or replaces `present`.
  // Those whose entry does not exist are passed over; a deleted entry takes its speakers along.
  virtual absl::Status UpdateSpeakers(const std::vector<Speaker>& present,
                                      const std::vector<Speaker>& gone) = 0;
};

// Everything together; owns the database and its lock. main makes it first and destroys it last.
class Store {
 public:
  virtual ~Store() = default;

  virtual EntryStore& entries() = 0;
  virtual TokenStore& tokens() = 0;
  virtual CertificateLog& certificates() = 0;
  virtual CaStore& cas() = 0;
  virtual PolicyStore& policy() = 0;
  virtual SpeakerStore& speakers() = 0;
  virtual ForeignBundleStore& foreign_bundles() = 0;
  virtual RevocationStore& revocations() = 0;

  // Chosen when the store was made or restored from a backup: milliseconds since 1970, and larger
  // than every earlier one.
  virtual uint64_t epoch() const = 0;

  // What went wrong since the start, for the metric of store errors. Any thread.
  virtual uint64_t error_count() const = 0;

  // Whether it can be written to right now: changes and syncs one row. For /ready and recovery.
  virtual absl::Status Probe() = 0;
};

// The file names below the state directory.
inline constexpr std::string_view kDatabaseFile = "identity.db";
inline constexpr std::string_view kLockFile = "identity.lock";

// Opens (or makes) `state_dir`/identity.db: WAL, full sync, schema migrated forward after a backup
// copy "identity.db.v<old>.<time>.bak", integrity checked. The directory must exist, private
// (0700). `clock` outlives the store. FailedPrecondition: another issuer holds the state directory,
// the database belongs to another trust domain, or was written by a newer release. DataLoss:
// damaged. PermissionDenied or Unavailable: cannot be written.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& state_dir,
                                                       const x509::TrustDomain& trust_domain,
                                                       const base::Clock& clock);

// The same, in memory, for tests and dry runs.
absl::StatusOr<std::unique_ptr<Store>> OpenMemoryStore(const x509::TrustDomain& trust_domain,
                                                       const base::Clock& clock);

}  // namespace postern::store
