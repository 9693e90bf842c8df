# SPDX-License-Identifier: Apache-2.0
"""Workloads that an entry names by their public key: no token, and nobody needed when a certificate
has expired."""

import json
import os
import re
import unittest

import lab
from lab import wait_until
from loopback import Issuer, LoopbackTest, Proxy, exchange, free_port, tool

TRUST_DOMAIN = "members.test"


def spiffe_id(name):
    return f"spiffe://{TRUST_DOMAIN}/{name}"


class EnrolledMemberTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        self.issuer = self.start(Issuer(self, TRUST_DOMAIN, "--svid-ttl", "10s",
                                        "--allow-short-ttl")).wait_ready()

    def keygen(self, name, *words):
        """Makes NAME.key; the PEM text of its public half."""
        return lab.run([tool("postern"), "member", "keygen", "--out", self.path(f"{name}.key"),
                        *words]).stdout

    def enrol(self, name, public_pem):
        """The entry's id; the key goes in on standard input."""
        return self.issuer.postern("entry", "create", "--spiffe-id", spiffe_id(name), "--member-key",
                                   "-", input=public_pem).stdout.split()[0]

    def member(self, name, tunnel, *words):
        return self.start(Proxy(self, name, *self.issuer.flags(), "--member-key",
                                self.path(f"{name}.key"), "--tunnel", tunnel, *words))

    def pair(self, *words):
        """(client, server, port): two members, and a port whose bytes go through both and come back."""
        middle, front = free_port(), free_port()
        server = self.member("server", f"inbound,listen=127.0.0.1:{middle},"
                             f"target=127.0.0.1:{self.echo()},peer={spiffe_id('client')}", *words)
        client = self.member("client", f"outbound,listen=127.0.0.1:{front},"
                             f"target=127.0.0.1:{middle},peer={spiffe_id('server')}", *words)
        return client.wait_ready(), server.wait_ready(), front

    def assert_no_key_in_logs(self):
        for program in self.programs:
            self.assertNotIn("PRIVATE KEY", program.log())
            for name in ("client.key", "server.key"):
                if os.path.exists(self.path(name)):
                    with open(self.path(name), encoding="ascii") as handle:
                        self.assertNotIn(handle.read().split("\n")[1], program.log())

    def test_members_speak_and_come_back_by_themselves_after_they_have_expired(self):
        self.enrol("client", self.keygen("client"))
        self.enrol("server", self.keygen("server", "--type", "p256"))
        client, server, port = self.pair()
        self.assertEqual(exchange(port), b"hello\n")
        self.assertEqual(self.issuer.issued("enrolled_key"), 2)
        self.assertEqual(self.issuer.issued("join_token"), 0)
        self.assertRegex(self.issuer.log(), "issued id=" + re.escape(spiffe_id("client"))
                         + " .*evidence=enrolled_key")

        self.issuer.stop()
        wait_until(lambda: not client.is_ready() and not server.is_ready(), 20, "expiry")
        self.assertEqual(exchange(port), b"")
        self.start(self.issuer).wait_ready()
        client.wait_ready()
        server.wait_ready()
        self.assertEqual(exchange(port), b"hello\n")
        self.assertEqual(self.issuer.issued("join_token"), 0)

        # It kept nothing, so only its key can tell who it is.
        attested = self.issuer.issued("enrolled_key")
        client.stop()
        self.start(client).wait_ready()
        self.assertEqual(exchange(port), b"hello\n")
        self.assertEqual(self.issuer.issued("enrolled_key"), attested + 1)
        self.assert_no_key_in_logs()

    def test_lists_members_and_a_removed_one_is_out_until_it_is_enrolled_again(self):
        public = self.keygen("client")
        entry = self.enrol("client", public)
        self.enrol("server", self.keygen("server"))
        client, _, port = self.pair()
        listed = self.issuer.postern("entry", "list", "--spiffe-id", spiffe_id("client")).stdout
        digest = lab.run(["sh", "-c", "openssl pkey -pubin -outform DER | sha256sum"],
                         input=public).stdout.split()[0]
        self.assertIn(f"member key sha256:{digest}", listed)
        again = self.issuer.postern("entry", "create", "--spiffe-id", spiffe_id("other"),
                                    "--member-key", "-", input=public, check=False)
        self.assertEqual(again.returncode, 1, again.stdout)
        self.assertIn("exists", again.stderr)

        self.issuer.postern("entry", "delete", entry)
        wait_until(lambda: not client.is_ready(), 20, "the end of its certificate")
        # It shows its certificate and its key in turn.
        wait_until(lambda: "refused reason=no_entry evidence=enrolled_key" in self.issuer.log(), 20,
                   self.issuer.log)
        wait_until(lambda: self.issuer.refused("no_entry") > 0, what="the count")
        self.assertEqual(exchange(port), b"")

        self.enrol("client", public)
        client.wait_ready(30)
        wait_until(lambda: exchange(port) == b"hello\n", 20, "traffic again")

    def test_a_members_key_that_is_revoked_attests_to_nothing_until_that_is_lifted(self):
        public = self.keygen("client")
        self.enrol("client", public)
        self.enrol("server", self.keygen("server"))
        client, server, port = self.pair()
        self.assertEqual(exchange(port), b"hello\n")
        digest = lab.run(["sh", "-c", "openssl pkey -pubin -outform DER | sha256sum"],
                         input=public).stdout.split()[0]
        made = json.loads(self.issuer.postern("revoke", "--key-sha256", digest, "--reason",
                                              "key stolen", "--output", "json").stdout)
        # What it vouched for is out as well, at every peer.
        self.assertGreaterEqual(made["certificates"], 1)
        wait_until(lambda: exchange(port) == b"" and server.metric(
            "postern_connections_closed_total", reason="peer_revoked") > 0, 5, "the refusal")
        wait_until(lambda: re.search("refused reason=revoked evidence=enrolled_key .*"
                                     "member's key was revoked: key stolen", self.issuer.log()), 20,
                   self.issuer.log)
        wait_until(lambda: self.issuer.refused("revoked") > 0, what="the count")
        wait_until(lambda: not client.is_ready(), 20, "the end of its certificate")
        self.issuer.postern("revoke", "lift", str(made["number"]))
        client.wait_ready(30)
        wait_until(lambda: exchange(port) == b"hello\n", 20, "traffic again")

    def test_a_key_that_others_may_read_or_that_is_no_members_ends_the_start(self):
        self.keygen("client")
        tunnel = f"outbound,listen=127.0.0.1:{free_port()},target=127.0.0.1:1,peer={spiffe_id('x')}"
        os.chmod(self.path("client.key"), 0o640)
        proxy = self.member("client", tunnel)
        self.assertEqual(proxy.process.wait(10), 2)
        self.assertRegex(proxy.log(), "--member-key: .*chmod 600")
        os.remove(self.path("client.key"))
        lab.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048",
                 "-out", self.path("client.key")])
        os.chmod(self.path("client.key"), 0o600)
        proxy.start()
        self.assertEqual(proxy.process.wait(10), 2)
        self.assertRegex(proxy.log(), "--member-key: .*Ed25519 or P-256")

    def test_a_key_that_openssl_made_and_a_certificate_for_it_will_do(self):
        lab.run(["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout",
                 self.path("client.key"), "-out", self.path("client.pem"), "-subj", "/CN=client"])
        os.chmod(self.path("client.key"), 0o600)
        self.issuer.postern("entry", "create", "--spiffe-id", spiffe_id("client"), "--member-key",
                            self.path("client.pem"))
        tunnel = f"outbound,listen=127.0.0.1:{free_port()},target=127.0.0.1:1,peer={spiffe_id('x')}"
        self.member("client", tunnel).wait_ready()
        self.assertEqual(self.issuer.issued("enrolled_key"), 1)


if __name__ == "__main__":
    unittest.main()
