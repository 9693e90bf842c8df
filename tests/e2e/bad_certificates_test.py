# SPDX-License-Identifier: Apache-2.0
"""Every kind of certificate that must not count, shown by openssl to a proxy as a client and as a
server: each is refused by its own close reason, with a record, a metric and an entry in /failures that
name what is wrong, and no byte of an application's goes over. Then the same pair of files as the
proxy's own."""

import os
import subprocess
import unittest

import pki
import s_client
from lab import wait_until
from loopback import LoopbackTest, Proxy, exchange, free_port

ID = "spiffe://bad.test/peer"
OWN = "spiffe://bad.test/own"

# What is wrong, what of the certificate is other than it should be, the reason, a part of the detail.
CASES = [
    ("two URI SANs", {"subjectAltName": f"critical,URI:{ID},URI:spiffe://bad.test/second"},
     "peer_bad_certificate", "URI"),
    ("leaf marked CA", {"basicConstraints": "critical,CA:TRUE"},
     "peer_bad_certificate", "CA certificate"),
    ("no keyUsage", {"keyUsage": None}, "peer_wrong_usage", "digitalSignature"),
    ("key usage of another trade", {"keyUsage": "critical,keyEncipherment"},
     "peer_wrong_usage", "digitalSignature"),
    ("wrong EKU", {"extendedKeyUsage": "emailProtection"}, "peer_wrong_usage", "extended key usage"),
    ("no EKU", {"extendedKeyUsage": None}, "peer_wrong_usage", "extended key usage"),
]


class BadCertificatesTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        self.ca = pki.Authority(self.directory, "ca")
        self.team = pki.Authority(self.directory, "team", parent=self.ca)
        self.inbound, self.outbound, self.peer_port = free_port(), free_port(), free_port()
        own, key = self.ca.issue("own", OWN)
        self.proxy = self.start(Proxy(
            self, "proxy", "--svid", own, "--svid-key", key, "--bundle", self.ca.root,
            "--tunnel", f"inbound,listen=127.0.0.1:{self.inbound},target=127.0.0.1:{self.echo()},"
            f"peer={ID}",
            "--tunnel", f"outbound,listen=127.0.0.1:{self.outbound},"
            f"target=127.0.0.1:{self.peer_port},peer={ID}")).wait_ready()

    def cases(self):
        """(what, pem, key, words of the chain, reason, detail) of all."""
        for number, (what, changes, reason, detail) in enumerate(CASES):
            yield what, *self.ca.issue(f"case{number}", ID, **changes), [], reason, detail
        pem, key = self.team.issue("alone", ID)
        yield "intermediate missing", pem, key, [], "peer_untrusted", "issuer"
        pem, key = self.ca.issue("mismatch", ID)
        pki.wrong_key(key, self.ca.issue("other", ID)[1])
        yield ("key and certificate that do not match", pem, key, [], "handshake_failed",
               "signature")

    def as_client(self, pem, key, *words):
        """What a client with this certificate gets back."""
        return s_client.ask("-connect", f"127.0.0.1:{self.inbound}", "-cert", pem, "-key", key, *words)

    def as_server(self, pem, key, *words):
        """What the application gets back through the proxy from a server with this certificate, and
        what the server got from it."""
        received = self.path("received")
        with open(received, "wb") as out:
            server = subprocess.Popen(
                ["openssl", "s_server", "-accept", f"127.0.0.1:{self.peer_port}", "-cert", pem, "-key",
                 key, "-quiet", "-rev", "-Verify", "1", *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: self.listens(self.peer_port), 10, "s_server")
            answer = exchange(self.outbound)
        finally:
            server.kill()
            server.wait()
        with open(received, "rb") as handle:
            return answer, handle.read()

    @staticmethod
    def listens(port):
        with open("/proc/net/tcp", encoding="ascii") as handle:
            return any(line.split()[1:4:2] == [f"0100007F:{port:04X}", "0A"] for line in handle)

    def assert_refused(self, reason, detail, direction, attempt):
        """One connection, refused: its record, its metric and its failure say so."""
        records = len(self.proxy.access_log())
        closed = self.proxy.metric("postern_connections_closed_total", reason=reason)
        failed = self.proxy.metric("postern_tls_handshake_failures_total", direction=direction,
                                   reason=reason)
        attempt()
        wait_until(lambda: len(self.proxy.access_log()) > records, what="a record")
        record = self.proxy.access_log()[-1]
        self.assertEqual(len(self.proxy.access_log()), records + 1)
        self.assertEqual(record["reason"], reason, record)
        self.assertIn(detail, record["detail"], record)
        # It is counted after its record was handed to the thread that writes it; this is counted last.
        wait_until(lambda: self.proxy.metric("postern_tls_handshake_failures_total", direction=direction,
                                             reason=reason) == failed + 1, what="the count")
        self.assertEqual(self.proxy.metric("postern_connections_closed_total", reason=reason),
                         closed + 1)
        failure = self.proxy.failures()[0]
        self.assertEqual(failure["reason"], reason)
        self.assertTrue(failure["what"])

    def test_a_good_certificate_is_taken_on_either_side(self):
        for authority, words in ((self.ca, []), (self.team, ["-cert_chain", self.team.certificate])):
            pem, key = authority.issue("good", ID)
            self.assertEqual(self.as_client(pem, key, *words), "hello\n")
            self.assertEqual(self.as_server(pem, key, *words)[0], b"olleh\n")

    def test_refuses_each_bad_client(self):
        for what, pem, key, words, reason, detail in self.cases():
            with self.subTest(what=what):
                self.assert_refused(reason, detail, "inbound", lambda: self.assertNotIn(
                    "hello", self.as_client(pem, key, *words)))

    def test_refuses_each_bad_server(self):
        for what, pem, key, words, reason, detail in self.cases():
            with self.subTest(what=what):
                self.assert_refused(reason, detail, "outbound", lambda: self.assertEqual(
                    self.as_server(pem, key, *words), (b"", b"")))

    def test_does_not_start_with_a_key_that_is_not_the_certificates(self):
        pem, _ = self.ca.issue("mine", OWN)
        _, key = self.ca.issue("theirs", OWN)
        proxy = self.start(Proxy(
            self, "mismatched", "--svid", pem, "--svid-key", key, "--bundle", self.ca.root, "--tunnel",
            f"inbound,listen=127.0.0.1:{free_port()},target=127.0.0.1:1,peer={ID}"))
        self.assertEqual(proxy.process.wait(10), 2)
        self.assertIn("the private key does not belong to the certificate", proxy.log())

    def test_keeps_its_own_pair_when_the_files_do_not_match_any_more(self):
        pem, key = self.ca.issue("client", ID)
        name = "postern_file_reload_failures_total"
        self.assertEqual(self.proxy.metric(name), 0)
        _, other = self.ca.issue("theirs", OWN)
        os.replace(other, self.path("ca.own.key"))
        wait_until(lambda: self.proxy.metric(name) == 1, 10, "a refused reload")
        self.assertIn("the private key does not belong to the certificate", self.proxy.log())
        self.assertEqual(self.as_client(pem, key), "hello\n")


if __name__ == "__main__":
    unittest.main()
