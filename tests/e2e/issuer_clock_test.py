# SPDX-License-Identifier: Apache-2.0
"""The issuer's wall clock is set back an hour, as NTP does after a wrong start: connections that have
ended since make room as before."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from lab import wait_until

BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))
MOST = 5


class IssuerClockTest(unittest.TestCase):

    def setUp(self):
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not libraries:
            self.skipTest("needs faketime")
        self.directory = tempfile.mkdtemp(prefix="pstn-clock-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.set_clock("+0")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.log = os.path.join(self.directory, "log")
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [os.path.join(BUILD, "bin/postern-identity"), "--trust-domain", "clock.test",
                 "--state-dir", os.path.join(self.directory, "state"), "--listen",
                 f"127.0.0.1:{self.port}",
                 "--admin", "127.0.0.1:0", "--socket", os.path.join(self.directory, "socket"),
                 "--max-connections-per-source", str(MOST)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "ASAN_OPTIONS": "verify_asan_link_order=0",
                     "LD_PRELOAD": libraries[0], "FAKETIME_NO_CACHE": "1",
                     "FAKETIME_TIMESTAMP_FILE": os.path.join(self.directory, "shift"),
                     "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.send_signal, signal.SIGKILL)
        wait_until(lambda: "serves trust domain" in self.text(), 20, self.text)

    def text(self):
        with open(self.log, encoding="utf-8") as handle:
            return handle.read()

    def set_clock(self, shift):
        path = os.path.join(self.directory, "shift")
        with open(path + ".new", "w", encoding="ascii") as handle:
            handle.write(shift)
        os.rename(path + ".new", path)

    def connect(self, source):
        connection = socket.create_connection(("127.0.0.1", self.port), 5, (source, 0))
        self.addCleanup(connection.close)
        return connection

    def is_refused(self, source, patience):
        """The issuer says nothing before a ClientHello, so silence for so many seconds is a place."""
        try:
            connection = self.connect(source)
            connection.settimeout(patience)
            return connection.recv(1) == b""
        except socket.timeout:
            return False
        except ConnectionResetError:
            return True

    def test_what_ends_makes_room_after_the_clock_went_back(self):
        # They take the low descriptors, which come back to somebody else's connections.
        others = [self.connect("127.0.0.2") for _ in range(MOST)]
        mine = [self.connect("127.0.0.3") for _ in range(MOST)]
        self.assertTrue(self.is_refused("127.0.0.3", 10))
        self.set_clock("-1h")
        for connection in others + mine:
            connection.close()
        wait_until(lambda: not self.is_refused("127.0.0.3", 1), 10, self.text)


if __name__ == "__main__":
    unittest.main()
