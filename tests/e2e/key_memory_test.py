# SPDX-License-Identifier: Apache-2.0
"""Where the daemons' keys live, seen from outside: locked memory, no dumps; and a word, not a failure,
where the system allows no locking."""

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

import pki
from lab import wait_until

BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))
NOBODY = 65534
COMPLAINT = "cannot be locked"


class KeyMemoryTest(unittest.TestCase):

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="pstn-keys-")
        self.addCleanup(shutil.rmtree, self.directory)
        pem, key = (authority := pki.Authority(self.directory, "ca")).issue(
            "web", "spiffe://keys.test/web")
        # The build directory may be where another user cannot go.
        for program in ("postern-proxy", "postern-identity"):
            shutil.copy(os.path.join(BUILD, "bin", program), self.directory)
        self.commands = {
            "postern-proxy": [
                "--svid", pem, "--svid-key", key, "--bundle", authority.root, "--admin", "127.0.0.1:0",
                "--metrics", "127.0.0.1:0", "--admin-socket", "off", "--tunnel",
                "inbound,listen=127.0.0.1:0,target=127.0.0.1:1,peer=spiffe://keys.test/*"],
            "postern-identity": [
                "--trust-domain", "keys.test", "--state-dir", os.path.join(self.directory, "state"),
                "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--socket",
                os.path.join(self.directory, "identity.sock")]}

    def start(self, program, preexec=None):
        """(pid, log) of a daemon that serves."""
        path = os.path.join(self.directory, f"{program}.log")
        with open(path, "wb") as log:
            process = subprocess.Popen(
                [os.path.join(self.directory, program), *self.commands[program]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=preexec)
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.send_signal, signal.SIGKILL)

        def text():
            with open(path, encoding="utf-8") as handle:
                return handle.read()
        wait_until(lambda: re.search("runs with|serves trust domain", text()), 20, text)
        return process.pid, text()

    def test_keys_are_in_locked_memory_and_nothing_is_dumped(self):
        if os.geteuid() != 0 and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 8 << 20:
            self.skipTest("this user may not lock 8 MiB")
        for program in self.commands:
            with self.subTest(program=program):
                pid, log = self.start(program)
                with open(f"/proc/{pid}/status", encoding="ascii") as handle:
                    locked = int(re.search(r"VmLck:\s+(\d+) kB", handle.read()).group(1))
                self.assertGreaterEqual(locked, 256, log)
                self.assertNotIn(COMPLAINT, log)
                with open(f"/proc/{pid}/limits", encoding="ascii") as handle:
                    self.assertRegex(handle.read(), r"Max core file size\s+0\s+0 ")

    def test_says_so_and_serves_where_nothing_may_be_locked(self):
        root = os.geteuid() == 0
        if root:
            for folder, _, names in os.walk(self.directory):
                for path in [folder, *(os.path.join(folder, name) for name in names)]:
                    os.chown(path, NOBODY, NOBODY)

        def restrict():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            if root:  # whom the limit does not hold
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
        for program in self.commands:
            with self.subTest(program=program):
                _, log = self.start(program, restrict)
                self.assertIn(COMPLAINT, log)
                self.assertIn("LimitMEMLOCK=", log)


if __name__ == "__main__":
    unittest.main()
