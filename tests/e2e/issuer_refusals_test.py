# SPDX-License-Identifier: Apache-2.0
"""Every request for a certificate that the issuer must refuse, sent to the program: each has its own
reason in the log and in the metric, and nothing is issued."""

import os
import subprocess
import sys
import time
import unittest

import lab
from lab import wait_until
from loopback import Issuer, LoopbackTest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))

from unary_grpc import CallFailed, Channel, field  # noqa: E402  (found by the line above)

TRUST_DOMAIN = "refusals.test"
CERTIFY = "/postern.v1.Identity/Certify"
P256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]


def spiffe_id(name, trust_domain=TRUST_DOMAIN):
    return f"spiffe://{trust_domain}/{name}"


def uri(name, trust_domain=TRUST_DOMAIN):
    return ("-addext", f"subjectAltName=critical,URI:{spiffe_id(name, trust_domain)}")


def flip_signature(der):
    return der[:-1] + bytes([der[-1] ^ 1])


def unknown_algorithm(der):
    """id-ecPublicKey becomes an OID that nobody has."""
    oid = bytes.fromhex("06072a8648ce3d0201")
    if oid not in der:
        raise AssertionError("no EC key in the request")
    return der.replace(oid, bytes.fromhex("06072a8648ce3d027f"), 1)


# What is wrong with the CSR, its key, what openssl is to put into it, what is done to its bytes, the
# reason, a part of what the log says.
CSRS = [
    ("asks for another workload's identity", P256, uri("other"), None, "identity_mismatch",
     spiffe_id("other")),
    ("asks for another trust domain's", P256, uri("web", "elsewhere.test"), None, "foreign_identity",
     "elsewhere.test"),
    ("asks to be the issuer", P256, uri("postern/identity"), None, "foreign_identity",
     "postern/identity"),
    ("asks for CA:TRUE", P256, ("-addext", "basicConstraints=critical,CA:TRUE"), None, "bad_csr",
     "CA certificate"),
    ("has a bad signature", P256, (), flip_signature, "bad_csr", "signature"),
    ("has an RSA key of 512 bits", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"], (), None,
     "bad_csr", "RSA key of 512 bits"),
    ("has a key of an unknown algorithm", P256, (), unknown_algorithm, "bad_csr", "bad certificate"),
    ("has a key on another curve", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], (),
     None, "bad_csr", "secp256k1"),
    ("has an Ed448 key", ["-algorithm", "ED448"], (), None, "bad_csr", "ED448"),
    ("is empty", P256, (), lambda der: b"", "bad_csr", "does not parse"),
]


class IssuerRefusalsTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        self.issuer = self.start(Issuer(self, TRUST_DOMAIN)).wait_ready()

    def token(self, name, *words):
        return self.issuer.postern("token", "create", "--spiffe-id", spiffe_id(name),
                                   *words).stdout.strip()

    def csr(self, key_words=tuple(P256), request_words=()):
        """A PKCS#10 request with these properties, DER."""
        key = self.path("key.pem")
        lab.run(["openssl", "genpkey", *key_words, "-out", key])
        return subprocess.run(
            ["openssl", "req", "-new", "-key", key, "-subj", "/", "-outform", "DER", *request_words],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout

    def certify(self, csr, token):
        """Whether a certificate came back."""
        try:
            with Channel(self.issuer.socket) as channel:
                reply = channel.call(CERTIFY, field(1, csr) + field(2, field(1, token)))
        except CallFailed:
            return False
        self.assertIn(b"\x30\x82", reply)
        return True

    def assert_refused(self, csr, token, reason, detail):
        refused, issued = self.issuer.refused(reason), self.issuer.issued("join_token")
        logged = len(self.issuer.log())
        self.assertFalse(self.certify(csr, token))
        self.assertEqual(self.issuer.refused(reason), refused + 1)
        self.assertEqual(self.issuer.issued("join_token"), issued)
        mark = f"refused reason={reason} evidence=join_token"
        line = wait_until(lambda: next((line for line in self.issuer.log()[logged:].splitlines()
                                        if mark in line), None), what=mark)
        self.assertIn(detail, line)
        self.assertNotIn(token, self.issuer.log())

    def test_refuses_each_bad_request_and_signs_the_good_one(self):
        for what, key, words, spoil, reason, detail in CSRS:
            with self.subTest(what=what):
                csr = self.csr(key, words)
                self.assert_refused(spoil(csr) if spoil else csr, self.token("web"), reason, detail)
        self.assertTrue(self.certify(self.csr(request_words=uri("web")), self.token("web")))
        self.assertTrue(self.certify(self.csr(), self.token("web")))

    def test_a_bad_request_does_not_use_its_token_up(self):
        token = self.token("web")
        self.assert_refused(flip_signature(self.csr()), token, "bad_csr", "signature")
        self.assertTrue(self.certify(self.csr(), token))

    def test_refuses_a_token_for_the_second_time(self):
        token = self.token("web")
        self.assertTrue(self.certify(self.csr(), token))
        self.assert_refused(self.csr(), token, "bad_token", "used already")

    def test_refuses_an_expired_token(self):
        token = self.token("web", "--ttl", "1s")
        end = time.time() + 1  # it was made before
        wait_until(lambda: time.time() >= end, what="its end")
        self.assert_refused(self.csr(), token, "expired_token", "expired")
        self.assert_refused(self.csr(), token, "bad_token", "unknown")

    def test_refuses_a_token_for_another_entry(self):
        token = self.token("web")
        self.token("other")  # which exists
        self.assert_refused(self.csr(request_words=uri("other")), token, "identity_mismatch",
                            f"attested as {spiffe_id('web')}")

    def test_refuses_the_token_of_an_entry_that_is_gone(self):
        token = self.token("web")
        entry = self.issuer.postern("entry", "list").stdout.split()[0]
        self.issuer.postern("entry", "delete", entry)
        self.assert_refused(self.csr(), token, "bad_token", "unknown")

    def test_refuses_what_is_no_token(self):
        for text in ("not-a-token-at-all", "0" * 64):
            self.assert_refused(self.csr(), text, "bad_token", "token")


if __name__ == "__main__":
    unittest.main()
