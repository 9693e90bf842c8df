// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/proxy_config.h"

#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/strings.h"
#include "proxy/config/knobs.h"

namespace postern::config {
namespace {

ParseOutcome Exit(ParseExit exit) {
  ParseOutcome outcome;
  outcome.exit = std::move(exit);
  return outcome;
}

// Text for a cell of a Markdown table.
std::string Cell(std::string_view text) {
  std::string cell;
  for (const char c : text) {
    cell += c == '|' ? "\\|" : std::string(1, c);
  }
  return cell;
}

std::string DefaultCell(const Knob& knob) {
  const auto defaults = knob.show(ProxyConfig());
  return defaults.empty() ? "" : base::StrCat("`", defaults.front(), "`");
}

// What only one proxy of a host could have by default, and what would mix with the command's own
// output: a proxy of `postern run` is one of many.
void UseDefaultsOfRun(ProxyConfig& config) {
  const auto given = [&config](const char* knob) { return config.origins.contains(knob); };
  if (config.handover_fd < 0) {
    return;
  }
  constexpr char kAnyPort[] = "127.0.0.1:0";
  config.admin = given("admin") ? config.admin : kAnyPort;
  config.metrics = given("metrics") ? config.metrics : kAnyPort;
  config.access_log = given("access-log") ? config.access_log : "";
  config.drain_delay = given("drain-delay") ? config.drain_delay : std::chrono::milliseconds(0);
}

}  // namespace

ParseOutcome ParseProxyConfig(int argc, const char* const* argv) {
  Reading reading = ReadKnobs(argc, argv);
  if (reading.exit) {
    return Exit(*std::move(reading.exit));
  }
  ProxyConfig config;
  for (size_t i = 0; i < reading.given.size(); ++i) {
    const std::optional<Given>& given = reading.given[i];
    const Knob& knob = Knobs()[i];
    if (!given) {
      continue;
    }
    for (const std::string& value : given->values) {
      if (const absl::Status status = knob.set(config, value); !status.ok()) {
        return Exit(UsageError(base::StrCat(given->label, ": ", base::Message(status))));
      }
    }
    config.origins[std::string(knob.name)] = given->origin;
  }
  UseDefaultsOfRun(config);
  if (const absl::Status status = CheckWhole(config); !status.ok()) {
    return Exit(UsageError(base::Message(status)));
  }
  ParseOutcome outcome;
  outcome.config = std::move(config);
  return outcome;
}

std::string ConfigReference() {
  std::string out =
      "# Configuration of postern-proxy\n\n"
      "<!-- Made by postern-docs from the knob table; do not edit. -->\n\n"
      "A knob can be given as a flag, in the environment, or in the TOML file of `--config FILE` "
      "(`POSTERN_CONFIG`), whose keys are the flags' names: `admin = \"127.0.0.1:15000\"`, `tunnel "
      "= [\"inbound,...\", \"outbound,...\"]`. The flag wins over the environment, the environment "
      "over the file; the values of a repeatable knob come from one of them, never mixed. In the "
      "environment repeatable knobs are separated by newlines, and an empty variable counts as "
      "none.\n\n"
      "ADDR is `IP:port`, `[v6]:port`, `name:port` or `unix:PATH`. Durations are written with "
      "their "
      "unit: `500ms`, `5s`, `2m`, `1h`. A mistake ends the program with exit status 2 before any "
      "listener opens. `--help` and `--version` do what they say.\n";
  std::string_view group;
  for (const Knob& knob : Knobs()) {
    if (knob.group != group) {
      group = knob.group;
      base::StrAppend(out, "\n## ", group,
                      "\n\n| flag | environment | default | meaning |\n|---|---|---|---|\n");
    }
    base::StrAppend(out, "| `--", knob.name, " ", Cell(knob.value), "` | `",
                    EnvironmentName(knob.name), "` | ", DefaultCell(knob), " | ", Cell(knob.doc),
                    knob.repeatable ? " Repeatable." : "", " |\n");
  }
  return out;
}

std::string ConfigAsJson(const ProxyConfig& config) {
  try {
    nlohmann::ordered_json knobs = nlohmann::ordered_json::object();
    for (const Knob& knob : Knobs()) {
      const std::vector<std::string> values = knob.show(config);
      nlohmann::ordered_json entry;
      if (knob.repeatable) {
        entry["value"] = values;
      } else if (values.empty()) {
        entry["value"] = nullptr;
      } else {
        entry["value"] = values.front();
      }
      const auto origin = config.origins.find(std::string(knob.name));
      entry["from"] = origin == config.origins.end() ? "default" : origin->second;
      knobs[std::string(knob.name)] = std::move(entry);
    }
    return knobs.dump(2, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
  } catch (const std::exception&) {
    return "{}";  // out of memory at most: texts are replaced where they are no UTF-8
  }
}

}  // namespace postern::config
