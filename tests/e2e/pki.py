# SPDX-License-Identifier: Apache-2.0
"""Certificate authorities made with the openssl program at run time: for identities from files, and for
an issuer that signs with somebody else's CA."""

import base64
import os
import subprocess

import lab

P256 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
CA_PROFILE = {"basicConstraints": "critical,CA:TRUE", "keyUsage": "critical,keyCertSign,cRLSign"}
KEY_IDS = {"subjectKeyIdentifier": "hash", "authorityKeyIdentifier": "keyid"}


def _read(path):
    with open(path, encoding="ascii") as handle:
        return handle.read()


class Authority:
    """A root in a directory of its own, made so long ago as `shift` says (as faketime has it), or an
    intermediate below `parent`; issues X.509-SVIDs, good ones and every kind of bad one."""

    def __init__(self, directory, name, shift=None, parent=None):
        self._directory, self.name, self._parent = directory, name, parent
        self.certificate, self.key = self._path("root.pem"), self._path("root.key")
        self.root = parent.root if parent else self.certificate
        if parent:
            self._request("root", f"/O=Postern test/CN={name}")
            parent.sign(self._path("root.csr"), self.certificate, {**CA_PROFILE, **KEY_IDS}, days=20)
        else:
            extensions = [word for item in CA_PROFILE.items() for word in ("-addext", "=".join(item))]
            clock = ["faketime", "-f", shift] if shift else []
            lab.run([*clock, "openssl", "req", "-x509", *P256, "-keyout", self.key, "-out",
                     self.root, "-days", "30", "-subj", f"/O=Postern test/CN={name}", *extensions])

    def _path(self, name):
        return os.path.join(self._directory, f"{self.name}.{name}")

    def _request(self, file, subject):
        """Makes FILE.key and FILE.csr."""
        lab.run(["openssl", "req", "-new", *P256, "-keyout", self._path(f"{file}.key"), "-out",
                 self._path(f"{file}.csr"), "-subj", subject])

    def pem(self):
        return _read(self.certificate)

    def key_pem(self):
        return _read(self.key)

    def root_pem(self):
        return _read(self.root)

    def chain_pem(self):
        """This one first, then what is above it, without the root."""
        return self.pem() + self._parent.chain_pem() if self._parent else ""

    def sign(self, request, pem, profile, shift=None, days=1):
        """Writes a certificate for a CSR, with these extensions and so many days from now (or from
        now shifted as faketime has it)."""
        extensions = pem + ".ext"
        with open(extensions, "w", encoding="ascii") as handle:
            handle.write("".join(f"{name}={value}\n" for name, value in profile.items()))
        clock = ["faketime", "-f", shift] if shift else []
        lab.run([*clock, "openssl", "x509", "-req", "-in", request, "-CA", self.certificate,
                 "-CAkey", self.key, "-CAcreateserial", "-days", str(days), "-out", pem,
                 "-extfile", extensions])

    def issue(self, file, spiffe_id, shift=None, owner=None, **changes):
        """Writes FILE.pem and FILE.key. `changes` are extensions that are other than they should be,
        or None for one that is not there."""
        pem, key = self._path(f"{file}.pem"), self._path(f"{file}.key")
        profile = {"basicConstraints": "critical,CA:FALSE", "keyUsage": "critical,digitalSignature",
                   "extendedKeyUsage": "serverAuth,clientAuth", **KEY_IDS,
                   "subjectAltName": f"critical,URI:{spiffe_id}", **changes}
        self._request(file, "/O=Postern test")
        self.sign(self._path(f"{file}.csr"), pem,
                  {name: value for name, value in profile.items() if value is not None}, shift)
        os.chmod(key, 0o600)
        if owner is not None:
            os.chown(key, owner, owner)
        return pem, key


def wrong_key(right, other):
    """Puts the private number of one P-256 key beside the public half of another, in the file of the
    latter: programs take it for the right key, and what it signs does not verify."""
    def sec1(path):
        return subprocess.run(["openssl", "ec", "-in", path, "-outform", "DER"], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    whole, number = bytearray(sec1(right)), sec1(other)
    if whole[:7] != b"\x30\x77\x02\x01\x01\x04\x20" or number[:7] != whole[:7]:
        raise AssertionError("no P-256 key as openssl writes it")
    whole[7:39] = number[7:39]
    text = base64.encodebytes(bytes(whole)).decode()
    with open(right, "w", encoding="ascii") as handle:
        handle.write(f"-----BEGIN EC PRIVATE KEY-----\n{text}-----END EC PRIVATE KEY-----\n")
