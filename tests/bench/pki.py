# SPDX-License-Identifier: Apache-2.0
"""One P-256 root and the leaves of both sides, made with the openssl program at run time.

Each leaf has a SPIFFE ID (postern, Envoy and ghostunnel check it), a DNS name and a common name with
the same word (haproxy, nginx and stunnel check those).
"""

import os
import subprocess

TRUST_DOMAIN = "bench.test"
EXTENSIONS = """basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=URI:{spiffe_id},DNS:{host}
"""


class Leaf:
    """A certificate: paths of its PEM files and the names in it."""

    def __init__(self, directory, name):
        self.host = f"{name}.{TRUST_DOMAIN}"
        self.spiffe_id = f"spiffe://{TRUST_DOMAIN}/{name}"
        self.cert = os.path.join(directory, f"{name}.pem")
        self.key = os.path.join(directory, f"{name}.key")
        self.both = os.path.join(directory, f"{name}.both.pem")


def _openssl(*words):
    done = subprocess.run(["openssl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stdout}")


class Authority:
    """The root; `client` and `server` are the two sides, `intruder` has a good chain and a wrong name."""

    def __init__(self, directory):
        self._directory = os.path.join(directory, "pki")
        os.mkdir(self._directory)
        self.root, self._key = self._path("root.pem"), self._path("root.key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", self._key, "-out", self.root, "-days", "2", "-subj", "/CN=bench root",
                 "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.client, self.server = self._issue("client"), self._issue("server")
        self.intruder = self._issue("intruder")

    def _path(self, name):
        return os.path.join(self._directory, name)

    def _issue(self, name):
        leaf = Leaf(self._directory, name)
        with open(self._path("extensions"), "w", encoding="ascii") as handle:
            handle.write(EXTENSIONS.format(spiffe_id=leaf.spiffe_id, host=leaf.host))
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", leaf.key, "-out", self._path("csr"), "-subj", f"/CN={leaf.host}")
        _openssl("x509", "-req", "-in", self._path("csr"), "-CA", self.root, "-CAkey", self._key,
                 "-CAcreateserial", "-days", "2", "-out", leaf.cert,
                 "-extfile", self._path("extensions"))
        with open(leaf.both, "w", encoding="ascii") as handle:
            for part in (leaf.cert, leaf.key):
                with open(part, encoding="ascii") as source:
                    handle.write(source.read())
        for secret in (leaf.key, leaf.both):
            os.chmod(secret, 0o600)
        return leaf
