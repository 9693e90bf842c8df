# SPDX-License-Identifier: Apache-2.0
"""Bad flags and bad files: exit status 2 before any listener opens, and a message that names the
flag, the file or the field."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

import pki

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))


class UsageTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="pstn-usage-")
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.ca = pki.Authority(cls.directory, "ca")
        cls.pem, cls.key = cls.ca.issue("web", "spiffe://usage.test/web")
        cls.identity = ["--svid", cls.pem, "--svid-key", cls.key, "--bundle", cls.ca.root]

    def file(self, name, text, mode=0o600):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w",
                  encoding="utf-8") as handle:
            handle.write(text)
        os.chmod(path, mode)
        return path

    def run_program(self, program, *words, **options):
        return subprocess.run([os.path.join(BUILD, "bin", program), *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20,
                              check=False, **options)

    def assert_usage(self, said, program, *words, **options):
        done = self.run_program(program, *words, **options)
        self.assertEqual(done.returncode, 2, f"{words}: {done.stderr}")
        self.assertIn(said, done.stderr, words)
        return done.stderr

    def tunnel(self, listen="127.0.0.1:0", rest="target=127.0.0.1:1,peer=spiffe://usage.test/*"):
        return ["--tunnel", f"inbound,listen={listen},{rest}"]

    def test_each_program_tells_its_version_and_its_flags(self):
        versions = set()
        for program in ("postern", "postern-proxy", "postern-identity"):
            version = self.run_program(program, "--version")
            self.assertEqual(version.returncode, 0)
            versions.add(version.stdout.split()[-1])
            usage = self.run_program(program, "--help")
            self.assertEqual(usage.returncode, 0)
            self.assertIn("--log-level", usage.stdout)
            words = ["status"] if program == "postern" else []
            self.assert_usage("--no-such-flag", program, *words, "--no-such-flag")
        self.assertEqual(len(versions), 1)

    def test_the_proxy_names_the_bad_flag(self):
        cases = [
            ("--tunnel", []),
            ("--svid", self.tunnel()),
            ("--tunnel", [*self.identity, "--tunnel", "sideways,listen=127.0.0.1:0,target=127.0.0.1:1"]),
            ("peer", [*self.identity, "--tunnel", "inbound,listen=127.0.0.1:0,target=127.0.0.1:1"]),
            ("--intercept", [*self.identity, "--intercept", "magic"]),
            ("--inbound-port", [*self.identity, "--intercept", "redirect", "--inbound-port", "70000"]),
            ("--peer-mode", [*self.identity, *self.tunnel(), "--peer-mode", "maybe"]),
            ("--workers", [*self.identity, *self.tunnel(), "--workers", "0"]),
            ("--issuer", ["--issuer", "nonsense", *self.tunnel()]),
            ("--issuer-pin", ["--issuer", "127.0.0.1:1", "--issuer-pin", "sha256:12", *self.tunnel()]),
            ("--max-stale", [*self.identity, *self.tunnel(), "--max-stale", "1h"]),  # needs --issuer
            ("--handshake-timeout", [*self.identity, *self.tunnel(), "--handshake-timeout", "soon"]),
            ("client-auth", [*self.identity, "--peer-mode", "strict", "--tunnel",
                             "inbound,listen=127.0.0.1:0,target=127.0.0.1:1,client-auth=none"]),
        ]
        for said, words in cases:
            with self.subTest(words=words):
                self.assert_usage(said, "postern-proxy", *words)

    def test_the_proxy_names_the_bad_file(self):
        missing = os.path.join(self.directory, "missing.pem")
        other = pki.Authority(self.directory, "other").issue("web", "spiffe://usage.test/web")
        cases = [
            (missing, ["--svid", missing, "--svid-key", self.key, "--bundle", self.ca.root]),
            ("--svid-key", ["--svid", self.pem, "--svid-key", other[1], "--bundle", self.ca.root]),
            ("open.key", ["--svid", self.pem, "--svid-key", self.file("open.key", "x", 0o644),
                          "--bundle", self.ca.root]),
            ("empty.pem", ["--svid", self.file("empty.pem", ""), "--svid-key", self.key, "--bundle",
                           self.ca.root]),
            ("policy.yaml:", [*self.identity, "--policy",
                              self.file("policy.yaml", "kind: AuthorizationPolicy\nspec: {acton: ALLOW}\n")]),
            ("destinations.yaml:", [*self.identity, "--destinations",
                                    self.file("destinations.yaml", "kind: Destination\nspec: {}\n")]),
            ("bad.toml", [*self.identity, "--config", self.file("bad.toml", "nonsense = 1\n")]),
        ]
        for said, words in cases:
            with self.subTest(said=said):
                self.assert_usage(said, "postern-proxy", *words, *self.tunnel())

    def test_nothing_listens_when_the_configuration_is_bad(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.assert_usage("--policy", "postern-proxy", *self.identity,
                          *self.tunnel(f"127.0.0.1:{port}"), "--policy", "/nonexistent/policy.yaml")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)

    def test_no_message_shows_a_secret(self):
        with open(self.key, encoding="ascii") as handle:
            secret = handle.read().split("\n")[1]
        said = self.assert_usage("--bundle", "postern-proxy", "--svid", self.pem, "--svid-key", self.key,
                                 "--bundle", self.key, *self.tunnel())
        self.assertNotIn(secret, said)

    def test_the_issuer_names_the_bad_flag(self):
        state = os.path.join(self.directory, "issuer")
        good = ["--trust-domain", "usage.test", "--state-dir", state]
        for said, words in [
                ("--trust-domain", ["--state-dir", state]),
                ("--trust-domain", ["--trust-domain", "Not Valid", "--state-dir", state]),
                ("--state-dir", ["--trust-domain", "usage.test"]),
                ("--listen", [*good, "--listen", "nonsense"]),
                ("--svid-ttl", [*good, "--svid-ttl", "soon"]),
                ("--svid-ttl", [*good, "--svid-ttl", "10s"]),  # needs --allow-short-ttl
                ("--renewal-grace", [*good, "--renewal-grace", "forever"]),
                ("--config", [*good, "--config", "/nonexistent.toml"])]:
            with self.subTest(words=words):
                self.assert_usage(said, "postern-identity", *words)
        self.assertFalse(os.path.exists(state))

    def test_the_environment_is_read_and_named(self):
        environment = dict(os.environ, POSTERN_WORKERS="none")
        said = self.assert_usage("POSTERN_WORKERS", "postern-proxy", *self.identity, *self.tunnel(),
                                 env=environment)
        self.assertIn("none", said)

    def test_a_taken_port_is_a_failure_that_names_the_address(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = self.run_program("postern-proxy", *self.identity, *self.tunnel(address))
        self.assertEqual(done.returncode, 1)
        self.assertIn(address, done.stderr)

    def test_the_policy_of_the_guide_holds_what_its_expectations_say(self):
        with open(os.path.join(HERE, "../../docs/TRAFFIC.md"), encoding="utf-8") as guide:
            blocks = re.findall(r"^```yaml\n(.*?)^```", guide.read(), re.DOTALL | re.MULTILINE)
        policy = next(block for block in blocks if "kind: AuthorizationPolicy" in block)
        expectations = next(block for block in blocks if "kind: PolicyTest" in block)
        self.file("policy.yaml", policy)
        done = self.run_program("postern", "policy", "test", self.file("guide.yaml", expectations))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
