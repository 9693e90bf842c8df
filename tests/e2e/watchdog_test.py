# SPDX-License-Identifier: Apache-2.0
"""The proxy notices by its own probes that its interception rules are gone, and that they are back."""

import subprocess
import time
import unittest

import harness
from harness import PROXY_UID, SERVER
from lab import wait_until

PERIOD = 1.0
# A probe may have been launched just before; it is judged 250 ms later.
BOUND = PERIOD + 1.5


class ProbedTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_pair(client_words=["--intercept-probe", "1s", *cls.client_words],
                      server_words=["--intercept-probe", "1s"])
        mesh.serve("echo", 8080)
        return mesh

    def verdict(self, name="client"):
        return self.proxy(name).page("/status")["intercept_ok"]

    def wait_verdict(self, wanted, timeout=BOUND):
        started = time.monotonic()
        wait_until(lambda: self.verdict() is wanted, timeout, f"intercept_ok {wanted}")
        return time.monotonic() - started

    def setUp(self):
        self.mesh.intercept_up(self.mesh.client)
        self.wait_verdict(True)

    def assert_shown(self, wanted):
        client = self.proxy("client")
        self.assertEqual(client.metric("postern_intercept_ok"), 1.0 if wanted else 0.0)
        status, text = client.get("/ready", 15020)
        self.assertEqual(status, 200)  # a hint, no more: connections that come are served
        (self.assertNotIn if wanted else self.assertIn)("not in force", text)


class WatchdogTest(ProbedTest):
    def load(self):
        process = self.mesh.app(self.mesh.client, "load", SERVER[4], 8080, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"running\n")
        self.addCleanup(process.communicate)
        return process

    def test_sees_within_a_bounded_time_that_rules_were_deleted_under_traffic(self):
        self.load()
        self.assert_shown(True)
        self.mesh.client.run("nft", "flush", "ruleset")
        took = self.wait_verdict(False)
        self.assert_shown(False)
        print(f"deleted: seen after {took:.2f} s", flush=True)
        self.mesh.intercept_up(self.mesh.client)
        took = self.wait_verdict(True)
        self.assert_shown(True)
        print(f"back: seen after {took:.2f} s", flush=True)
        with open(self.proxy("client").log_path, encoding="utf-8") as handle:
            self.assertIn("interception rules are NOT in force (IPv4)", handle.read())

    def test_the_other_proxy_is_not_concerned(self):
        self.mesh.client.run("nft", "flush", "ruleset")
        self.wait_verdict(False)
        self.assertIs(self.verdict("server"), True)

    def test_tells_the_families_apart(self):
        listing = self.mesh.client.run("nft", "-a", "list", "chain", "inet", "postern", "outbound").stdout
        handles = [line.rsplit(" ", 1)[1] for line in listing.splitlines()
                   if "ip6 daddr ::1" in line and "20001" in line]
        self.assertEqual(len(handles), 1)
        self.mesh.client.run("nft", "delete", "rule", "inet", "postern", "outbound", "handle", handles[0])
        self.wait_verdict(False)
        page = self.proxy("client").page("/status")["interception"]
        self.assertEqual((page["ipv4"], page["ipv6"], page["mode"]),
                         ("caught", "not_caught", "redirect"))

    def test_rules_of_another_proxy_do_not_count(self):
        self.mesh.client.run(self.mesh.tool("postern"), "intercept", "down")
        self.mesh.intercept_up(self.mesh.client, "--outbound-port", "16001", "--inbound-port", "16006")
        self.wait_verdict(False)

    def test_probes_are_nobodys_connections(self):
        client = self.proxy("client")
        client.wait_idle()
        before, failures = client.metric("postern_connections_opened_total"), client.failures()
        time.sleep(3 * PERIOD)
        self.assertEqual(client.metric("postern_connections_opened_total"), before)
        self.assertEqual(client.failures(), failures)

    def test_sees_the_table_where_only_inbound_is_taken(self):
        self.mesh.intercept_up(self.mesh.client, "--no-outbound")
        time.sleep(BOUND)
        self.assertIs(self.verdict(), True)

    def test_nobody_but_the_proxy_is_led_to_it_by_the_probes_rule(self):
        done = self.mesh.client.run("python3", "-c", "import socket\nsocket.create_connection(('127.0.0.1', 20001))",
                                    check=False)
        self.assertIn("ConnectionRefusedError", done.stderr)

    def test_the_proxys_user_cannot_make_it_dial_itself_for_ever(self):
        client = self.proxy("client")
        before = client.metric("postern_connections_opened_total")
        code = "import socket\ns=socket.create_connection(('127.0.0.1', 20001))\nprint(s.recv(1))"
        self.mesh.client.run("python3", "-c", code, uid=PROXY_UID, check=False)
        wait_until(lambda: client.metric("postern_connections_closed_total", reason="self_loop") > 0,
                   what="self_loop")
        self.assertEqual(client.metric("postern_connections_opened_total"), before + 1)


class AtItsLimitTest(ProbedTest):
    """A proxy that accepts nothing at present does not accept its own probes either."""

    client_words = ("--workers", "1", "--max-connections", "2")

    def setUp(self):
        super().setUp()
        client = self.proxy("client")
        client.wait_idle()
        self.paused = client.metric("postern_accept_paused_total")
        self.opened = client.metric("postern_connections_opened_total")
        self.held = []
        self.addCleanup(self.let_go)
        for _ in range(2):
            self.held.append(self.mesh.client.connect(SERVER[4], 8080))
        for sock in self.held:
            sock.sendall(b"held")
            self.assertEqual(sock.recv(4), b"held")
        wait_until(lambda: client.metric("postern_accept_paused_total") > self.paused, what="limit")

    def let_go(self):
        while self.held:
            self.held.pop().close()
        self.proxy("client").wait_idle()

    def stays(self, wanted, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.assertIs(self.verdict(), wanted)
            time.sleep(0.1)

    def test_that_is_no_sign_that_the_rules_are_gone(self):
        with open(self.proxy("client").log_path, encoding="utf-8") as handle:
            handle.read()
            self.stays(True, 6 * PERIOD)  # three probes without an answer would do
            self.assert_shown(True)
            self.assertNotIn("NOT in force", handle.read())

    def test_rules_that_go_and_come_are_noticed_as_ever(self):
        self.mesh.client.run("nft", "flush", "ruleset")
        took = self.wait_verdict(False)
        self.mesh.intercept_up(self.mesh.client)
        back = self.wait_verdict(True)
        print(f"at the limit: deleted seen after {took:.2f} s, back after {back:.2f} s", flush=True)
        self.stays(True, 3 * PERIOD)

    def test_probes_that_had_to_wait_are_nobodys_connections_later(self):
        client = self.proxy("client")
        failures = client.failures()
        time.sleep(4 * PERIOD)
        self.let_go()
        self.wait_verdict(True)
        time.sleep(PERIOD)  # for whatever comes of those that waited
        self.assertEqual(client.metric("postern_connections_opened_total"), self.opened + 2)
        self.assertEqual(client.failures(), failures)


del ProbedTest

if __name__ == "__main__":
    unittest.main()
