// SPDX-License-Identifier: Apache-2.0
#include "proxy/process/status_pages.h"

#include <nlohmann/json.hpp>

#include "common/base/strings.h"
#include "common/base/time_text.h"

namespace postern::process {
namespace {

using Json = nlohmann::ordered_json;

// RFC 3339 in UTC; null for a time that never came.
Json TimeOf(absl::Time time) {
  if (time == absl::InfinitePast() || time == absl::InfiniteFuture()) {
    return nullptr;
  }
  return base::TimeText(time);
}

// Bytes of a peer may stand in a string: what is no UTF-8 is replaced, never thrown at.
std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Json VersionOf(const identity::Version& version) {
  return {{"epoch", version.epoch}, {"sequence", version.sequence}};
}

Json IdentityOf(const identity::IdentityStatus& identity) {
  return {{"source", identity.source},
          {"spiffe_id", identity.spiffe_id},
          {"generation", identity.generation},
          {"obtained", TimeOf(identity.obtained)},
          {"next_renewal", TimeOf(identity.next_renewal)},
          {"renewals_ok", identity.renewals_ok},
          {"renewals_failed", identity.renewals_failed},
          {"renewal_error", identity.renewal_error},
          {"reload_failures", identity.reload_failures},
          {"reload_error", identity.reload_error},
          {"state_error", identity.state_error},
          {"trust_domains", identity.trust_domains},
          {"roots_past_half_life", identity.roots_past_half_life},
          {"bundle_version", VersionOf(identity.bundle_version)}};
}

Json IssuerOf(const identity::IdentityStatus& identity) {
  Json page = {{"address", identity.issuer},
               {"connected", identity.issuer_connected},
               {"error", identity.issuer_error},
               {"last_heard", TimeOf(identity.last_heard)},
               {"clock_skew_seconds", absl::ToDoubleSeconds(identity.clock_skew)},
               {"endpoint_subscriptions", identity.endpoint_subscriptions}};
  Json stale = Json::array();
  for (const identity::TrustKind kind : identity::kTrustKinds) {
    const std::string what(Token(kind));
    const auto& age = identity.ages[static_cast<size_t>(kind)];
    // As the metric has it. Null: never, since this proxy keeps state.
    page[kind == identity::TrustKind::kBundles ? "bundle_age_seconds" : what + "_age_seconds"] =
        age.has_value() ? Json(absl::ToDoubleSeconds(*age)) : Json(nullptr);
    if (!age.has_value() || *age > identity::Freshness::kStaleAfter) {
      stale.push_back(what);
    }
  }
  page["stale"] = std::move(stale);
  page["max_stale_seconds"] = identity.max_stale.has_value()
                                  ? Json(absl::ToDoubleSeconds(*identity.max_stale))
                                  : Json(nullptr);
  page["stale_error"] = identity.stale_error;
  return page;
}

Json PolicyOf(const identity::IdentityStatus& identity) {
  return {{"source", identity.policy_source},
          {"loaded", identity.policy_loaded},
          {"revision", identity.policy_revision},
          {"version", VersionOf(identity.policy_version)},
          {"error", identity.policy_error}};
}

Json InterceptionOf(const ProcessFacts::Interception& interception) {
  return {{"mode", interception.mode}, {"ipv4", interception.ipv4}, {"ipv6", interception.ipv6}};
}

Json RevocationsOf(const identity::IdentityStatus& identity) {
  return {{"version", VersionOf(identity.revocation_version)},
          {"entries", identity.revocations},
          {"crls", identity.crls},
          {"crl_entries", identity.crl_entries},
          {"crls_stale", identity.crls_stale},
          {"crl_error", identity.crl_error}};
}

}  // namespace

std::string StatusPage(const ProcessFacts& facts, const identity::IdentityStatus& identity) {
  Json listeners = Json::array();
  for (const session::Worker::BoundListener& listener : facts.listeners) {
    listeners.push_back({{"name", listener.name}, {"address", listener.address.ToString()}});
  }
  Json page = {{"version", POSTERN_VERSION},
               {"phase", facts.phase},
               {"ready", facts.missing.empty()},
               {"missing", facts.missing},
               {"hints", facts.hints},
               {"started", TimeOf(facts.started)},
               {"uptime_seconds", absl::ToInt64Seconds(facts.now - facts.started)},
               {"workers", facts.workers},
               {"connections_open", facts.connections_open},
               {"listeners", std::move(listeners)},
               {"identity", IdentityOf(identity)},
               {"policy", PolicyOf(identity)},
               {"revocations", RevocationsOf(identity)},
               {"seen_in_mesh", identity.seen_in_mesh}};
  if (facts.interception.has_value()) {
    page["intercept_ok"] =
        facts.interception->ok.has_value() ? Json(*facts.interception->ok) : Json(nullptr);
    page["interception"] = InterceptionOf(*facts.interception);
  }
  if (!identity.issuer.empty()) {
    page["issuer"] = IssuerOf(identity);
  }
  return Dump(page);
}

std::string CertificatesPage(const identity::IdentityStatus& identity, absl::Time now) {
  Json certificates = Json::array();
  for (const identity::CertificateFacts& facts : identity.certificates) {
    certificates.push_back({{"kind", facts.kind},
                            {"trust_domain", facts.trust_domain},
                            {"subject", facts.subject},
                            {"serial", facts.serial},
                            {"sha256", facts.sha256},
                            {"not_before", TimeOf(facts.not_before)},
                            {"not_after", TimeOf(facts.not_after)},
                            {"seconds_left", absl::ToInt64Seconds(facts.not_after - now)}});
  }
  return Dump({{"spiffe_id", identity.spiffe_id}, {"certificates", std::move(certificates)}});
}

std::string ConnectionsPage(const std::vector<session::ConnectionInfo>& connections) {
  Json page = Json::array();
  for (const session::ConnectionInfo& connection : connections) {
    page.push_back({{"id", connection.id},
                    {"direction", std::string(base::Token(connection.direction))},
                    {"phase", connection.phase},
                    {"security", std::string(telemetry::Token(connection.security))},
                    {"tunnel", connection.tunnel},
                    {"downstream", connection.downstream_address},
                    {"destination", connection.destination},
                    {"upstream", connection.upstream_address},
                    {"peer_id", connection.peer_id},
                    {"peer_not_after", TimeOf(connection.peer_not_after)},
                    {"reauthentications", connection.reauthentications},
                    {"opened", TimeOf(connection.opened)},
                    {"bytes_from_downstream", connection.bytes_from_downstream},
                    {"bytes_from_upstream", connection.bytes_from_upstream}});
  }
  return Dump(page);
}

std::string SeenPage(const std::vector<std::string>& destinations) {
  return Dump(Json{{"destinations", destinations}});
}

}  // namespace postern::process
