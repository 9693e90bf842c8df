# SPDX-License-Identifier: Apache-2.0
"""One address that floods a proxy, and another that is served as ever meanwhile."""

import contextlib
import json
import os
import subprocess
import time
import unittest

import harness
from harness import SERVER, SERVER_BACK
from lab import wait_until

FLOOD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "flood.py")
PORT = 7000
SAMPLES = 200


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class FloodTest(harness.MeshTest):
    """The client's workload is in the mesh and well-behaved; what floods comes from the issuer's
    namespace, which is 198.18.3.2 for the server."""

    server_words = ()

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        # Every connection is a full handshake, whatever happened before.
        mesh.add_pair(["--resumption", "false"], ["--resumption", "false", *cls.server_words])
        mesh.serve("echo", PORT)
        return mesh

    def flood(self, kind, count, again=0):
        process = self.mesh.lab.start(self.mesh.back, "python3", FLOOD, kind, SERVER_BACK, str(PORT),
                                      str(count), str(again), stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)
        def end():
            self.mesh.lab.stop(process)
            process.stdin.close()
            process.stdout.close()
        self.addCleanup(end)
        return process

    def ask(self, flood, what=""):
        flood.stdin.write(what.encode() + b"\n")
        flood.stdin.flush()
        return json.loads(flood.stdout.readline())

    def closed(self, reason):
        return self.proxy("server").metric("postern_connections_closed_total", reason=reason)

    def exchange_times(self):
        """Seconds from the connect to the echo, of connections through both proxies one after the
        other. One that is refused or reset is an error."""
        times = []
        for i in range(SAMPLES):
            began = time.monotonic()
            with contextlib.closing(self.mesh.client.connect(SERVER[4], PORT, 20)) as sock:
                data = b"exchange %d" % i
                sock.sendall(data)
                self.assertEqual(sock.recv(100), data)
            times.append(time.monotonic() - began)
        return times

    def assert_served_as_before(self, before, during, what):
        """The machine is shared with the flood itself and whatever else runs: what is excluded is
        that anybody waits for the flood's connections, which have seconds (or a minute) to stay."""
        halves = percentile(before, 0.5), percentile(during, 0.5)
        lasts = percentile(before, 0.99), percentile(during, 0.99)
        print(f"{what}: p50 {halves[0] * 1000:.1f} -> {halves[1] * 1000:.1f} ms, "
              f"p99 {lasts[0] * 1000:.1f} -> {lasts[1] * 1000:.1f} ms", flush=True)
        self.assertLess(halves[1], 2 * halves[0] + 0.02)
        self.assertLess(lasts[1], 3 * lasts[0] + 0.2)


class FiveThousandHalfOpenTest(FloodTest):
    """With room for them all."""

    server_words = ("--max-handshakes", "30000", "--max-connections", "30000", "--handshake-timeout",
                    "60s")

    def test_another_is_served_within_its_normal_latency(self):
        before = self.exchange_times()
        flood = self.flood("half", 5000)
        wait_until(lambda: self.ask(flood)["open"] == 5000, 30, lambda: self.ask(flood))
        wait_until(lambda: self.proxy("server").open_connections() >= 5000, 30, "5000 accepted")
        during = self.exchange_times()
        self.assert_served_as_before(before, during, "5,000 half-open held")
        self.assertEqual(self.ask(flood), {"open": 5000, "opened": 5000, "ended": 0})
        self.assertEqual(self.closed("source_handshakes"), 0)


