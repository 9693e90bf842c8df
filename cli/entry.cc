// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "cli/admin_client.h"
#include "cli/command.h"
#include "cli/issuer_nouns.h"
#include "cli/member_key_file.h"
#include "common/base/bytes.h"
#include "common/base/ip.h"
#include "common/base/service_address.h"
#include "common/base/strings.h"
#include "common/base/time_text.h"
#include "common/x509/member_key.h"
#include "common/x509/spiffe_id.h"

namespace postern::cli {
namespace {

using nlohmann::json;

// "sha256:HEX" of the public key that an entry names; empty: it names none.
std::string MemberOf(const v1::Entry& entry) {
  const bool one = entry.selectors_size() == 1 &&
                   std::string_view(entry.selectors(0)).starts_with(x509::kMemberKeySelector);
  return one ? entry.selectors(0).substr(std::string_view("key:").size()) : std::string();
}

json EntryJson(const v1::Entry& entry) {
  json ports = json::array();
  for (const uint32_t port : entry.ports())
    ports.push_back(port);
  json selectors = json::array();
  for (const std::string& selector : entry.selectors())
    selectors.push_back(selector);
  const std::string member = MemberOf(entry);
  json addresses = json::array();
  for (const std::string& address : entry.allowed_addresses())
    addresses.push_back(address);
  json services = json::array();
  for (const std::string& service : entry.services())
    services.push_back(service);
  return {{"id", entry.id()},
          {"spiffe_id", entry.spiffe_id()},
          {"selectors", std::move(selectors)},
          {"member_key", member.empty() ? json() : json(member)},
          {"addresses", std::move(addresses)},
          {"publish_address", entry.publish_connection_address()},
          {"ports", std::move(ports)},
          {"services", std::move(services)},
          {"svid_ttl_seconds", entry.svid_ttl_seconds()},
          {"created_at", TimeText(entry.created_at())}};
}

void EntryAsText(const v1::Entry& entry, std::ostream& out) {
  out << entry.id() << "  " << entry.spiffe_id() << "\n";
  if (const std::string member = MemberOf(entry); !member.empty()) {
    out << "  member key " << member << "\n";
  } else {
    out << "  selectors  " << absl::StrJoin(entry.selectors(), ", ") << "\n";
  }
  if (entry.allowed_addresses_size() > 0 || entry.publish_connection_address()) {
    out << "  addresses  " << absl::StrJoin(entry.allowed_addresses(), ", ")
        << (entry.publish_connection_address() ? " (and its connection's own)" : "") << "\n";
  }
  if (entry.ports_size() > 0)
    out << "  ports      " << absl::StrJoin(entry.ports(), ", ") << "\n";
  if (entry.services_size() > 0)
    out << "  services   " << absl::StrJoin(entry.services(), ", ") << "\n";
  if (entry.svid_ttl_seconds() > 0) {
    out << "  svid ttl   " << entry.svid_ttl_seconds() << " s\n";
  }
  out << "  created    " << TimeText(entry.created_at()) << "\n";
}

absl::Status Create(const std::string& socket, const EntryOptions& options,
                    const std::string& output, Context& context) {
  if (options.selectors.empty() == options.member_key.empty()) {
    return absl::InvalidArgumentError(
        "one of --selector and --member-key is required: which facts make a workload this "
        "identity, such as unix:uid:1000, or which key it has (for a join token, `postern token "
        "create` makes the entry)");
  }
  absl::StatusOr<v1::Entry> entry = ReadEntryOptions(options);
  if (!entry.ok())
    return entry.status();
  if (!options.member_key.empty()) {
    absl::StatusOr<std::string> selector = ReadMemberKeySelector(options.member_key);
    if (!selector.ok())
      return selector.status();
    entry->add_selectors(*std::move(selector));
  }
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  v1::CreateEntryRequest request;
  *request.mutable_entry() = *std::move(entry);
  absl::StatusOr<v1::Entry> made = (*client)->CreateEntry(request);
  if (!made.ok())
    return made.status();
  if (output == "json") {
    context.out << EntryAsJson(*made) << "\n";
  } else {
    EntryAsText(*made, context.out);
  }
  return absl::OkStatus();
}

absl::Status List(const std::string& socket, const std::string& spiffe_id,
                  const std::string& output, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  v1::ListEntriesRequest request;
  request.set_spiffe_id(spiffe_id);
  absl::StatusOr<v1::ListEntriesResponse> listed = (*client)->ListEntries(request);
  if (!listed.ok())
    return listed.status();
  if (output == "json") {
    json entries = json::array();
    for (const v1::Entry& entry : listed->entries())
      entries.push_back(EntryJson(entry));
    context.out << entries.dump(2) << "\n";
    return absl::OkStatus();
  }
  for (const v1::Entry& entry : listed->entries())
    EntryAsText(entry, context.out);
  if (listed->entries_size() == 0)
    context.err << "postern: no entries\n";
  return absl::OkStatus();
}

absl::Status Delete(const std::string& socket, const std::string& id, Context& context) {
  absl::StatusOr<std::unique_ptr<AdminClient>> client = AdminClient::Connect(socket);
  if (!client.ok())
    return client.status();
  v1::DeleteEntryRequest request;
  request.set_id(id);
  if (auto gone = (*client)->DeleteEntry(request); !gone.ok())
    return gone.status();
  context.err << "postern: entry " << base::Printable(id)
              << " is gone; certificates made for it are revoked and not renewed\n";
  return absl::OkStatus();
}

}  // namespace

void AddSocketOption(CLI::App* command, std::string* socket) {
  *socket = kDefaultSocket;
  command->add_option("--socket", *socket, "the issuer's administration socket")
      ->capture_default_str();
}

void AddEntryOptions(CLI::App* command, EntryOptions* options) {
  command->add_option("--spiffe-id", options->spiffe_id, "identity of the workload")->required();
  command->add_option("--address", options->addresses,
                      "address or CIDR of the workload, published as its endpoint; repeatable");
  command->add_flag("--publish-address", options->publish_address,
                    "also publish the address that its proxy connects from");
  command->add_option("--port", options->ports,
                      "port of the workload that is in the mesh (default: every port); repeatable");
  command->add_option("--service", options->services,
                      "address at which it is one of several, as IP:PORT, or IP:PORT=PORT if its "
                      "own port is another one; repeatable");
  command->add_option("--svid-ttl", options->svid_ttl,
                      "lifetime of its certificates (default: the issuer's)");
}

absl::StatusOr<v1::Entry> ReadEntryOptions(const EntryOptions& options) {
  v1::Entry entry;
  absl::StatusOr<x509::SpiffeId> id = x509::SpiffeId::Parse(options.spiffe_id);
  if (!id.ok() || !id->IsWorkload()) {
    return absl::InvalidArgumentError(base::StrCat(
        "--spiffe-id: ", id.ok() ? "a workload's ID has a path, as in spiffe://example.org/web"
                                 : base::Message(id.status())));
  }
  entry.set_spiffe_id(id->uri());
  for (const std::string& selector : options.selectors)
    entry.add_selectors(selector);
  for (const std::string& address : options.addresses) {
    absl::StatusOr<base::Cidr> range = base::Cidr::Parse(address);
    if (!range.ok()) {
      return absl::InvalidArgumentError(base::StrCat("--address: ", base::Message(range.status())));
    }
    entry.add_allowed_addresses(range->ToString());
  }
  for (const uint16_t port : std::set<uint16_t>(options.ports.begin(), options.ports.end())) {
    if (port == 0)
      return absl::InvalidArgumentError("--port 0: ports are 1 to 65535");
    entry.add_ports(port);
  }
  for (const std::string& text : options.services) {
    absl::StatusOr<base::ServiceAddress> service = base::ServiceAddress::Parse(text);
    if (!service.ok()) {
      return absl::InvalidArgumentError(
          base::StrCat("--service: ", base::Message(service.status())));
    }
    entry.add_services(service->ToString());
  }
  entry.set_publish_connection_address(options.publish_address);
  if (!options.svid_ttl.empty()) {
    absl::StatusOr<std::chrono::seconds> ttl = ParseDuration("--svid-ttl", options.svid_ttl);
    if (!ttl.ok())
      return ttl.status();
    entry.set_svid_ttl_seconds(ttl->count());
  }
  return entry;
}

std::string EntryAsJson(const v1::Entry& entry) {
  return EntryJson(entry).dump(2);
}

std::string TimeText(int64_t unix_seconds) {
  return base::TimeText(absl::FromUnixSeconds(unix_seconds));
}

std::string VersionText(const v1::Version& version) {
  return base::StrCat(version.epoch(), ".", version.sequence());
}

void AddEntry(CLI::App& root, Context& context) {
  CLI::App* noun = root.add_subcommand("entry", "registration entries of the issuer");
  noun->require_subcommand(1);
  struct Options {
    std::string socket, output = "text", id, filter;
    EntryOptions entry;
  };
  auto o = std::make_shared<Options>();

  CLI::App* create = noun->add_subcommand("create", "which facts about a workload make it whom");
  AddEntryOptions(create, &o->entry);
  create->add_option("--selector", o->entry.selectors,
                     "fact that must hold: unix:uid:N, unix:gid:N, unix:path:FILE; repeatable");
  create->add_option("--member-key", o->entry.member_key,
                     "instead: PEM file of the public key (or a certificate for it) whose private "
                     "half the workload has; - reads standard input");
  AddSocketOption(create, &o->socket);
  AddOutputOption(create, &o->output, {"text", "json"});
  OnSelected(create, context,
             [o](Context& c) { return Create(o->socket, o->entry, o->output, c); });

  CLI::App* list = noun->add_subcommand("list", "every entry, or those of one identity");
  list->add_option("--spiffe-id", o->filter, "this identity's entries only");
  AddSocketOption(list, &o->socket);
  AddOutputOption(list, &o->output, {"text", "json"});
  OnSelected(list, context, [o](Context& c) { return List(o->socket, o->filter, o->output, c); });

  CLI::App* remove =
      noun->add_subcommand("delete", "end an entry: its certificates are revoked and not renewed");
  remove->add_option("id", o->id, "the entry's id, as `entry list` shows it")->required();
  AddSocketOption(remove, &o->socket);
  OnSelected(remove, context, [o](Context& c) { return Delete(o->socket, o->id, c); });
}

}  // namespace postern::cli
