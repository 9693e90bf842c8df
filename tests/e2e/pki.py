# SPDX-License-Identifier: Apache-2.0
"""A certificate authority made with the openssl program at run time, for identities from files."""

import os

import lab


class Authority:
    """A root in a directory of its own; issues X.509-SVIDs, good ones and expired ones."""

    def __init__(self, directory, name):
        self._directory, self._name = directory, name
        self.root = self._path("root.pem")
        lab.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-keyout", self._path("root.key"), "-out", self.root, "-days", "30",
                 "-subj", f"/O=Postern test/CN={name}",
                 "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign"])

    def _path(self, name):
        return os.path.join(self._directory, f"{self._name}.{name}")

    def issue(self, file, spiffe_id, shift=None, owner=None):
        """Writes FILE.pem and FILE.key for a day from now, or from now shifted as faketime has it."""
        pem, key = self._path(f"{file}.pem"), self._path(f"{file}.key")
        request, extensions = self._path(f"{file}.csr"), self._path(f"{file}.ext")
        with open(extensions, "w", encoding="ascii") as handle:
            handle.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                         "extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\n"
                         f"authorityKeyIdentifier=keyid\nsubjectAltName=critical,URI:{spiffe_id}\n")
        lab.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-keyout", key, "-out", request, "-subj", "/O=Postern test"])
        clock = ["faketime", "-f", shift] if shift else []
        lab.run([*clock, "openssl", "x509", "-req", "-in", request, "-CA", self.root,
                 "-CAkey", self._path("root.key"), "-CAcreateserial", "-days", "1", "-out", pem,
                 "-extfile", extensions])
        os.chmod(key, 0o600)
        if owner is not None:
            os.chown(key, owner, owner)
        return pem, key
