# SPDX-License-Identifier: Apache-2.0
"""The issuer's database is gone, read-only, on a full disk; and the issuer is killed a hundred times
while it issues: nothing that was acknowledged is lost, and no serial comes twice."""

import contextlib
import hashlib
import http.client
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import harness
import lab
from lab import wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import unary_grpc  # noqa: E402  (found through the line above)
from unary_grpc import field  # noqa: E402

BUILD = harness.BUILD
KILLS = 100
CALLERS = 4


def leaf_of(reply):
    """The first field of a CertifyResponse, chain_der[0]."""
    if reply[:1] != b"\x0a":
        raise AssertionError(f"no certificate in {reply[:40]!r}")
    size, shift, at = 0, 0, 1
    while True:
        size |= (reply[at] & 127) << shift
        shift += 7
        at += 1
        if not reply[at - 1] & 128:
            return reply[at:at + size]


def der_content(der, at):
    """(where the content of the element at `at` begins, its size)."""
    size, at = der[at + 1], at + 2
    if size & 128:
        count = size & 127
        size, at = int.from_bytes(der[at:at + count], "big"), at + count
    return at, size


def serial_of(leaf):
    """The serial number's octets without leading zeros, as hexadecimal."""
    at, _ = der_content(leaf, 0)      # Certificate
    at, _ = der_content(leaf, at)     # TBSCertificate
    begin, size = der_content(leaf, at)  # [0] version
    begin, size = der_content(leaf, begin + size)
    return leaf[begin:begin + size].lstrip(b"\0").hex()


class Issuer:
    """A postern-identity of its own on loopback, and the calls of its socket."""

    def __init__(self, case, directory, state):
        self._directory, self._state = directory, state
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._admin = probe.getsockname()[1]
        self.socket = os.path.join(directory, "identity.sock")
        self.log = os.path.join(directory, "log")
        self.process = None
        case.addCleanup(self.kill)

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(BUILD, "bin/postern-identity"), "--trust-domain", "store.test",
                 "--state-dir", self._state, "--listen", "127.0.0.1:0", "--admin",
                 f"127.0.0.1:{self._admin}", "--socket", self.socket, "--certify-rate", "0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.answers, 20, self.text)

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}:\n{self.text()}")
        try:
            return self.get("/live")[0] == 200
        except OSError:
            return False

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)

    def text(self):
        return harness.tail(self.log)

    def run(self, *words):
        return lab.run([os.path.join(BUILD, "bin/postern"), *words, "--socket", self.socket],
                       check=False)

    def make_token(self):
        return self.run("token", "create", "--spiffe-id", "spiffe://store.test/web")


