# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself: it yields every number, judges goals rightly, and leaves nothing behind."""

import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from lab import wait_until

BENCH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench")
sys.path.insert(0, BENCH)

import accounting  # noqa: E402  (the benchmark's modules, found by the line above)
import goals  # noqa: E402
import probe  # noqa: E402
from metrics import BY_KEY  # noqa: E402
from results import Results  # noqa: E402

BUILD = os.environ.get("POSTERN_BUILD_DIR", "build/release")
COMPARE = [sys.executable, os.path.join(BENCH, "compare.py"), "--smoke", "--build", BUILD]
MEASURED = ("request_cpu_us", "request_rate", "request_p50_us", "request_p99_us", "full_cpu_ms",
            "bulk1_cpu_s_per_gb", "bulk1_gbit_s", "idle_pss_mib", "connection_kib", "start_ms")


def processes_naming(text):
    """PIDs of processes with a text in their command line."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as handle:
                if text.encode() in handle.read():
                    found.append(path.split("/")[2])
        except OSError:
            continue
    return found


class SmokeTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="pstn-bench-test-")
        self.addCleanup(self.directory.cleanup)
        self.environment = dict(os.environ, TMPDIR=self.directory.name)

    def compare(self, *words, timeout, environment=None):
        """Runs a smoke comparison; (status, standard output, standard error). Ended, it cleans up."""
        process = subprocess.Popen([*COMPARE, *words], env=environment or self.environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.terminate()
            process.wait(timeout=20)
        return process.returncode, out, err

    def assert_nothing_left(self):
        self.assertEqual(glob.glob(self.directory.name + "/pstn-bench-*"), [])
        wait_until(lambda: not processes_naming(self.directory.name), 5, "no process is left")

    def test_every_number_is_there_for_postern_and_one_peer(self):
        out = os.path.join(self.directory.name, "out.json")
        status, page, progress = self.compare("--json", out, timeout=120)
        said = page + progress
        self.assertEqual(status, 0, said)
        with open(out, encoding="utf-8") as handle:
            content = json.load(handle)
        for key in MEASURED:
            self.assertIn(BY_KEY[key].title, page)
            for peer in ("postern", "haproxy"):
                entry = content["results"].get(key, {}).get(peer, {})
                self.assertGreater(entry.get("median", 0), 0, f"{key} of {peer}: {entry}\n{said}")
        for peer in ("postern", "haproxy"):
            self.assertIn("TLS 1.3", content["handshakes"].get(peer, ""), said)
        self.assertEqual(len(content["goals"]), len(goals.judge(Results([]))))
        self.assert_nothing_left()

    def test_a_peer_that_is_absent_is_a_visible_gap(self):
        environment = {k: v for k, v in self.environment.items() if k != "ENVOY_BIN"}
        status, page, progress = self.compare("--peers", "envoy", "--work", "start", timeout=60,
                                              environment=environment)
        self.assertEqual(status, 1, "nothing was measured")
        self.assertIn("ENVOY_BIN is not set", page.partition("gaps")[2], progress)

    def test_a_signal_leaves_nothing_behind(self):
        process = subprocess.Popen(COMPARE, env=self.environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.kill)
        wait_until(lambda: len(processes_naming(self.directory.name)) > 1, 20, "proxies started")
        process.terminate()
        self.assertEqual(process.wait(timeout=20), 128 + 15)
        self.assert_nothing_left()


class GoalsTest(unittest.TestCase):
    def verdicts(self, **values):
        """Outcomes by goal, where each value is {peer: number} of one metric."""
        results = Results(["none", "floor", "postern", "haproxy", "nginx", "envoy"])
        for key, numbers in values.items():
            for peer, number in numbers.items():
                results.add(peer, {key: number})
        return {verdict.goal: verdict.outcome for verdict in goals.judge(results)}

    def test_a_share_of_a_peer_is_reached_at_its_limit_and_not_above(self):
        name = "small request: CPU <= 0.50 of Envoy"
        for own, outcome in ((10, goals.REACHED), (10.1, goals.MISSED)):
            judged = self.verdicts(request_cpu_us={"postern": own, "envoy": 20})
            self.assertEqual(judged[name], outcome)
        self.assertEqual(self.verdicts(request_cpu_us={"postern": 1})[name], goals.UNKNOWN)

    def test_the_floor_is_no_peer(self):
        name = "small request: CPU <= 0.75 of the best other"
        judged = self.verdicts(request_cpu_us={"floor": 1, "postern": 15, "nginx": 20})
        self.assertEqual(judged[name], goals.REACHED)

    def test_the_best_other_is_neither_envoy_nor_the_column_without_a_proxy(self):
        judged = self.verdicts(request_cpu_us={"none": 1, "postern": 15, "haproxy": 30, "nginx": 20,
                                               "envoy": 2})
        self.assertEqual(judged["small request: CPU <= 0.75 of the best other"], goals.REACHED)

    def test_lowest_of_all_counts_envoy(self):
        name = "latency added at 5,000/s: p50 lowest of all"
        for envoy, outcome in ((50, goals.MISSED), (90, goals.REACHED), (-3, goals.UNKNOWN)):
            judged = self.verdicts(added_p50_us={"none": 1, "postern": 80, "haproxy": 99,
                                                 "envoy": envoy})
            self.assertEqual(judged[name], outcome)

    def test_a_number_that_cannot_be_reaches_nothing(self):
        name = "idle connection and proxy <= 20 KiB"
        for own, outcome in ((20, goals.REACHED), (20.1, goals.MISSED), (-5, goals.UNKNOWN)):
            self.assertEqual(self.verdicts(connection_kib={"postern": own})[name], outcome)

    def test_a_second_worker_may_cost_five_percent(self):
        name = "1 to 2 workers: instructions per request within 5 %"
        for second, outcome in ((105, goals.REACHED), (106, goals.MISSED)):
            judged = self.verdicts(instructions_1={"postern": 100},
                                   instructions_2={"postern": second})
            self.assertEqual(judged[name], outcome)


BURN = """
import subprocess, sys, threading, time
def burn():
    while time.thread_time() < 0.15:
        pass
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print("burnt", flush=True)
time.sleep(60)
"""


class AccountingTest(unittest.TestCase):
    def test_counts_ended_threads_and_children_as_the_kernel_does(self):
        process = subprocess.Popen([sys.executable, "-c", BURN, BURN], stdout=subprocess.PIPE,
                                   start_new_session=True)
        try:
            for _ in range(2):  # the child shares the pipe
                self.assertEqual(process.stdout.readline(), b"burnt\n")
            counted = accounting.settled_cpu_seconds([process.pid])
            children = accounting.tree(process.pid)
            self.assertEqual(len(children), 2)
            ticks = 0
            for pid in children:
                with open(f"/proc/{pid}/stat", encoding="ascii") as handle:
                    ticks += sum(int(word) for word in handle.read().rpartition(")")[2].split()[11:13])
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        self.assertGreaterEqual(counted, 0.3)
        self.assertAlmostEqual(counted, ticks / os.sysconf("SC_CLK_TCK"), delta=0.05)


class HelloTest(unittest.TestCase):
    """Records as RFC 8446 lays them out, made by hand."""

    @staticmethod
    def record(extensions, random=b"r" * 32):
        body = b"\x03\x03" + random + b"\x20" + b"s" * 32 + b"\x13\x01\x00"
        body += len(extensions).to_bytes(2, "big") + extensions
        message = b"\x02" + len(body).to_bytes(3, "big") + body
        return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message

    VERSIONS = b"\x00\x2b\x00\x02\x03\x04"
    SHARE = b"\x00\x33\x00\x24\x00\x1d\x00\x20" + b"k" * 32
    PSK = b"\x00\x29\x00\x02\x00\x00"

    def test_tells_a_resumed_session_from_a_full_handshake(self):
        full = probe.find_hello(self.record(self.VERSIONS + self.SHARE))
        self.assertTrue(full.is_tls13)
        self.assertFalse(full.resumed)
        self.assertEqual(full.words(), "TLS 1.3, X25519, AES-128-GCM")
        self.assertTrue(probe.find_hello(self.record(self.VERSIONS + self.SHARE + self.PSK)).resumed)
        self.assertFalse(probe.find_hello(self.record(self.SHARE)).is_tls13)

    def test_passes_over_a_retry_and_waits_for_the_rest(self):
        retry = self.record(self.VERSIONS, random=probe.RETRY)
        whole = self.record(self.VERSIONS + self.SHARE + self.PSK)
        self.assertTrue(probe.find_hello(retry + whole).resumed)
        for end in (0, 4, len(whole) - 1):
            self.assertIsNone(probe.find_hello(retry + whole[:end]))


class GrowthTest(unittest.TestCase):
    def test_measures_every_axis_at_three_sizes(self):
        with tempfile.TemporaryDirectory(prefix="pstn-bench-test-") as directory:
            os.chmod(directory, 0o755)  # one of the proxies runs as another user
            out = os.path.join(directory, "out.json")
            done = subprocess.run(
                [sys.executable, os.path.join(BENCH, "growth.py"), "--quick", "--build", BUILD,
                 "--json", out], env=dict(os.environ, TMPDIR=directory), text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200)
            self.assertEqual(done.returncode, 0, done.stdout)
            with open(out, encoding="utf-8") as handle:
                content = json.load(handle)
            expected = {"connections": 2, "workloads": 4, "endpoints": 5, "learnt": 3, "rules": 3}
            for axis, keys in expected.items():
                self.assertEqual(len(content[axis]), 3, axis)
                for size, found in content[axis].items():
                    self.assertEqual(len(found), keys, f"{axis} {size}: {found}")
                    for key, samples in found.items():
                        # Few connections may fit into what the heap has left.
                        least = -1 if key in ("connection_kib", "learnt_mib") else 0
                        self.assertGreaterEqual(samples[0], least, f"{axis} {size} {key}")
            self.assertEqual(glob.glob(directory + "/pstn-bench-*"), [])


if __name__ == "__main__":
    unittest.main()
