# SPDX-License-Identifier: Apache-2.0
"""openssl s_client against the inbound port: each kind of bad client is refused for its own reason,
which the access log, the metrics and /failures tell. The identities come from files."""

import contextlib
import time
import unittest

import harness
import pki
import s_client
from harness import PROXY_UID, SERVER_BACK, TRUST_DOMAIN
from lab import wait_until

POLICY = f"""apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {{name: the-client-alone}}
spec:
  action: ALLOW
  rules:
    - from:
        - spiffeIds: ["spiffe://{TRUST_DOMAIN}/client"]
"""


class RefusalsTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh(issuer=False)
        cls.addClassCleanup(mesh.close)
        cls.ca = pki.Authority(mesh.directory, "ca")
        cls.other_ca = pki.Authority(mesh.directory, "other")
        pem, key = cls.ca.issue("server", f"spiffe://{TRUST_DOMAIN}/server", owner=PROXY_UID)
        policy = mesh.path("server-policy.yaml")
        with open(policy, "w", encoding="utf-8") as handle:
            handle.write(POLICY)
        mesh.add_proxy("server", mesh.server,
                       ["--svid", pem, "--svid-key", key, "--bundle", cls.ca.root,
                        "--policy", policy])
        mesh.proxies["server"].wait_ready()
        mesh.serve("echo", 7000)
        return mesh

    def s_client(self, identity=None, *words):
        """Says hello from outside the mesh; returns what came back."""
        options = list(words)
        if identity:
            options += ["-cert", identity[0], "-key", identity[1]]
        return s_client.ask("-connect", f"{SERVER_BACK}:7000", "-CAfile", self.ca.root, *options,
                            prefix=self.mesh.back.prefix())

    def assert_refused(self, reason, peer_id, identity=None, *words):
        server = self.proxy("server")
        records = server.count_records()
        closed = server.metric("postern_connections_closed_total", reason=reason)
        self.assertNotIn("hello", self.s_client(identity, *words))
        wait_until(lambda: len(server.access_log()) > records, what="record")
        record = server.access_log()[-1]
        self.assertEqual(record["reason"], reason, record)
        self.assertEqual(record.get("peer_id", ""), peer_id)
        self.assertEqual(record["bytes_from_downstream"], 0)
        # It is counted after its record was handed to the thread that writes it.
        wait_until(lambda: server.metric("postern_connections_closed_total", reason=reason) > closed,
                   what="the count")
        self.assertEqual(server.metric("postern_connections_closed_total", reason=reason), closed + 1)
        newest = server.failures()[0]
        self.assertEqual(newest["reason"], reason)
        self.assertTrue(newest["what"])
        return newest

    def test_lets_the_right_client_in(self):
        identity = self.ca.issue("client", f"spiffe://{TRUST_DOMAIN}/client")
        self.assertEqual(self.s_client(identity, "-tls1_3"), "hello\n")

    def test_refuses_a_client_without_a_certificate(self):
        failure = self.assert_refused("peer_no_certificate", "")
        self.assertIn("X.509-SVID", failure["mend"])

    def test_refuses_a_certificate_of_another_authority(self):
        name = f"spiffe://{TRUST_DOMAIN}/client"
        failure = self.assert_refused("peer_untrusted", name, self.other_ca.issue("client", name))
        self.assertIn("x509_error", failure)

    def test_refuses_an_expired_certificate(self):
        name = f"spiffe://{TRUST_DOMAIN}/client"
        self.assert_refused("peer_expired", name, self.ca.issue("expired", name, shift="-3d"))

    def test_refuses_a_certificate_that_is_not_valid_yet(self):
        name = f"spiffe://{TRUST_DOMAIN}/client"
        self.assert_refused("peer_not_yet_valid", name, self.ca.issue("early", name, shift="+3d"))

    def test_refuses_the_wrong_identity(self):
        name = f"spiffe://{TRUST_DOMAIN}/intruder"
        failure = self.assert_refused("policy_denied", name, self.ca.issue("intruder", name))
        self.assertEqual(failure["peer_id"], name)

    def test_refuses_an_unknown_trust_domain(self):
        name = "spiffe://elsewhere.test/client"
        self.assert_refused("trust_domain_unknown", name, self.ca.issue("elsewhere", name))

    def test_refuses_tls_1_2(self):
        identity = self.ca.issue("client", f"spiffe://{TRUST_DOMAIN}/client")
        self.assert_refused("tls_version", "", identity, "-tls1_2")

    def test_refuses_plaintext(self):
        server = self.proxy("server")
        with contextlib.suppress(ConnectionResetError):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 7000)) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.assertEqual(sock.recv(100), b"")
        wait_until(lambda: [f["reason"] for f in server.failures()[:1]] == ["plaintext_refused"],
                   what="failure")

    def test_refuses_a_direct_call_to_the_intercept_port(self):
        server = self.proxy("server")
        with contextlib.suppress(ConnectionResetError):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 15006)) as sock:
                self.assertEqual(sock.recv(100), b"")
        wait_until(lambda: [f["reason"] for f in server.failures()[:1]] in (
            ["no_original_destination"], ["self_loop"]), what="failure")

    def status(self, part, name):
        return self.proxy("server").page("/status")[part][name]

    def ticket_counts(self):
        server = self.proxy("server")
        return {"resumed": server.metric("postern_tls_handshakes_resumed_total", direction="inbound"),
                **{reason: server.metric("postern_tls_tickets_refused_total", reason=reason)
                   for reason in ("unknown_key", "changed")}}

    def assert_ticket(self, outcome, identity, *words):
        """One connection; exactly this is counted of its ticket."""
        before = self.ticket_counts()
        self.assertEqual(self.s_client(identity, *words), "hello\n")
        after = self.ticket_counts()
        self.assertEqual({k: after[k] - before[k] for k in after},
                         {k: 1 if k == outcome else 0 for k in after})

    def test_a_ticket_is_good_until_something_changes(self):
        server = self.proxy("server")
        name = f"spiffe://{TRUST_DOMAIN}/client"
        identity = self.ca.issue("client", name)
        session = self.mesh.path("session.pem")
        self.assert_ticket(None, identity, "-sess_out", session)
        for _ in range(2):  # without the certificate: the ticket says who it is
            self.assert_ticket("resumed", None, "-sess_in", session)
        wait_until(lambda: server.access_log()[-1]["tls_resumed"], what="record")
        self.assertEqual(server.access_log()[-1]["peer_id"], name)
        policy = self.mesh.path("server-policy.yaml")
        revision = self.status("policy", "revision")
        with open(policy, "a", encoding="utf-8") as handle:
            handle.write("# the same, said anew\n")
        wait_until(lambda: self.status("policy", "revision") > revision, what="policy")
        self.assert_refused("peer_no_certificate", "", None, "-sess_in", session)
        self.assert_ticket("changed", identity, "-sess_in", session, "-sess_out", session)
        self.assert_ticket("resumed", None, "-sess_in", session)
        generation = self.status("identity", "generation")
        self.ca.issue("server", f"spiffe://{TRUST_DOMAIN}/server", owner=PROXY_UID)
        wait_until(lambda: self.status("identity", "generation") > generation, what="renewal")
        self.assert_ticket("unknown_key", identity, "-sess_in", session)

    def test_goes_on_serving_whatever_it_is_sent(self):
        for garbage in (b"\x16\x03\x01\x40\x00" + b"\x01" * 100, b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff",
                        b"\x00" * 1000, b"\x16", b"\x16\x03\x01\x00\x01\x02" * 50):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 7000)) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(garbage)
                    time.sleep(0.05)
        identity = self.ca.issue("client", f"spiffe://{TRUST_DOMAIN}/client")
        self.assertEqual(self.s_client(identity), "hello\n")
        self.proxy("server").check_not_restarted()


if __name__ == "__main__":
    unittest.main()
