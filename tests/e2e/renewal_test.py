# SPDX-License-Identifier: Apache-2.0
"""Certificates that live for seconds under load, and an issuer that goes away and comes back."""

import json
import os
import subprocess
import time
import unittest
from datetime import datetime, timezone

import harness
import lab
from harness import CLIENT_ID, PROXY_UID, SERVER
from lab import wait_until

BACKDATED = 120  # seconds, of every leaf
RENEWALS = 200 if harness.SOAK else 24


class Load:
    """The client's load on the server's echo port; `end()` returns its counts."""

    def __init__(self, mesh):
        self._process = mesh.app(mesh.client, "load", SERVER[4], 7000, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        if self._process.stdout.readline() != b"running\n":
            raise AssertionError("the load did not start")

    def end(self):
        out, _ = self._process.communicate(timeout=60)
        return json.loads(out)


def renewals(proxy, result="ok"):
    return proxy.metric("postern_identity_renewals_total", result=result)


def leaf_not_after(proxy):
    return proxy.metric("postern_certificate_not_after_seconds", kind="leaf")


class RenewalTest(harness.MeshTest):
    """A lifetime of 10 s: a renewal about every five."""

    TTL = 10
    mesh_options = {"svid_ttl": f"{TTL}s"}
    echo_port = 7000

    def age_of_served_certificate(self):
        """What a new connection to the server sees: seconds since the leaf was issued."""
        state = self.mesh.path("client.state")
        # As the proxies' user it goes past the client's proxy.
        done = self.mesh.client.run("python3", self.mesh.apps, "leaf", SERVER[4], "7000",
                                    os.path.join(state, "svid.pem"), os.path.join(state, "key.pem"),
                                    uid=PROXY_UID)
        dates = lab.run(["openssl", "x509", "-noout", "-startdate"],
                        input=json.loads(done.stdout)["leaf"]).stdout
        start = datetime.strptime(dates.strip(), "notBefore=%b %d %H:%M:%S %Y GMT")
        return time.time() - start.replace(tzinfo=timezone.utc).timestamp() - BACKDATED

    def test_no_connection_is_lost_over_many_renewals(self):
        load = Load(self.mesh)
        proxies = [self.proxy("client"), self.proxy("server")]
        start = {proxy.name: renewals(proxy) for proxy in proxies}
        ages = []
        limit = time.monotonic() + RENEWALS * self.TTL
        while any(renewals(p) - start[p.name] < RENEWALS for p in proxies):
            self.assertLess(time.monotonic(), limit, "renewals take too long")
            for proxy in proxies:
                self.assertGreater(leaf_not_after(proxy), time.time(), f"{proxy.name} has expired")
                self.assertTrue(proxy.is_ready(), proxy.name)
            ages.append(self.age_of_served_certificate())
            time.sleep(1)
        counts = load.end()
        self.assertEqual(counts["errors"], [])
        self.assertGreater(counts["short"], 10 * RENEWALS)
        self.assertGreater(counts["long_echoes"], 100 * RENEWALS)
        self.assertLess(max(ages), self.TTL)
        for proxy in proxies:
            self.assertEqual(renewals(proxy, "failed"), 0, proxy.name)
            for reason in ("reset", "truncated", "peer_expired"):
                closed = proxy.metric("postern_connections_closed_total", reason=reason)
                self.assertEqual(closed, 0, f"{proxy.name}: {reason}")


class OutageTest(harness.MeshTest):
    """The issuer is away for longer than a renewal takes to come round."""

    mesh_options = {"svid_ttl": "20s"}
    echo_port = 7000

    def test_traffic_goes_on_and_renewal_resumes_by_itself(self):
        # Both certificates are new, so that the outage holds a whole interval (12 s at most) and ends
        # before anything expires (20 s).
        proxies = [self.proxy("client"), self.proxy("server")]
        load = Load(self.mesh)
        fresh = [leaf_not_after(proxy) for proxy in proxies]
        failed = [renewals(proxy, "failed") for proxy in proxies]
        self.mesh.stop_issuer()
        wait_until(lambda: all(renewals(p, "failed") > n for p, n in zip(proxies, failed)), 20,
                   "failed renewals", 0.2)
        for proxy in proxies:
            self.assertTrue(proxy.is_ready(), "it keeps serving while the issuer is away")
            self.assertEqual(proxy.metric("postern_issuer_connected"), 0)
        self.mesh.start_issuer()
        for proxy, before in zip(proxies, fresh):
            wait_until(lambda p=proxy, b=before: leaf_not_after(p) > b, 20, "renewal after the outage",
                       0.1)
            wait_until(lambda p=proxy: p.metric("postern_issuer_connected") == 1, 20, "the stream")
        counts = load.end()
        self.assertEqual(counts["errors"], [])
        self.assertGreater(counts["short"], 100)


class RestartTest(harness.MeshTest):
    """Proxies that start while the issuer is away."""

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        mesh.serve("echo", 7000)
        return mesh

    def test_a_proxy_restarts_without_token_and_without_issuer(self):
        self.mesh.stop_issuer()
        proxy = self.proxy("client")
        self.assertEqual(proxy.stop(), 0)
        os.remove(self.mesh.path("client.token"))
        proxy.command = [w for i, w in enumerate(proxy.command) if w != "--join-token-file"
                         and proxy.command[i - 1] != "--join-token-file"]
        proxy.start()
        self.mesh.start_issuer()
        proxy.wait_ready(30)
        self.wait_for_streams()
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "5")

    def test_a_proxy_comes_up_before_its_issuer(self):
        self.mesh.stop_issuer()
        proxy = self.proxy("server")
        proxy.stop()
        proxy.start()
        lab.wait_until(lambda: proxy.get("/live", 15020)[0] == 200 if self.answers(proxy) else False,
                       what="live")
        self.mesh.start_issuer()
        proxy.wait_ready(30)
        self.wait_for_streams()
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "5")
        proxy.wait_recorded()
        self.assertEqual(proxy.access_log()[-1]["peer_id"], CLIENT_ID)

    def wait_for_streams(self):
        """A destination that was never dialled is looked up at the issuer, which needs the stream."""
        for proxy in self.mesh.proxies.values():
            wait_until(lambda p=proxy: p.metric("postern_issuer_connected") == 1, 60, "the stream")

    @staticmethod
    def answers(proxy):
        try:
            proxy.get("/live", 15020)
            return True
        except OSError:
            return False


if __name__ == "__main__":
    unittest.main()
