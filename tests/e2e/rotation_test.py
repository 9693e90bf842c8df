# SPDX-License-Identifier: Apache-2.0
"""A whole rotation of root and of intermediate, under traffic: nobody notices."""

import contextlib
import json
import re
import subprocess
import time
import unittest

import harness
from harness import SERVER, SERVER_BACK, SERVER_ID
from lab import wait_until

LIGHT = 18  # proxies beside the pair: twenty in all
LONG = 100  # connections through the client, and as many through the light proxies
FIRST_TUNNEL, FIRST_ADMIN, FIRST_METRICS = 14000, 14100, 14200


class Traffic:
    """Long connections that echo, and short ones: `end()` returns what became of them."""

    def __init__(self, mesh, space, address, port, *words):
        self._process = mesh.app(space, "carry", address, port, *words, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        if self._process.stdout.readline() != b"running\n":
            raise AssertionError("the traffic did not start")

    def end(self):
        out, _ = self._process.communicate(timeout=60)
        return json.loads(out)


class RotationTest(harness.MeshTest):
    mesh_options = {"svid_ttl": "10s"}
    echo_port = 7000

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        cls.light = [cls.add_light(mesh, i) for i in range(LIGHT)]
        for i in range(LIGHT):
            wait_until(lambda n=i: cls.light_is_ready(n), 20, f"light proxy {i}")
        return mesh

    @classmethod
    def add_light(cls, mesh, i):
        """A proxy of one thread in the issuer's namespace, with a tunnel to the server."""
        return mesh.add_workload(
            f"light{i}", mesh.back, "127.0.0.1", "--workers", "1",
            "--admin", f"127.0.0.1:{FIRST_ADMIN + i}", "--metrics", f"127.0.0.1:{FIRST_METRICS + i}",
            "--tunnel", f"outbound,listen=127.0.0.1:{FIRST_TUNNEL + i},target={SERVER_BACK}:7000,"
                        f"peer={SERVER_ID}", intercept=None)

    @classmethod
    def light_is_ready(cls, i):
        try:
            return cls.light[i].get("/ready", FIRST_METRICS + i)[0] == 200
        except OSError:
            return False

    def all_metrics(self):
        """One dictionary for each of the twenty proxies."""
        pair = [self.proxy(name).metrics() for name in ("client", "server")]
        return pair + [harness.parse_metrics(proxy.get("/metrics", FIRST_METRICS + i)[1])
                       for i, proxy in enumerate(self.light)]

    def total(self, pattern):
        expression = re.compile(pattern)
        return sum(value for metrics in self.all_metrics() for name, value in metrics.items()
                   if expression.match(name))

    def status(self):
        return json.loads(self.mesh.postern("ca", "status", "--json").stdout)

    def current(self, role):
        return next(ca["id"] for ca in self.status()["cas"]
                    if (ca["role"], ca["state"]) == (role, "current"))

    def rotate(self, kind):
        """The whole of it; how long it took, in seconds."""
        before = self.current(kind), self.current("intermediate")
        started = time.monotonic()
        said = self.mesh.postern("ca", "rotate", "--kind", kind, "--timeout", "120s").stdout
        seconds = time.monotonic() - started
        for word in ("prepared", "activated", "retired"):
            self.assertIn(word, said)
        self.assertNotEqual(self.current(kind), before[0])
        self.assertNotEqual(self.current("intermediate"), before[1])
        wait_until(lambda: not self.status()["not_followed"], 10, "everybody has the last bundle")
        return seconds

    def failed(self):
        return self.total(r"postern_tls_handshake_failures_total")

    def lost(self):
        return self.total(r'postern_connections_closed_total\{.*reason="(?!ok")')

    def revoked(self):
        return self.total(r'postern_connections_closed_total\{.*reason="policy_revoked"')

    def test_a_root_that_is_forced_out_ends_what_stands_on_it(self):
        old = self.mesh.client.connect(SERVER[4], 7000)
        with contextlib.closing(old):
            self.mesh.postern("ca", "prepare", "--kind", "root")
            wait_until(lambda: self.mesh.postern("ca", "activate", "--kind", "root",
                                                 check=False).returncode == 0, 20, "activation", 0.2)
            wait_until(lambda: "old_certificates_until" not in self.status(), 30, "renewals", 0.5)
            new = self.mesh.client.connect(SERVER[4], 7000)
            with contextlib.closing(new):
                for sock in (old, new):
                    sock.sendall(b"before")
                    self.assertEqual(sock.recv(6), b"before")
                before = self.revoked()
                self.mesh.postern("ca", "retire", "--kind", "root", "--force")
                started = time.monotonic()
                old.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(old.recv(1), b"")
                seconds = time.monotonic() - started
                print(f"rotation: a root forced out ended its connection after {seconds:.3f} s",
                      flush=True)
                self.assertLess(seconds, 1)
                self.assertGreater(self.revoked(), before)
                new.sendall(b"after")
                self.assertEqual(new.recv(5), b"after")

    def test_root_and_intermediate_are_rotated_under_traffic(self):
        pin = self.mesh.pin()
        failed, lost = self.failed(), self.lost()
        traffic = [Traffic(self.mesh, self.mesh.client, SERVER[4], 7000, LONG),
                   Traffic(self.mesh, self.mesh.back, "127.0.0.1", FIRST_TUNNEL, LONG, LIGHT)]
        seconds = {kind: self.rotate(kind) for kind in ("root", "intermediate", "root")}
        counts = [one.end() for one in traffic]
        handshakes = self.total(r"postern_tls_handshakes?_total")
        failed, lost = self.failed() - failed, self.lost() - lost
        print(f"rotation: {2 + LIGHT} proxies, {sum(c['long'] for c in counts)} of {2 * LONG} long "
              f"connections held, {sum(c['echoes'] for c in counts)} echoes on them, "
              f"{sum(c['short'] for c in counts)} short connections, {handshakes:.0f} handshakes, "
              f"{failed:.0f} failed, {lost:.0f} lost; seconds for the last root "
              f"{seconds['root']:.1f}, for the intermediate {seconds['intermediate']:.1f}", flush=True)
        for one in counts:
            self.assertEqual(one["errors"], [])
            self.assertEqual(one["long"], LONG)
            self.assertGreater(one["echoes"], 20 * LONG)
            self.assertGreater(one["short"], 200)
        self.assertEqual(failed, 0)
        self.assertEqual(lost, 0)
        self.assertNotEqual(self.mesh.pin(), pin)
        self.restart_with_the_old_pin()

    def restart_with_the_old_pin(self):
        """What a proxy was pinned to is gone; what it learned since is in its state directory."""
        proxy = self.proxy("client")
        self.assertNotIn(self.mesh.pin(), proxy.command)
        proxy.stop()
        proxy.start()
        proxy.wait_ready()
        wait_until(lambda: proxy.metric("postern_issuer_connected") == 1, 20, "the stream")
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "5")

    def test_steps_alone_wait_and_say_for_what(self):
        """After the other test, by name; a restart of the issuer in each phase changes nothing."""
        old = self.current("intermediate")
        self.mesh.postern("ca", "prepare", "--kind", "intermediate")
        self.mesh.postern("ca", "prepare", "--kind", "intermediate")
        self.mesh.postern("ca", "abort", "--kind", "intermediate")
        self.assertEqual(self.status()["phase"], "none")
        self.mesh.postern("ca", "prepare", "--kind", "intermediate")
        self.restart_issuer()
        self.assertEqual(self.status()["phase"], "prepared")
        wait_until(lambda: self.mesh.postern("ca", "activate", "--kind", "intermediate",
                                             check=False).returncode == 0, 30, "activation", 0.5)
        refused = self.mesh.postern("ca", "retire", "--kind", "intermediate", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("certificates of the old CA are in use", refused.stderr)
        self.restart_issuer()
        self.assertEqual(self.status()["phase"], "active")
        said = self.mesh.postern("ca", "rotate", "--kind", "intermediate", "--timeout", "60s").stdout
        self.assertIn("going on with the rotation that is active", said)
        self.assertNotEqual(self.current("intermediate"), old)
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "5")

    def restart_issuer(self):
        self.mesh.stop_issuer()
        self.mesh.start_issuer()


if __name__ == "__main__":
    unittest.main()
