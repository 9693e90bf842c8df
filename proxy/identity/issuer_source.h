// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/issuer_channel.h"
#include "proxy/identity/backoff.h"
#include "proxy/identity/certify_call.h"
#include "proxy/identity/clock_watch.h"
#include "proxy/identity/deadline_timer.h"
#include "proxy/identity/endpoint_cache.h"
#include "proxy/identity/evidence.h"
#include "proxy/identity/freshness.h"
#include "proxy/identity/issued_revocations.h"
#include "proxy/identity/mesh_client.h"
#include "proxy/identity/renewal_schedule.h"
#include "proxy/identity/seen_list.h"
#include "proxy/identity/source.h"
#include "proxy/identity/state_dir.h"
#include "proxy/identity/trust_clock.h"
#include "proxy/net/loop.h"
#include "proxy/net/timer.h"

namespace postern::v1 {
class CertifyRequest;
class CertifyResponse;
class ProxyState;
}  // namespace postern::v1

namespace postern::identity {

// Identity from the issuer: gets a certificate, keeps it renewed, keeps the Mesh stream up, and
// keeps the state directory, from which a restart serves without the issuer and without a new
// token.
//
// A certificate is asked for with the one that is held (an expired one too: the issuer may have a
// grace), else with the member's key, else with the join token (both read anew at each attempt), or
// over a unix socket with the socket's own evidence. What the issuer refuses as evidence is
// followed by the next kind at the next attempt. Each certificate has a fresh key. What comes is
// checked like a peer's before it is used; the old one goes on until then. The first one is used
// when the issuer's list of revocations is known. When the machine slept or its clock was set, or
// the issuer takes the certificate no more, another is asked for at once. Main loop only.
class IssuerSource final : public Source, private MeshClient::Delegate {
 public:
  struct Options {
    std::string target;  // HOST:PORT or unix:PATH
    // Required for TCP; with a unix socket it may be unknown until the first certificate.
    std::optional<x509::TrustDomain> trust_domain;
    // What the operator gave to know the issuer by: at least one of the two for TCP.
    std::shared_ptr<const x509::TrustBundleSet> bundles;
    std::optional<base::Sha256Digest> pin;
    EvidenceFiles files;                // what there is to show before the first certificate
    std::optional<StateDir> state_dir;  // none: a restart needs new evidence
    std::vector<uint16_t> serving;      // see MeshClient
    // A --policy file decides: the issuer's policy is refused, and nothing of it can be stale.
    bool own_policy = false;
  };

  // `endpoints`, `seen` and `times` outlive it; `endpoints` gets its upstream at Start.
  IssuerSource(net::Loop& loop, const base::Clock& clock, RandomFraction random, Options options,
               EndpointCache& endpoints, SeenList& seen, TrustClock& times, SourceSink& sink);
  ~IssuerSource() override;

  void Start() override;
  void Reload() override;  // asks at once if it is waiting to try again
  void Renew() override;   // asks at once; a request that is under way is that one
  void Describe(IdentityStatus& status) const override;

 private:
  // From the state directory.
  void Restore();
  void RestoreAnswers();
  void RestoreRevocations();
  void UseRevocations();
  bool AwaitsRevocations() const;
  std::string WhyWithheld() const;
  absl::Status RestoreIdentity();
  std::string TrustFingerprint() const;

  // Now and then: the certificate may have ended, and endpoints nobody asks for are forgotten.
  void OnTick();

  // Time (issuer_source_time.cc).
  void OnClockBreak(const ClockWatch::Break& found);
  void NoteSkew(absl::Duration skew);
  void KeepForLater(x509::Svid svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
                    const v1::CertifyResponse& response);
  void RestoreConfirmed();
  void PublishConfirmed();
  void SaveConfirmed();

  // Getting a certificate, in order.
  void Attempt();
  Evidence NextEvidence() const;
  void OnCertified(Evidence evidence, CertifyCall::Outcome outcome);
  absl::Status Accept(const v1::CertifyResponse& response);
  absl::StatusOr<x509::Svid> CheckedSvid(const v1::CertifyResponse& response);
  absl::StatusOr<std::shared_ptr<const x509::TrustBundleSet>> NewestBundles(
      const v1::CertifyResponse& response);
  // Takes it over as what this proxy has; Adopt also puts it into use.
  void Hold(x509::Svid svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
            const v1::CertifyResponse& response);
  void Adopt(x509::Svid svid, std::shared_ptr<const x509::TrustBundleSet> bundles,
             const v1::CertifyResponse& response);
  void OnAttemptFailed(Evidence evidence, const absl::Status& status, absl::Duration retry_after);
  // Gives what is held to the sink, as soon as it may be used.
  void PublishIdentity();
  // The issuer takes our certificate no more: what else there is to show is shown at once.
  void OnCertificateRefused(std::string_view why);
  void NoteCertificateTaken();

  bool IsUnix() const;
  bool HoldsUsable() const;  // a certificate that may still be used
  rpc::IssuerChannelOptions ChannelOptions(bool with_certificate) const;
  void SaveCertificate();
  void SaveSnapshot();
  void NoteSaved(const absl::Status& status);

  // MeshClient::Delegate
  absl::Status OnBundles(const v1::BundleSet& bundles) override;
  absl::Status OnPolicy(const v1::PolicyDocuments& documents) override;
  absl::Status OnRevocations(const v1::SignedRevocations& revocations) override;
  void OnAnswer(const v1::MeshResponse_EndpointUpdate_Answer& answer) override;
  void OnAnswersEnd() override;
  void OnHeard(absl::Duration skew) override;
  void OnApplied(TrustKind kind, bool ok) override;
  void OnConnection() override;
  std::optional<Version> HeldBundles() const override;
  std::optional<Version> HeldPolicy() const override;
  std::optional<Version> HeldRevocations() const override { return revocations_.version(); }
  std::vector<AddressKey> Subscriptions() const override;

  net::Loop& loop_;
  const base::Clock& clock_;
  const Options options_;
  EndpointCache& endpoints_;
  SeenList& seen_;
  TrustClock& times_;
  SourceSink& sink_;
  RenewalSchedule schedule_;
  DeadlineTimer timer_;
  DeadlineTimer save_timer_;  // writes snapshot.pb after a burst of changes
  net::Timer tick_;
  ClockWatch clock_watch_;
  MeshClient mesh_;
  std::unique_ptr<CertifyCall> call_;
  x509::PkeyPtr pending_key_;  // of the call under way

  std::shared_ptr<const x509::Svid> svid_;  // the newest; may have expired
  std::shared_ptr<const x509::TrustBundleSet> bundles_;
  // Whether bundles_ came from the issuer that is configured now: then it, not the configuration,
  // says how the issuer is known.
  bool bundles_speak_for_issuer_ = false;
  IssuedRevocations revocations_;
  absl::Status revocations_error_;        // of the newest list; OK: it is in use
  std::string own_revoked_;               // why our certificate is revoked; said once
  std::string given_up_;                  // the serial that OnCertificateRefused was about last
  bool snapshot_lost_ = false;            // snapshot.pb was there and cannot be read
  std::optional<Evidence> refused_last_;  // by the last attempt; the next kind is tried then
  std::unique_ptr<v1::ProxyState> state_;
  absl::Status renewal_error_;
  absl::Status state_error_;
  uint64_t renewals_ok_ = 0;
  uint64_t renewals_failed_ = 0;
  absl::Time last_heard_ = absl::InfinitePast();
  Freshness freshness_;
  std::optional<absl::Duration> saved_confirmed_;  // what the state directory says, SinceBoot
};

}  // namespace postern::identity
