// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/worker_identity.h"

#include <utility>

#include "common/base/strings.h"
#include "common/x509/certificate.h"

namespace postern::session {

absl::StatusOr<std::shared_ptr<const WorkerIdentity>> WorkerIdentity::Create(
    std::shared_ptr<const identity::IdentitySnapshot> snapshot, const base::Clock& clock,
    std::shared_ptr<const tls::TrustState> trust,
    std::shared_ptr<const tls::RevocationState> revocations) {
  tls::TlsOptions options;
  options.clock = &clock;
  if (trust != nullptr && snapshot->ticket_secret != nullptr) {
    auto keys = tls::TicketKeys::Create(snapshot->ticket_secret->bytes());
    if (!keys.ok()) {
      return keys.status();
    }
    options.ticket_keys = *std::move(keys);
    options.sessions = std::make_shared<tls::SessionCache>();
  }
  options.trust = std::move(trust);
  options.revocations = std::move(revocations);
  auto client = tls::TlsContext::CreateClient(snapshot->svid, snapshot->bundles, options);
  if (!client.ok()) {
    return client.status();
  }
  auto server = tls::TlsContext::CreateServer(snapshot->svid, snapshot->bundles, options);
  if (!server.ok()) {
    return server.status();
  }
  options.client_auth = tls::ClientAuth::kNone;
  auto tls_only = tls::TlsContext::CreateServer(snapshot->svid, snapshot->bundles, options);
  if (!tls_only.ok()) {
    return tls_only.status();
  }
  std::shared_ptr<WorkerIdentity> identity(new WorkerIdentity());
  for (const auto& [name, bundle] : snapshot->bundles->bundles()) {
    absl::flat_hash_set<base::Sha256Digest>& digests = identity->roots_[name];
    for (const x509::X509Ptr& root : bundle.roots()) {
      digests.insert(x509::Sha256OfCertificate(root.get()));
    }
    // What was verified by them before they were taken out; nothing new is.
    digests.insert(bundle.retired_roots().begin(), bundle.retired_roots().end());
  }
  identity->snapshot_ = std::move(snapshot);
  identity->client_ = *std::move(client);
  identity->server_ = *std::move(server);
  identity->server_without_client_auth_ = *std::move(tls_only);
  return std::shared_ptr<const WorkerIdentity>(std::move(identity));
}

bool WorkerIdentity::Trusts(const x509::VerifiedPeer& peer) const {
  const auto found = roots_.find(base::ToAbsl(peer.id.trust_domain_name()));
  return found != roots_.end() && !peer.chain_sha256.empty() &&
         found->second.contains(peer.chain_sha256.back());
}

}  // namespace postern::session
