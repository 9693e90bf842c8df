# SPDX-License-Identifier: Apache-2.0
"""Two trust domains, each with an issuer of its own, federated with each other by the built programs.

The client's side is the mesh of harness.py (e2e.test); the server's side (other.test) has a second
issuer beside the first. Tunnels: the client's proxy 7000 -> the server's proxy 8443 -> echo 7001.
"""

import json
import subprocess
import unittest

import harness
import lab
from harness import CLIENT_ID, SERVER, TRUST_DOMAIN
from lab import wait_until

OTHER = "other.test"
OTHER_SERVER = f"spiffe://{OTHER}/server"
BACK_OF_CLIENT, BACK_OF_SERVER = "198.18.2.2", "198.18.3.2"
POLICY = """apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: foreign}
spec: {action: ALLOW, rules: [{from: [{spiffeIds: ["%s"]}]}]}
""" % CLIENT_ID


class OtherIssuer:
    """The second issuer, in the namespace of the first."""

    def __init__(self, mesh):
        self.mesh, self.process, self.more = mesh, None, []
        self.socket = mesh.path("other.sock")

    def start(self):
        with open(self.mesh.path("other.log"), "ab") as log:
            self.process = self.mesh.lab.start(
                self.mesh.back, self.mesh.tool("postern-identity"), "--trust-domain", OTHER,
                "--state-dir", self.mesh.path("other"), "--listen", "0.0.0.0:16012", "--admin",
                "127.0.0.1:16014", "--socket", self.socket, "--bundle-endpoint", "127.0.0.1:16443",
                *self.more, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.mesh.back.run(self.mesh.tool("postern"), "wait", "--address", "127.0.0.1:16014",
                           "--timeout", "20s")

    def stop(self):
        self.mesh.lab.stop(self.process)

    def postern(self, *words, check=True):
        return lab.run([self.mesh.tool("postern"), *words, "--socket", self.socket], check=check)


class FederationTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        other = cls.other = OtherIssuer(mesh)
        other.start()
        # What the two operators hand to each other, once.
        for name, ask in (("other.json", other.postern), ("own.json", mesh.postern)):
            with open(mesh.path(name), "w", encoding="utf-8") as handle:
                handle.write(ask("bundle", "show", "--output", "spiffe").stdout)
        mesh._issuer_words += ["--bundle-endpoint", "127.0.0.1:15443",
                               "--federate", cls.spec(mesh, OTHER, 16443, "other.json")]
        other.more = ["--federate", cls.spec(mesh, TRUST_DOMAIN, 15443, "own.json")]
        mesh.stop_issuer()
        other.stop()
        mesh.start_issuer()
        other.start()
        cls.add_proxies(mesh)
        return mesh

    @staticmethod
    def spec(mesh, trust_domain, port, bundle):
        return (f"trust-domain={trust_domain},url=https://127.0.0.1:{port},profile=https_spiffe,"
                f"endpoint-id=spiffe://{trust_domain}/postern/identity,bundle={mesh.path(bundle)}")

    @classmethod
    def add_proxies(cls, mesh):
        other = cls.other
        with open(mesh.path("foreign.yaml"), "w", encoding="utf-8") as handle:
            handle.write(POLICY)
        other.postern("policy", "put", mesh.path("foreign.yaml"))
        token = other.postern("token", "create", "--spiffe-id", OTHER_SERVER).stdout
        pin = other.postern("bundle", "show", "--output", "pin").stdout.split()[0]
        mesh.add_proxy("server", mesh.server, [
            "--issuer", f"{BACK_OF_SERVER}:16012", "--issuer-pin", pin, "--trust-domain", OTHER,
            "--join-token-file", mesh.owned_file("server.token", token),
            "--state-dir", mesh.private_directory("server.state"),
            "--tunnel", f"inbound,listen={SERVER[4]}:8443,target=127.0.0.1:7001,peer={CLIENT_ID}"],
            intercept=None)
        tunnel = f"outbound,listen=127.0.0.1:%d,target={SERVER[4]}:8443,peer={OTHER_SERVER}"
        mesh.add_workload("client", mesh.client, BACK_OF_CLIENT, "--tunnel", tunnel % 7000,
                          "--tunnel", tunnel % 7002 + f",pin-ca={pin}",
                          "--tunnel", tunnel % 7003 + ",pin-ca=sha256:" + 64 * "1", intercept=None)
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        process = mesh.app(mesh.server, "echo", 7001, stdout=subprocess.PIPE)
        if b"listening" not in process.stdout.readline():
            raise AssertionError("apps.py echo did not start")

    def says(self, port=7000):
        """What comes back for "hello" through the client's tunnel; b"" if it was cut."""
        try:
            with self.mesh.client.connect("127.0.0.1", port) as connection:
                connection.settimeout(10)
                connection.sendall(b"hello")
                return connection.recv(5)
        except OSError:
            return b""

    def wait_talking(self):
        wait_until(lambda: self.says() == b"hello", 30, "the two sides talk", 0.2)

    def bundles(self):
        return {one["trust_domain"]: one for one in json.loads(
            self.mesh.postern("bundle", "list", "--output", "json").stdout)["bundles"]}

    def test_1_the_two_sides_talk_and_know_each_other(self):
        self.wait_talking()
        record = wait_until(lambda: [one for one in self.proxy("client").access_log()
                                     if one["reason"] == "ok"], 10, "a record")[-1]
        self.assertEqual((record["local_id"], record["peer_id"]), (CLIENT_ID, OTHER_SERVER))
        self.assertEqual(record["security"], "mutual_tls")
        self.mesh.postern("bundle", "refresh")  # the other issuer may have started later
        held = self.bundles()
        self.assertTrue(held[TRUST_DOMAIN]["own"])
        self.assertEqual(held[OTHER]["roots"], 1)
        self.assertEqual(held[OTHER]["last_error"], "")
        self.assertLess(held[OTHER]["age_seconds"], 60)
        own = self.mesh.postern("bundle", "show", "--output", "pem").stdout
        self.assertEqual(own.count("BEGIN CERTIFICATE"), 1, "no foreign root goes into it")

    def test_2_pins_go_beyond_the_bundle(self):
        self.wait_talking()
        self.assertEqual(self.says(7002), b"hello")
        self.assertEqual(self.says(7003), b"")
        client = self.proxy("client")
        wait_until(lambda: client.metric("postern_connections_closed_total",
                                         reason="pin_mismatch") > 0, 10, "the close reason")
        self.assertIn("sha256:" + 64 * "1", json.dumps(client.failures()))

    def test_3_the_other_issuer_is_away_and_the_last_good_bundle_goes_on(self):
        self.wait_talking()
        self.other.stop()
        refused = self.mesh.postern("bundle", "refresh", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("unreachable", refused.stderr)
        self.mesh.stop_issuer()
        self.mesh.start_issuer()
        self.assertEqual(self.bundles()[OTHER]["roots"], 1)
        self.assertEqual(self.says(), b"hello")
        self.other.start()
        self.mesh.postern("bundle", "refresh", "--domain", OTHER)
        self.assertEqual(self.bundles()[OTHER]["last_error"], "")

    def test_4_a_federation_that_is_ended_ends_the_trust(self):
        self.wait_talking()
        words = self.mesh._issuer_words
        at = words.index("--federate")
        spec = words[at:at + 2]
        del words[at:at + 2]
        self.mesh.stop_issuer()
        self.mesh.start_issuer()
        client = self.proxy("client")

        def refused_for_its_domain():
            # Not the first refusal: a connection that was open when the trust ended is cut with
            # policy_revoked, and none that comes later is.
            return self.says() == b"" and client.metric(
                "postern_connections_closed_total", reason="trust_domain_unknown") > 0

        wait_until(refused_for_its_domain, 30, "the server is not known any more", 0.2)
        words += spec
        self.mesh.stop_issuer()
        self.mesh.start_issuer()
        self.wait_talking()


if __name__ == "__main__":
    unittest.main()
