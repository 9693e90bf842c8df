// SPDX-License-Identifier: Apache-2.0
// postern-bench-issuer: certificates per second, and a change reaching many Mesh streams, measured
// on a real postern-identity on loopback. See docs/PERFORMANCE.md.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/base/strings.h"
#include "tests/bench/issuer/certify_load.h"
#include "tests/bench/issuer/mesh_load.h"

namespace postern::bench {
namespace {

constexpr size_t kKeys = 64;
constexpr rlim_t kSpareDescriptors = 200;

struct Options {
  std::string issuer;
  std::vector<size_t> concurrency = {1, 8, 64};
  std::vector<size_t> streams = {1000, 5000, 10000};
  size_t workloads = 100;
  double seconds = 5;
  int changes = 3;
  bool json = false;
};

double Milliseconds(absl::Duration duration) {
  return absl::ToDoubleMilliseconds(duration);
}

nlohmann::json ToJson(const CertifyResult& result) {
  const double count = static_cast<double>(result.certificates);
  return {{"concurrency", result.concurrency},
          {"connection", result.fresh ? "fresh" : "standing"},
          {"certificates", result.certificates},
          {"failures", result.failures},
          {"first_failure", result.first_failure},
          {"per_second", count / absl::ToDoubleSeconds(result.wall)},
          {"per_cpu_second", count / absl::ToDoubleSeconds(result.cpu)},
          {"median_ms", Milliseconds(result.median)},
          {"p99_ms", Milliseconds(result.p99)}};
}

nlohmann::json ToJson(const MeshResult& result) {
  nlohmann::json changes = nlohmann::json::array();
  for (const ChangeResult& change : result.changes) {
    changes.push_back({{"all_ms", Milliseconds(change.all)},
                       {"median_ms", Milliseconds(change.median)},
                       {"cpu_ms", Milliseconds(change.cpu)}});
  }
  const double count = static_cast<double>(result.streams);
  return {{"streams", result.streams},
          {"connect_s", absl::ToDoubleSeconds(result.connect_wall)},
          {"connect_cpu_ms_per_stream", Milliseconds(result.connect_cpu) / count},
          {"pss_before_kib", result.pss_before_kib},
          {"pss_after_kib", result.pss_after_kib},
          {"pss_changed_kib", result.pss_changed_kib},
          {"kib_per_stream", (static_cast<double>(result.pss_after_kib) -
                              static_cast<double>(result.pss_before_kib)) /
                                 count},
          {"idle_cpu_ms_per_s", Milliseconds(result.idle_cpu)},
          {"changes", changes}};
}

void PrintCertify(const nlohmann::json& row) {
  std::printf("%-9s %11zu %10.0f %14.0f %10.2f %8.2f %9zu\n",
              row["connection"].get<std::string>().c_str(), row["concurrency"].get<size_t>(),
              row["per_second"].get<double>(), row["per_cpu_second"].get<double>(),
              row["median_ms"].get<double>(), row["p99_ms"].get<double>(),
              row["failures"].get<size_t>());
}

void PrintMesh(const nlohmann::json& row) {
  for (const nlohmann::json& change : row["changes"]) {
    std::printf("%7zu %9.1f %14.2f %11.0f %10.1f %12.0f %11.0f %13.0f\n",
                row["streams"].get<size_t>(), row["connect_s"].get<double>(),
                row["connect_cpu_ms_per_stream"].get<double>(),
                row["idle_cpu_ms_per_s"].get<double>(), row["kib_per_stream"].get<double>(),
                change["all_ms"].get<double>(), change["median_ms"].get<double>(),
                change["cpu_ms"].get<double>());
  }
}

absl::StatusOr<nlohmann::json> MeasureCertify(IssuerUnderTest& issuer, const Options& options,
                                              const RequestPool& pool,
                                              std::vector<Credential>& credentials) {
  nlohmann::json rows = nlohmann::json::array();
  std::fprintf(options.json ? stderr : stdout,
               "connection  concurrency   certs/s  certs/CPU-s  "
               "median ms   p99 ms  failures\n");
  for (const bool fresh : {false, true}) {
    for (const size_t concurrency : options.concurrency) {
      const CertifyPlan plan{
          .concurrency = concurrency, .fresh = fresh, .duration = absl::Seconds(options.seconds)};
      rows.push_back(ToJson(RunCertify(issuer, pool, credentials, plan)));
      if (!options.json) {
        PrintCertify(rows.back());
      }
      if (rows.back()["failures"].get<size_t>() > 0) {
        return absl::InternalError(
            base::StrCat("a renewal failed: ", rows.back()["first_failure"].get<std::string>()));
      }
    }
  }
  return rows;
}

absl::StatusOr<nlohmann::json> MeasureMesh(IssuerUnderTest& issuer, const Options& options,
                                           const std::vector<Credential>& credentials) {
  nlohmann::json rows = nlohmann::json::array();
  if (!options.json) {
    std::printf(
        "\nstreams connect s CPU ms/connect idle CPU ms KiB/stream change in ms   median "
        "ms change CPU ms\n");
  }
  for (const size_t streams : options.streams) {
    const absl::StatusOr<MeshResult> result =
        RunMesh(issuer, credentials, streams, options.changes);
    if (!result.ok()) {
      return result.status();
    }
    rows.push_back(ToJson(*result));
    if (!options.json) {
      PrintMesh(rows.back());
    }
  }
  return rows;
}

// Each size of the mesh gets an issuer of its own: what one leaves behind is not the next one's.
absl::StatusOr<nlohmann::json> Measure(const Options& options) {
  const absl::StatusOr<RequestPool> pool = MakeRequestPool(kKeys);
  if (!pool.ok()) {
    return pool.status();
  }
  nlohmann::json all = {{"certify", nlohmann::json::array()}, {"mesh", nlohmann::json::array()}};
  Options one = options;
  for (size_t round = 0; round <= options.streams.size(); ++round) {
    auto issuer = IssuerUnderTest::Start(options.issuer);
    if (!issuer.ok()) {
      return issuer.status();
    }
    auto enrolled = Enroll(**issuer, *pool, options.workloads);
    if (!enrolled.ok()) {
      return enrolled.status();
    }
    const bool certify = round == 0;
    const size_t proxies = certify ? 10 * options.workloads : options.streams[round - 1];
    auto credentials = RenewEach(**issuer, *pool, *enrolled, proxies);
    if (!credentials.ok()) {
      return credentials.status();
    }
    one.streams = certify ? std::vector<size_t>() : std::vector<size_t>{proxies};
    auto rows = certify ? MeasureCertify(**issuer, one, *pool, *credentials)
                        : MeasureMesh(**issuer, one, *credentials);
    if (!rows.ok()) {
      return rows.status();
    }
    for (nlohmann::json& row : *rows) {
      all[certify ? "certify" : "mesh"].push_back(std::move(row));
    }
  }
  return all;
}

absl::Status RaiseDescriptors(const Options& options) {
  const size_t most =
      std::max(*std::max_element(options.streams.begin(), options.streams.end()),
               *std::max_element(options.concurrency.begin(), options.concurrency.end()));
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < most + kSpareDescriptors) {
    return absl::FailedPreconditionError(
        base::StrCat("RLIMIT_NOFILE is ", files.rlim_max, ", and ", most + kSpareDescriptors,
                     " are needed: raise the hard limit, or choose fewer --streams"));
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  options.issuer = (std::filesystem::path(argv[0]).parent_path() / "postern-identity").string();
  CLI::App app("Measures postern-identity on loopback.", "postern-bench-issuer");
  app.add_option("--issuer", options.issuer, "The program to measure")->capture_default_str();
  app.add_option("--concurrency", options.concurrency, "Renewals at a time")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--streams", options.streams, "Mesh streams at a time")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--workloads", options.workloads, "Identities, shared by the streams in turn")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Of each renewal run")->capture_default_str();
  app.add_option("--changes", options.changes, "Policy changes for each number of streams")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Print the results as JSON alone");
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a file shows each row as it comes, too
  if (absl::Status raised = RaiseDescriptors(options); !raised.ok()) {
    std::fprintf(stderr, "postern-bench-issuer: %s\n", raised.ToString().c_str());
    return 2;
  }
  const absl::StatusOr<nlohmann::json> results = Measure(options);
  if (!results.ok()) {
    std::fprintf(stderr, "postern-bench-issuer: %s\n", results.status().ToString().c_str());
    return 1;
  }
  if (options.json) {
    std::printf("%s\n", results->dump(2).c_str());
  }
  return 0;
}

}  // namespace
}  // namespace postern::bench

int main(int argc, char** argv) {
  return postern::bench::Main(argc, argv);
}
