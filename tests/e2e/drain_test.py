# SPDX-License-Identifier: Apache-2.0
"""A proxy with several workers that drains: the application goes on dialling, and is let end well."""

import contextlib
import json
import signal
import socket
import socketserver
import threading
import time
import unittest

import loopback
import pki
from lab import wait_until
from loopback import Proxy, free_port

WEB, DB = "spiffe://mesh.test/web", "spiffe://mesh.test/db"
# The upper bits of a connection's number are its worker's.
WORKER_SHIFT = 48


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class DrainTest(loopback.LoopbackTest):
    def setUp(self):
        super().setUp()
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        authority = pki.Authority(self.directory, "ca")
        inbound, self.port = free_port(), free_port()

        def identity(name, spiffe_id):
            pem, key = authority.issue(name, spiffe_id)
            return ["--svid", pem, "--svid-key", key, "--bundle", authority.root, "--drain-delay", "0"]
        self.start(Proxy(self, "db", *identity("db", DB), "--tunnel",
                         f"inbound,listen=127.0.0.1:{inbound},"
                         f"target=127.0.0.1:{server.server_address[1]},peer={WEB}")).wait_ready()
        self.client = self.start(Proxy(
            self, "client", *identity("web", WEB), "--workers", "2", "--drain-timeout", "60s",
            "--tunnel", f"outbound,listen=127.0.0.1:{self.port},target=127.0.0.1:{inbound},"
            f"peer={DB}")).wait_ready()

    def dial(self):
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        self.addCleanup(sock.close)
        self.assert_echo(sock)
        return sock

    def assert_echo(self, sock):
        sock.sendall(b"ping")
        self.assertEqual(sock.recv(4), b"ping")

    def worker_of(self, sock):
        own = "127.0.0.1:%d" % sock.getsockname()[1]
        listed = json.loads(self.client.get("/connections", self.client.admin_port)[1])
        return next(c["id"] >> WORKER_SHIFT for c in listed if c["downstream"] == own)

    def test_what_is_dialled_at_a_worker_that_was_done_is_waited_for_too(self):
        held = self.dial()
        busy = self.worker_of(held)
        self.client.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in self.client.log(), what="the drain")
        time.sleep(0.3)  # for the other worker, which has nothing open: it is done
        late = None
        for _ in range(64):  # the kernel picks the worker
            late = self.dial()
            if self.worker_of(late) != busy:
                break
            late.close()
        else:
            self.fail("the other worker accepts nothing")
        held.close()
        time.sleep(0.5)  # for whatever becomes of it
        self.assert_echo(late)
        late.close()
        self.assertEqual(self.client.process.wait(10), 0)


if __name__ == "__main__":
    unittest.main()
