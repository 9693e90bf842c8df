// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "control/ca/ca_layout.h"
#include "control/ca/ca_signer.h"
#include "control/ca/pkcs11_key.h"
#include "control/ca/plugged_ca.h"
#include "control/ca/published_roots.h"
#include "control/store/store.h"

namespace postern::ca {

struct PluggedCaOptions {
  CaDirectory directory;
  std::optional<Pkcs11Location> token_key = {};  // set: directory.holds_key is false
  // The longest life of a certificate: for so long a root is kept that its CA has left.
  absl::Duration longest_ttl;
  // For how long a changed CA waits for proxies that do not acknowledge its root.
  absl::Duration follow_limit = absl::Minutes(2);
};

// For metrics.
struct PluggedCaStatus {
  std::array<uint64_t, kCaProblemCount> refused{};  // contents of the directory, by problem
  bool refusing = false;       // what lies there now is refused, and an earlier CA signs
  bool waiting = false;        // a new CA waits until proxies know its root
  uint64_t changes = 0;        // new CAs that were taken into use
  uint64_t leaving_roots = 0;  // kept though the directory has them no more
};

// Keeps the signer in step with a directory that somebody else fills (--ca-dir). What lies there is
// read by a timer and compared by its content, so no event can be missed; two readings in a row
// must agree before it is judged (JudgeCa). What is refused changes nothing but log and metric: the
// CA before goes on.
//
// A CA that is accepted is taken into use in an order in which nobody sees a certificate whose root
// they lack: first its roots join those that the proxies have, under a new bundle version; when all
// connected proxies have acknowledged it (or `follow_limit` has passed) the new CA signs; the root
// of the one before leaves the bundle when the last of its certificates has expired. A root that
// the signing CA does not need leaves as soon as the directory names it no more. The roots in force
// stand in the state directory (PublishedRoots), so a restart changes nothing of that.
//
// Made by main; the signer, the store and the clock outlive it. Tick on one thread, status on any.
class PluggedCaKeeper {
 public:
  // What the keeper needs of the mesh; set before the first Tick.
  struct Hooks {
    std::function<size_t(store::Version)> behind;  // connected proxies without this bundle version
    std::function<void()> bundles_changed;         // the signer's bundles are new
  };
  struct Opened;

  // Makes the signer. With what lies in the directory; or, if the store's own CA has signed until
  // now, with that one, and the change to the directory's begins with the first Tick.
  // FailedPrecondition: the directory's CA is refused (at a start there is none before it); the
  // message names the problem. The store's and the file system's errors pass through.
  static absl::StatusOr<Opened> Open(PluggedCaOptions options, CaOptions ca_options,
                                     store::CaStore& store, const base::Clock& clock);

  // For a start without --ca-dir. FailedPrecondition: this state directory was used with one, and
  // its proxies trust those roots: our own CA is not made or used behind their back. The message
  // says how to go back to it.
  static absl::Status CheckNotPlugged(const std::string& state_dir);

  void SetHooks(Hooks hooks) { hooks_ = std::move(hooks); }

  // Call about once a second.
  void Tick();

  PluggedCaStatus status() const;

 private:
  PluggedCaKeeper(PluggedCaOptions options, CaOptions ca_options, store::CaStore& store,
                  const base::Clock& clock);

  CaVerdict Judge(const absl::StatusOr<CaFiles>& files, std::string_view key);
  absl::Status Begin(std::shared_ptr<const PluggedCa> ca, std::vector<PublishedRoot> published,
                     const std::vector<store::CaRecord>& records);
  absl::Status KeepOwnRoots();
  absl::Status BeginWithDirectory(const std::vector<PublishedRoot>& published);
  void Look();
  void Advance();
  void ForgetLeft();
  void Refuse(const std::string& key, const CaVerdict& verdict);
  void Activate();
  std::vector<PublishedRoot> WithOldRoots(const PluggedCa& ca) const;
  absl::Status Publish(std::vector<PublishedRoot> roots);
  void Count();

  const PluggedCaOptions options_;
  const CaOptions ca_options_;
  store::CaStore& store_;
  const base::Clock& clock_;
  Hooks hooks_;
  std::unique_ptr<CaSigner> made_signer_;  // until Open hands it out
  CaSigner* signer_ = nullptr;

  // All below: Tick's thread alone, but for status_. A "key" names a content of the directory: its
  // digest, or the error of reading it.
  std::vector<PublishedRoot> published_;
  std::string accepted_key_;
  std::string candidate_key_;  // seen once
  std::string refused_key_;
  absl::Duration judge_again_at_;  // Clock::SinceBoot
  std::string token_loaded_for_;   // the key for which the token was asked
  absl::StatusOr<x509::PkeyPtr> token_key_;
  std::shared_ptr<const PluggedCa> pending_;
  absl::Duration pending_since_;
  bool publish_failed_ = false;

  mutable std::mutex mutex_;  // guards status_
  PluggedCaStatus status_;
};

struct PluggedCaKeeper::Opened {
  std::unique_ptr<CaSigner> signer;
  std::unique_ptr<PluggedCaKeeper> keeper;  // goes before the signer
};

}  // namespace postern::ca
