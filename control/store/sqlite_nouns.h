// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "control/store/database.h"
#include "control/store/store.h"

// The interfaces of store.h over SQLite, one class for each noun. Internal to control/store.
namespace postern::store {

// 32 hex digits of OpenSSL's random generator.
absl::StatusOr<std::string> RandomId();

// One row of the meta table that counts something.
absl::StatusOr<int64_t> ReadCounter(Connection& connection, std::string_view key);
absl::Status AddToCounter(Connection& connection, std::string_view key, int64_t amount);

// What BundleVersion counts; inside the caller's transaction.
absl::Status CountBundleChange(Connection& connection);

// Stores `entry` (id and created_at set by the caller) inside the caller's transaction.
absl::Status InsertEntry(Connection& connection, const Entry& entry);

// Revokes, as of `now` and inside the caller's transaction, the certificates of the entry that live
// then. Nothing to revoke makes no new version of the list.
absl::Status RevokeCertificatesOf(Connection& connection, const Entry& entry, absl::Time now);

// Numbers in one text column, and back. nullopt: not what we wrote.
std::string JoinPorts(const std::vector<uint16_t>& ports);
std::optional<std::vector<uint16_t>> SplitPorts(std::string_view text);

class SqliteEntries : public EntryStore {
 public:
  SqliteEntries(Database& database, const base::Clock& clock)
      : database_(database), clock_(clock) {}
  absl::StatusOr<Entry> CreateEntry(const Entry& entry) override;
  absl::StatusOr<std::vector<Entry>> ListEntries(std::string_view spiffe_id) override;
  absl::StatusOr<Entry> GetEntry(std::string_view id) override;
  absl::StatusOr<std::vector<Entry>> MatchEntries(
      const std::vector<std::string>& selectors) override;
  absl::Status DeleteEntry(std::string_view id) override;

 private:
  Database& database_;
  const base::Clock& clock_;
};

class SqliteTokens : public TokenStore {
 public:
  SqliteTokens(Database& database, const base::Clock& clock) : database_(database), clock_(clock) {}
  absl::StatusOr<Entry> CreateToken(const base::Sha256Digest& token_sha256, const Entry& entry,
                                    absl::Time expires_at) override;
  absl::StatusOr<UsedToken> UseToken(const base::Sha256Digest& token_sha256,
                                     absl::Time now) override;
  absl::StatusOr<uint64_t> DeleteExpiredTokens(absl::Time now) override;

 private:
  Database& database_;
  const base::Clock& clock_;
};

class SqliteCertificates : public CertificateLog {
 public:
  explicit SqliteCertificates(Database& database) : database_(database) {}
  absl::Status Append(const IssuedCertificate& certificate) override;
  absl::StatusOr<IssuedCertificate> FindBySerial(std::string_view serial) override;
  absl::StatusOr<std::vector<LiveCertificate>> ListLive(absl::Time time) override;
  absl::StatusOr<uint64_t> CountIssued() override;
  absl::StatusOr<uint64_t> PruneExpired(absl::Time before) override;

 private:
  Database& database_;
};

class SqliteCas : public CaStore {
 public:
  SqliteCas(Database& database, uint64_t epoch) : database_(database), epoch_(epoch) {}
  absl::StatusOr<std::vector<CaRecord>> ListCas() override;
  absl::Status AddCas(const std::vector<CaRecord>& records) override;
  absl::Status ActivateNextCas() override;
  absl::Status DropNextCas() override;
  absl::Status WithdrawRetiredCas(absl::Time now, bool in_order) override;
  absl::StatusOr<std::vector<WithdrawnCa>> ListWithdrawnCas() override;
  absl::StatusOr<Version> BundleVersion() override;
  absl::StatusOr<Version> VersionOfBundles(const base::Sha256Digest& content) override;
  absl::StatusOr<Version> RaiseBundleVersion() override;

 private:
  Database& database_;
  const uint64_t epoch_;
};

class SqlitePolicy : public PolicyStore {
 public:
  SqlitePolicy(Database& database, uint64_t epoch) : database_(database), epoch_(epoch) {}
  absl::StatusOr<PolicyDocuments> GetPolicy() override;
  absl::StatusOr<PolicyDocuments> PutPolicy(const std::vector<PolicyDocument>& documents) override;

 private:
  Database& database_;
  const uint64_t epoch_;
};

class SqliteRevocations : public RevocationStore {
 public:
  SqliteRevocations(Database& database, uint64_t epoch, const base::Clock& clock)
      : database_(database), epoch_(epoch), clock_(clock) {}
  absl::StatusOr<RevocationList> ListRevocations() override;
  absl::StatusOr<x509::Revocation> Revoke(const x509::Revocation& wanted) override;
  absl::StatusOr<bool> IsRevoked(x509::RevokedBy by, std::string_view subject) override;
  absl::StatusOr<std::vector<x509::Revocation>> Lift(uint64_t sequence) override;
  absl::StatusOr<uint64_t> Forget(absl::Time now) override;
  absl::StatusOr<bool> SetSigner(std::string_view ca_id) override;
  absl::StatusOr<NamedCertificates> CountNamed(x509::RevokedBy by,
                                               std::string_view subject) override;

 private:
  Database& database_;
  const uint64_t epoch_;
  const base::Clock& clock_;
};

class SqliteSpeakers : public SpeakerStore {
 public:
  explicit SqliteSpeakers(Database& database) : database_(database) {}
  absl::StatusOr<std::vector<Speaker>> ListSpeakers() override;
  absl::Status UpdateSpeakers(const std::vector<Speaker>& present,
                              const std::vector<Speaker>& gone) override;

 private:
  Database& database_;
};

class SqliteForeignBundles : public ForeignBundleStore {
 public:
  explicit SqliteForeignBundles(Database& database) : database_(database) {}
  absl::StatusOr<std::vector<ForeignBundle>> ListForeignBundles() override;
  absl::Status PutForeignBundle(const ForeignBundle& bundle) override;
  absl::Status DeleteForeignBundle(std::string_view trust_domain) override;

 private:
  Database& database_;
};

}  // namespace postern::store