class DefaultsTest(FloodTest):
    """With nothing configured: the flood gets its share and no more."""

    def test_half_open_handshakes_without_end_leave_room_for_another(self):
        before = self.exchange_times()
        flood = self.flood("half", 5000, 1000)
        wait_until(lambda: self.closed("source_handshakes") > 4000, 30,
                   lambda: (self.ask(flood), self.proxy("server").metrics()))
        during = self.exchange_times()
        self.assert_served_as_before(before, during, "half-open without end")
        self.assertLess(self.ask(flood)["open"], 600)
        self.assertEqual(self.proxy("server").metric("postern_accept_paused_total"), 0)
        # A few of each second are recorded, the others only counted.
        records = [r for r in self.proxy("server").access_log() if r["reason"] == "source_handshakes"]
        self.assertTrue(records)
        self.assertLess(len(records), self.closed("source_handshakes") / 4)
        self.assertIn("198.18.3.2:", records[0]["downstream"])
        self.assertEqual(records[0]["security"], "none")

        def failure():
            return [f for f in self.proxy("server").failures() if f["reason"] == "source_handshakes"]
        self.assertIn("share of the handshakes", failure()[0]["detail"])

    def test_half_open_handshakes_end_at_their_deadline(self):
        timed_out = self.closed("handshake_timeout")
        self.flood("half", 300)
        wait_until(lambda: self.closed("handshake_timeout") >= timed_out + 300, 15, "the deadline")

    def test_plaintext_without_end_leaves_room_for_another(self):
        before = self.exchange_times()
        flood = self.flood("plain", 50, 1000)
        wait_until(lambda: self.closed("plaintext_refused") > 500, 30, "refusals")
        during = self.exchange_times()
        self.assert_served_as_before(before, during, "plaintext without end")
        self.assertGreater(self.ask(flood)["ended"], 500)


class RateTest(FloodTest):
    server_words = ("--max-rate-per-source", "50")

    def test_a_source_that_exceeds_its_rate_is_reset_and_another_is_not(self):
        # The well-behaved one keeps to the rate.
        flood = self.flood("plain", 100, 1000)
        wait_until(lambda: self.closed("source_rate") > 500, 30, lambda: self.ask(flood))
        began, let_in = time.monotonic(), self.closed("plaintext_refused")
        for i in range(20):
            with contextlib.closing(self.mesh.client.connect(SERVER[4], PORT)) as sock:
                data = b"exchange %d" % i
                sock.sendall(data)
                self.assertEqual(sock.recv(100), data)
            time.sleep(0.05)
        let_in, took = self.closed("plaintext_refused") - let_in, time.monotonic() - began
        self.assertLess(let_in, 50 * took + 110)
        self.assertGreater(let_in, 25 * took)


class IdleInPermissiveModeTest(FloodTest):
    """Clients that say nothing are given to the application, which may have to speak first."""

    server_words = ("--peer-mode", "permissive", "--max-connections-per-source", "300")

    def test_idle_clients_have_their_limit_and_another_is_served(self):
        before = self.exchange_times()
        flood = self.flood("idle", 2000)
        wait_until(lambda: self.closed("source_connections") >= 1700, 30, lambda: self.ask(flood))
        during = self.exchange_times()
        self.assert_served_as_before(before, during, "idle in permissive mode")
        self.assertEqual(self.ask(flood)["open"], 300)


class LateHandshakesInPermissiveModeTest(FloodTest):
    """Clients that say nothing until they are let in as such, and begin a handshake then."""

    server_words = ("--peer-mode", "permissive", "--max-handshakes-per-source", "50",
                    "--handshake-timeout", "10s")

    def test_they_have_the_limit_of_handshakes_and_another_is_served(self):
        def waiting():
            return sum(c["phase"] == "server_first"
                       for c in self.proxy("server").page("/connections"))
        before = self.exchange_times()
        # Those that come too many at once are refused at the accept, and come again.
        flood = self.flood("idle", 400, 200)
        wait_until(lambda: waiting() == 400, 30, lambda: self.ask(flood))
        refused = self.closed("source_handshakes")
        self.ask(flood, "hello")
        wait_until(lambda: self.closed("source_handshakes") >= refused + 350, 8,
                   lambda: self.ask(flood))
        during = self.exchange_times()
        self.assert_served_as_before(before, during, "late handshakes in permissive mode")
        wait_until(lambda: self.closed("handshake_timeout") >= 50, 15, "the deadline")
        self.assertEqual(self.closed("handshake_timeout"), 50)


del FloodTest

if __name__ == "__main__":
    unittest.main()