class StoreTrouble(unittest.TestCase):

    def setUp(self):
        lab.require_root()  # mounts a small file system
        self.directory = tempfile.mkdtemp(prefix="pstn-store-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.disk = os.path.join(self.directory, "disk")
        os.mkdir(self.disk)
        done = lab.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", self.disk],
                       check=False)
        if done.returncode != 0:
            self.skipTest(f"may not mount a tmpfs: {done.stderr.strip()}")
        self.addCleanup(lab.run, ["umount", "-l", self.disk])
        self.issuer = Issuer(self, self.directory, os.path.join(self.disk, "state"))
        self.issuer.start()
        self.assertEqual(self.issuer.make_token().returncode, 0)

    def assert_refuses(self, said):
        done = self.issuer.make_token()
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        status, text = wait_until(
            lambda: (page := self.issuer.get("/ready"))[0] == 503 and page, what="not ready")
        self.assertIn(said, text)
        self.assertIn("postern_issuer_ready 0", self.issuer.get("/metrics")[1])
        self.assertNotIn("postern_issuer_store_errors_total 0\n", self.issuer.get("/metrics")[1])
        self.assertEqual(self.issuer.get("/live")[0], 200, "it goes on serving bundles")
        self.assertEqual(self.issuer.run("bundle", "show").returncode, 0)
        return status

    def assert_recovers(self):
        wait_until(lambda: self.issuer.get("/ready")[0] == 200, 20, self.issuer.text, 0.2)
        done = self.issuer.make_token()
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_full_disk_is_refused_for_and_recovered_from(self):
        filler = os.path.join(self.disk, "filler")
        with open(filler, "wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                handle.write(b"\0" * 4096)
        # What lies in the write-ahead log may still be overwritten, until that is full too.
        wait_until(lambda: self.issuer.make_token().returncode != 0, 30, "the end of the room", 0)
        self.assert_refuses("full")
        os.remove(filler)
        self.assert_recovers()

    def test_a_read_only_disk_is_refused_for_and_an_issuer_does_not_start_on_it(self):
        self.assertEqual(self.issuer.stop(), 0)
        lab.run(["mount", "-o", "remount,ro", self.disk])
        done = subprocess.run(
            [os.path.join(BUILD, "bin/postern-identity"), "--trust-domain", "store.test",
             "--state-dir", os.path.join(self.disk, "state"), "--listen", "127.0.0.1:0", "--admin",
             "127.0.0.1:0", "--socket", os.path.join(self.directory, "other.sock")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=20, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(os.path.join(self.disk, "state"), done.stderr)
        lab.run(["mount", "-o", "remount,rw", self.disk])
        self.issuer.start()
        self.assert_recovers()

    def test_a_database_that_is_gone_is_not_written_to_as_if_it_were_there(self):
        database = os.path.join(self.disk, "state", "identity.db")
        backup = os.path.join(self.directory, "backup")
        self.assertEqual(self.issuer.stop(), 0)
        shutil.copy(database, backup)
        self.issuer.start()
        os.remove(database)
        self.assert_refuses("removed or replaced")
        # Not even when something stands there again: what was issued since is not in it.
        shutil.copy(backup, database)
        self.assert_refuses("removed or replaced")
        self.issuer.kill()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(database + suffix)
        shutil.copy(backup, database)
        os.chmod(database, 0o600)
        self.issuer.start()
        self.assert_recovers()


class KillTest(unittest.TestCase):

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="pstn-kill-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.state = os.path.join(self.directory, "state")
        self.issuer = Issuer(self, self.directory, self.state)
        key, csr = os.path.join(self.directory, "key.pem"), os.path.join(self.directory, "csr.der")
        lab.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-keyout", key, "-outform", "DER", "-out", csr, "-subj", "/CN=web"])
        with open(csr, "rb") as handle:
            self.request = field(1, handle.read()) + field(4, b"")  # and UnixPeer
        self.lock = threading.Lock()
        self.acknowledged = []  # of each certificate that came: (serial, SHA-256)
        self.unexpected = []

    def call_until_killed(self):
        try:
            with unary_grpc.Channel(self.issuer.socket) as channel:
                while True:
                    leaf = leaf_of(channel.call("/postern.v1.Identity/Certify", self.request))
                    with self.lock:
                        self.acknowledged.append((serial_of(leaf), hashlib.sha256(leaf).hexdigest()))
        except (OSError, unary_grpc.CallFailed) as error:
            if "grpc-status" in str(error):
                self.unexpected.append(str(error))

    def test_killed_a_hundred_times_it_loses_nothing_and_repeats_nothing(self):
        self.issuer.start()
        done = self.issuer.run("entry", "create", "--spiffe-id", "spiffe://store.test/web",
                               "--selector", f"unix:uid:{os.getuid()}")
        self.assertEqual(done.returncode, 0, done.stderr)
        moment = random.Random(7)
        for _ in range(KILLS):
            before = len(self.acknowledged)
            callers = [threading.Thread(target=self.call_until_killed) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            wait_until(lambda n=before: len(self.acknowledged) > n + 2, 20, self.issuer.text, 0.001)
            time.sleep(moment.uniform(0, 0.02))  # another moment of the work in each round
            self.issuer.kill()
            for caller in callers:
                caller.join()
            self.issuer.start()
        self.assertEqual(self.unexpected, [])
        self.assertEqual(self.issuer.stop(), 0)
        self.assertGreater(len(self.acknowledged), 2 * KILLS)
        serials = [serial for serial, _ in self.acknowledged]
        self.assertEqual(len(set(serials)), len(serials), "a serial came twice")
        with contextlib.closing(sqlite3.connect(os.path.join(self.state, "identity.db"))) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchone(), ("ok",))
            stored = dict((serial.lower().lstrip("0"), digest.hex()) for serial, digest in
                          database.execute("SELECT serial, leaf_sha256 FROM certificates"))
            everything = database.execute("SELECT count(*) FROM certificates").fetchone()[0]
        self.assertEqual(len(stored), everything)
        lost = [serial for serial, digest in self.acknowledged
                if stored.get(serial.lstrip("0")) != digest]
        self.assertEqual(lost, [], f"{len(lost)} of {len(serials)} acknowledged are lost")


if __name__ == "__main__":
    unittest.main()
