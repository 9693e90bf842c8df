# SPDX-License-Identifier: Apache-2.0
"""The instruments of tests/bench that need no network: the reader of callgrind's profiles, one small
count of instructions, and every micro-benchmark once."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ.get("POSTERN_SOURCE_DIR", os.getcwd())
BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(SOURCE, "build", "release"))
BENCH = os.path.join(SOURCE, "tests", "bench")
sys.path.append(BENCH)

import callgrind  # noqa: E402

PROFILE = """# callgrind format
version: 1
cmd: program --flag=1
positions: line
events: Ir

ob=/usr/bin/program
fl=main.cc
fn=main
1 10
cob=/usr/lib/libx.so.3
cfi=x.cc
cfn=work
calls=2 7
2 300
fi=/src/proxy/telemetry/worker_metrics.h
3 5
fe=main.cc
cfn=postern::telemetry::Log::Add(int)
calls=1 9
4 60

ob=/usr/lib/libx.so.3
fl=x.cc
fn=work
7 200
cfn=work'2
calls=1 7
8 100
fn=work'2
7 100

ob=/usr/bin/program
fl=log.cc
fn=postern::telemetry::Log::Add(int)
9 40
cfn=postern::telemetry::Text()
calls=3 20
10 20
fn=postern::telemetry::Text()
20 20
totals: 375
"""


class ProfileTest(unittest.TestCase):
    def read(self, text=PROFILE):
        return callgrind.read(text.splitlines(keepends=True))

    def test_sums_the_instructions_of_each_function_over_files_and_recursion(self):
        profile = self.read()
        self.assertEqual(profile.total, 375)
        by_function = profile.by_function()
        self.assertEqual(by_function["program", "main"], 15)
        self.assertEqual(by_function["libx.so.3", "work"], 300)
        self.assertEqual(profile.calls_of()["work"], 3)
        self.assertEqual(profile.calls_of()["postern::telemetry::Text()"], 3)

    def test_counts_what_lies_below_a_set_once_and_what_was_inlined(self):
        below = self.read().below(lambda function: "telemetry" in function,
                                  lambda function, file: "proxy/telemetry/" in file)
        self.assertEqual(below, 60 + 5)

    def test_subtracts_a_shorter_run(self):
        longer = self.read(PROFILE.replace("7 200", "7 260").replace("2 300", "2 360"))
        difference = longer.minus(self.read())
        self.assertEqual(difference.total, 60)
        self.assertEqual(difference.by_function()["libx.so.3", "work"], 60)
        self.assertEqual(difference.edges["main", "work"], 60)

    def test_names_the_calls_that_leave_a_set(self):
        leaving = self.read().leaving(lambda function: function == "main")
        self.assertEqual(leaving, {("main", "work"): 300,
                                   ("main", "postern::telemetry::Log::Add(int)"): 60})

    def test_refuses_another_event(self):
        with self.assertRaises(ValueError):
            self.read(PROFILE.replace("events: Ir", "events: Ir Dr"))


def skip_unless_plain(case):
    """Sanitizers change every count, and callgrind cannot run them."""
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as handle:
        cache = handle.read()
    if not re.search(r"^POSTERN_SANITIZE:\w+=$", cache, re.MULTILINE):
        case.skipTest("benchmarks are for builds without sanitizers")


class InstructionsTest(unittest.TestCase):
    """At most 3 % of a small request's instructions may go into metrics and access log."""

    # As many requests as make the writer's sleeping and waking, which differs by run, small in each.
    def test_a_small_request_spends_little_on_telemetry(self):
        skip_unless_plain(self)
        if shutil.which("valgrind") is None:
            self.skipTest("valgrind is not installed: deploy/packages.sh install bench")
        if not os.path.exists(os.path.join(BUILD, "bin", "postern-proxy")):
            self.skipTest("this build has no postern-proxy")
        directory = tempfile.mkdtemp(prefix="postern-bench-test-")
        self.addCleanup(shutil.rmtree, directory)
        out = os.path.join(directory, "counts.json")
        done = subprocess.run(
            [sys.executable, os.path.join(BENCH, "instructions.py"), "--build", BUILD, "--requests",
             "1000", "--connections", "0", "--json", out],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(out, encoding="utf-8") as handle:
            request = json.load(handle)["1"]["request"]
        for side in ("client", "server"):
            counts = request[side]
            self.assertGreater(counts["instructions"], 5_000, side)
            self.assertLess(counts["instructions"], 100_000, side)
            self.assertGreater(counts["telemetry"], 0, "not even a counter of bytes was seen")
            self.assertLessEqual(counts["telemetry_share"], 0.03, side)
            # One chunk each way, and no more calls than that takes.
            self.assertEqual(round(counts["calls"]["send"]), 2, counts["calls"])


class MicroBenchTest(unittest.TestCase):
    def test_every_micro_benchmark_runs(self):
        skip_unless_plain(self)
        known = subprocess.run(["cmake", "--build", BUILD, "--target", "help"],
                               stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        if "postern-bench-micro:" not in known.stdout:
            self.skipTest("libbenchmark-dev is not installed: deploy/packages.sh install bench")
        built = subprocess.run(["cmake", "--build", BUILD, "--target", "postern-bench-micro"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               check=False, timeout=240)
        self.assertEqual(built.returncode, 0, built.stdout[-3000:])
        done = subprocess.run([os.path.join(BUILD, "bin", "postern-bench-micro"),
                               "--benchmark_min_time=0.001", "--benchmark_format=json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        results = {entry["name"]: entry for entry in json.loads(done.stdout)["benchmarks"]}
        for name in ("HandshakeFull/intermediates:0/manual_time", "Record/client_to_server/64",
                     "Record/server_to_client/1048576", "SniffMeshHello",
                     "AuthorizeNobody/rules:10000", "CountBytes", "Relay/chunk:16384"):
            self.assertGreater(results[name]["cpu_time"], 0, name)


if __name__ == "__main__":
    unittest.main()
