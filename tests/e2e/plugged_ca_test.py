# SPDX-License-Identifier: Apache-2.0
"""An issuer that signs with a CA from outside: changed under traffic, refused when it is bad, and with its
key in a PKCS#11 token."""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import harness
import lab
import pki
from harness import SERVER
from lab import wait_until
from renewal_test import Load

PIN, WRONG_PIN = "4711", "93718264"
ISSUING = "postern_issuer_ca_changes_total"


class Mount:
    """A directory as Kubernetes mounts a secret: names that lead through the symlink `..data`."""

    def __init__(self, path):
        self.path, self._count = path, 0
        os.mkdir(path)

    def put(self, files):
        """Replaces all files at once. {name: text}"""
        self._count += 1
        version = f"..version_{self._count}"
        os.mkdir(os.path.join(self.path, version))
        for name, text in files.items():
            where = os.path.join(self.path, version, name)
            with open(os.open(where, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
                file.write(text)
            if not os.path.lexists(os.path.join(self.path, name)):
                os.symlink(f"..data/{name}", os.path.join(self.path, name))
        os.symlink(version, os.path.join(self.path, "..new"))
        os.rename(os.path.join(self.path, "..new"), os.path.join(self.path, "..data"))
        if self._count > 1:
            shutil.rmtree(os.path.join(self.path, f"..version_{self._count - 1}"))


def cert_manager(ca, key=True):
    """The files of a cert-manager secret."""
    files = {"tls.crt": ca.chain_pem(), "ca.crt": ca.root_pem()}
    return {**files, "tls.key": ca.key_pem()} if key else files


def served_issuer(mesh, name):
    """Subject of the CA that signed the certificate which a proxy holds."""
    state = os.path.join(mesh.path(f"{name}.state"), "svid.pem")
    return lab.run(["openssl", "x509", "-noout", "-issuer", "-nameopt", "RFC2253", "-in",
                    state]).stdout.strip()


class ChangeTest(harness.MeshTest):
    """Root, per-team intermediate, issuing CA, leaf; lifetimes of 10 s."""

    @classmethod
    def make_mesh(cls):
        cls.directory = tempfile.mkdtemp(prefix="pstn-ca-")
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.root, cls.other_root = (pki.Authority(cls.directory, n) for n in ("root", "other-root"))
        team = pki.Authority(cls.directory, "team", parent=cls.root)
        cls.first, cls.second = (pki.Authority(cls.directory, n, parent=team)
                                 for n in ("first", "second"))
        cls.other = pki.Authority(cls.directory, "other", parent=cls.other_root)
        cls.mount = Mount(os.path.join(cls.directory, "mounted"))
        cls.mount.put(cert_manager(cls.first))
        mesh = harness.Mesh(svid_ttl="10s", issuer_words=["--ca-dir", cls.mount.path])
        cls.addClassCleanup(mesh.close)
        mesh.add_pair()
        mesh.serve("echo", 7000)
        return mesh

    def wait_signed_by(self, ca):
        wait_until(lambda: all(served_issuer(self.mesh, n).startswith(f"issuer=CN={ca.name},")
                               for n in ("client", "server")), 40,
                   lambda: [served_issuer(self.mesh, n) for n in ("client", "server")], 0.2)

    def test_changes_and_refusals_under_traffic_lose_nothing(self):
        self.wait_signed_by(self.first)
        with open(os.path.join(self.mesh.path("client.state"), "svid.pem"), encoding="ascii") as svid:
            self.assertEqual(svid.read().count("BEGIN CERTIFICATE"), 3)  # without the root
        load = Load(self.mesh)
        refused = "postern_issuer_ca_refused_total"
        # What is bad is refused, and said, and nothing else happens.
        whole = cert_manager(self.second)
        bad = {"malformed": {**whole, "tls.crt": whole["tls.crt"][:900]},
               "key_mismatch": {**whole, "tls.key": self.other.key_pem()},
               "untrusted": {**whole, "ca.crt": self.other_root.pem()},
               "not_ca": {**cert_manager(self.root), "tls.crt": self.root.pem()}}
        for problem, files in bad.items():
            self.mount.put(files)
            wait_until(lambda p=problem: self.mesh.issuer_metric(refused, problem=p) == 1, 10,
                       problem, 0.1)
            self.assertEqual(self.mesh.issuer_page("/ready")[0], 200)
            self.assertEqual(self.mesh.issuer_metric("postern_issuer_ca_refusing"), 1)
        self.assertEqual(self.mesh.issuer_metric(ISSUING), 0)
        # Another issuing CA, then one below another root.
        for changes, ca in enumerate([self.second, self.other], 1):
            self.mount.put(cert_manager(ca))
            wait_until(lambda n=changes: self.mesh.issuer_metric(ISSUING) == n, 20, ca.name, 0.1)
            self.assertEqual(self.mesh.issuer_metric("postern_issuer_ca_refusing"), 0)
            self.wait_signed_by(ca)
        counts = load.end()
        self.assertEqual(counts["errors"], [])
        self.assertGreater(counts["short"], 100)
        self.assertGreater(counts["long_echoes"], 100)
        for name in ("client", "server"):
            proxy = self.proxy(name)
            self.assertEqual(proxy.metric("postern_identity_renewals_total", result="failed"), 0)
            for reason in ("peer_untrusted", "peer_expired", "policy_revoked", "rejected_by_peer"):
                self.assertEqual(proxy.metric("postern_connections_closed_total", reason=reason), 0)
        roots = len(self.mesh.postern("bundle", "show", "--output", "pin").stdout.split())
        self.assertEqual(roots, 2)  # the old one, for what was signed below it
        # A restart of the issuer changes none of it.
        self.mesh.stop_issuer()
        self.mesh.start_issuer()
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "5")
        self.assertEqual(len(self.mesh.postern("bundle", "show", "--output", "pin").stdout.split()), 2)


def soft_hsm():
    """SoftHSM's library; None: it is not installed."""
    found = glob.glob("/usr/lib/softhsm/libsofthsm2.so") + glob.glob("/usr/lib/*/softhsm/libsofthsm2.so")
    return found[0] if found else None


def why_no_token():
    """Which package is missing for a PKCS#11 token; empty: none."""
    if not shutil.which("softhsm2-util") or not soft_hsm():
        return "needs the package softhsm2"
    version = lab.run(["openssl", "version", "-a"]).stdout
    folders = re.findall(r'(?:ENGINESDIR|MODULESDIR): "([^"]+)"', version)
    if not any(os.path.exists(os.path.join(folder, "pkcs11.so")) for folder in folders):
        return "needs the package pkcs11-provider or libengine-pkcs11-openssl"
    return ""


WHY_NO_TOKEN = why_no_token()


@unittest.skipIf(WHY_NO_TOKEN, WHY_NO_TOKEN)
class TokenTest(harness.MeshTest):
    """The CA's key is in SoftHSM; the directory has certificates alone."""

    @classmethod
    def make_mesh(cls):
        cls.directory = tempfile.mkdtemp(prefix="pstn-token-")
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        os.mkdir(os.path.join(cls.directory, "tokens"))
        settings = cls.write("softhsm2.conf",
                             f"directories.tokendir = {cls.directory}/tokens\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = settings
        cls.addClassCleanup(os.environ.pop, "SOFTHSM2_CONF")
        root = pki.Authority(cls.directory, "root")
        cls.ca = pki.Authority(cls.directory, "issuing", parent=root)
        lab.run(["softhsm2-util", "--init-token", "--free", "--label", "postern", "--so-pin", "0815",
                 "--pin", PIN])
        lab.run(["softhsm2-util", "--import", cls.ca.key, "--token", "postern", "--label", "issuing",
                 "--id", "a1", "--pin", PIN])
        os.remove(cls.ca.key)
        cls.mount = Mount(os.path.join(cls.directory, "mounted"))
        cls.mount.put(cert_manager(cls.ca, key=False))
        cls.words = ["--ca-dir", cls.mount.path, "--ca-key",
                     f"pkcs11:token=postern;object=issuing?module-path={soft_hsm()}"]
        mesh = harness.Mesh(issuer_words=[*cls.words, "--ca-key-pin-file", cls.write("pin", PIN + "\n")])
        cls.addClassCleanup(mesh.close)
        mesh.add_pair()
        mesh.serve("echo", 7000)
        return mesh

    @classmethod
    def write(cls, name, text):
        path = os.path.join(cls.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="ascii") as handle:
            handle.write(text)
        return path

    def test_workloads_speak_with_what_the_token_signed(self):
        for name in ("client", "server"):
            self.assertTrue(served_issuer(self.mesh, name).startswith("issuer=CN=issuing,"))
        self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", "20")
        self.assert_mutual_tls()

    def test_the_pin_is_in_no_place_that_others_see(self):
        for what in ("cmdline", "environ"):
            with open(f"/proc/{self.mesh.issuer.pid}/{what}", "rb") as file:
                self.assertNotIn(PIN.encode(), file.read())
        with open(self.mesh.path("issuer.log"), encoding="utf-8") as log:
            self.assertNotIn(PIN, log.read())

    def test_without_the_right_pin_the_issuer_does_not_start_and_does_not_ask(self):
        state = os.path.join(self.directory, "other-state")
        start = [self.mesh.tool("postern-identity"), "--trust-domain", harness.TRUST_DOMAIN,
                 "--state-dir", state, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--socket",
                 os.path.join(self.directory, "other.sock"), *self.words]
        for words in (["--ca-key-pin-file", self.write("wrong-pin", WRONG_PIN)], []):
            done = subprocess.run([*start, *words], stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=30, check=False, start_new_session=True)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("--ca-dir: no_key: ", done.stdout + done.stderr)
            self.assertNotIn(WRONG_PIN, done.stdout + done.stderr)
