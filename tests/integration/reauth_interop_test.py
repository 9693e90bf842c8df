# SPDX-License-Identifier: Apache-2.0
"""Proving an identity again inside a connection, between postern-proxy and the openssl program."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request

SOURCE = os.environ.get("POSTERN_SOURCE_DIR", os.getcwd())
BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(SOURCE, "build", "release"))
sys.path.append(os.path.join(SOURCE, "tests", "e2e"))

import pki  # noqa: E402
from lab import wait_until  # noqa: E402

PROXY = os.path.join(BUILD, "bin", "postern-proxy")
# A leaf that is good for a day, of which this much is over.
LAST_SECONDS = "-86385"
OWN_ID, PEER_ID = "spiffe://interop.test/own", "spiffe://interop.test/peer"


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Talker:
    """A program that is spoken to line by line; what it says is gathered."""

    def __init__(self, case, *words):
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT)
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        case.addCleanup(self._end)

    def _read(self):
        while data := self._process.stdout.read1(65536):
            self.text += data.decode(errors="replace")

    def _end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._reader.join()
        self._process.stdout.close()

    def say(self, line):
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, pattern, count=1):
        wait_until(lambda: len(re.findall(pattern, self.text)) >= count, 20,
                   lambda: f"{count} times {pattern!r} in: {self.text}", 0.05)


class InteropTest(unittest.TestCase):
    def setUp(self):
        for program in ("openssl", "faketime"):
            if shutil.which(program) is None:
                self.skipTest(f"{program} is not installed: deploy/packages.sh install test")
        if not os.path.exists(PROXY):
            self.skipTest("this build has no postern-proxy")
        self.directory = tempfile.mkdtemp(prefix="postern-interop-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.ca = pki.Authority(self.directory, "interop")

    def start_proxy(self, tunnel):
        pem, key = self.ca.issue("own", OWN_ID)
        self.metrics = free_port()
        log = open(os.path.join(self.directory, "proxy.log"), "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [PROXY, "--svid", pem, "--svid-key", key, "--bundle", self.ca.root, "--tunnel", tunnel,
             "--admin", f"127.0.0.1:{free_port()}", "--admin-socket", "off", "--metrics",
             f"127.0.0.1:{self.metrics}", "--on-peer-expiry", "allow"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_until(self.is_ready, 20, "the proxy", 0.05)

    def page(self, path):
        with contextlib.closing(urllib.request.urlopen(
                f"http://127.0.0.1:{self.metrics}{path}", timeout=5)) as reply:
            return reply.read().decode()

    def is_ready(self):
        try:
            return bool(self.page("/ready"))
        except OSError:
            return False

    def value(self, series):
        found = re.search(rf"^{re.escape(series)} (\d+)", self.page("/metrics"), re.MULTILINE)
        return int(found.group(1)) if found else -1

    def count(self, result):
        return self.value(f'postern_reauthentications_total{{result="{result}"}}')

    def test_openssl_as_the_client_is_asked_and_answers(self):
        echo = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(echo.close)

        def serve():
            with contextlib.suppress(OSError):
                conversation, _ = echo.accept()
                with contextlib.closing(conversation):
                    while data := conversation.recv(65536):
                        conversation.sendall(data)
        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join)
        port = free_port()
        self.start_proxy(f"inbound,listen=127.0.0.1:{port},target=127.0.0.1:{echo.getsockname()[1]},"
                         f"peer={PEER_ID}")
        pem, key = self.ca.issue("peer", PEER_ID, shift=LAST_SECONDS)
        client = Talker(self, "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-enable_pha",
                        "-cert", pem, "-key", key, "-CAfile", self.ca.root, "-quiet")
        client.say("before")
        client.wait_for("before")
        wait_until(lambda: self.count("unchanged") >= 1, 20, "an answer", 0.1)
        client.say("after")
        client.wait_for("after")
        self.assertEqual(self.count("failed"), 0)

    def test_openssl_as_the_client_without_the_extension_is_left_alone(self):
        echo = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(echo.close)
        port = free_port()
        self.start_proxy(f"inbound,listen=127.0.0.1:{port},target=127.0.0.1:{echo.getsockname()[1]},"
                         f"peer={PEER_ID}")
        pem, key = self.ca.issue("peer", PEER_ID, shift=LAST_SECONDS)
        client = Talker(self, "openssl", "s_client", "-connect", f"127.0.0.1:{port}",
                        "-cert", pem, "-key", key, "-CAfile", self.ca.root, "-quiet")
        conversation, _ = echo.accept()
        self.addCleanup(conversation.close)
        client.say("up")
        self.assertEqual(conversation.recv(3), b"up\n")
        wait_until(lambda: self.value('postern_connections_past_peer_expiry{direction="inbound"}') == 1,
                   30, "the end of the certificate", 0.2)
        conversation.sendall(b"down\n")
        client.wait_for("down")
        for result in ("renewed", "unchanged", "failed"):
            self.assertEqual(self.count(result), 0)

    def test_openssl_as_the_server_asks_and_is_answered(self):
        pem, key = self.ca.issue("peer", PEER_ID)
        upstream, port = free_port(), free_port()
        server = Talker(self, "openssl", "s_server", "-accept", f"127.0.0.1:{upstream}", "-cert", pem,
                        "-key", key, "-CAfile", self.ca.root, "-verify", "2", "-tls1_3")
        server.wait_for("ACCEPT")
        self.start_proxy(f"outbound,listen=127.0.0.1:{port},target=127.0.0.1:{upstream},"
                         f"peer={PEER_ID}")
        application = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.addCleanup(application.close)
        application.sendall(b"first\n")
        server.wait_for("first")
        shown = len(re.findall("verify return:1", server.text))
        server.say("c")
        application.sendall(b"second\n")
        server.wait_for("second")
        server.wait_for("verify return:1", shown + 1)
        server.say("down")
        received = b""
        while b"down\n" not in received:
            data = application.recv(65536)
            self.assertNotEqual(data, b"", server.text)
            received += data
        wait_until(lambda: self.count("answered") == 1, 20, "the count", 0.2)


if __name__ == "__main__":
    unittest.main()
