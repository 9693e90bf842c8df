# SPDX-License-Identifier: Apache-2.0
"""Connections that live longer than the certificates of both ends."""

import contextlib
import os
import time
import unittest

import harness
from harness import CLIENT_ID, SERVER
from lab import wait_until

TTL = 10
LIFETIMES = 20 if harness.SOAK else 3


class Stream:
    """One connection to the server's echo port, on which no byte may be lost or changed."""

    def __init__(self, mesh):
        self._socket = mesh.client.connect(SERVER[4], 7000)
        self._socket.settimeout(20)
        self.blocks = 0

    def echo(self, size=20_000):
        block = os.urandom(size)
        self._socket.sendall(block)
        received = b""
        while len(received) < size:
            data = self._socket.recv(65536)
            if not data:
                raise AssertionError(f"the connection ended after {self.blocks} blocks")
            received += data
        if received != block:
            raise AssertionError(f"block {self.blocks} came back changed")
        self.blocks += 1

    def close(self):
        self._socket.close()


def reauths(proxy, result):
    return proxy.metric("postern_reauthentications_total", result=result)


def past_expiry(proxy, direction):
    return proxy.metric("postern_connections_past_peer_expiry", direction=direction)


class ReauthTest(harness.MeshTest):
    mesh_options = {"svid_ttl": f"{TTL}s"}
    echo_port = 7000

    def test_a_connection_outlives_many_lifetimes_of_both_certificates(self):
        client, server = self.proxy("client"), self.proxy("server")
        before = {name: reauths(server, name) for name in ("renewed", "failed")}
        with contextlib.closing(Stream(self.mesh)) as stream:
            began = time.monotonic()
            longest = 0
            while time.monotonic() - began < LIFETIMES * TTL + 2:
                asked = time.monotonic()
                stream.echo()
                longest = max(longest, time.monotonic() - asked)
                # Never past the client's certificate: it proves itself again in time.
                self.assertEqual(past_expiry(server, "inbound"), 0)
                time.sleep(0.05)
            renewed = reauths(server, "renewed") - before["renewed"]
            self.assertGreaterEqual(renewed, LIFETIMES)
            self.assertEqual(reauths(server, "failed"), before["failed"])
            # The server's certificate cannot be renewed inside: the connection goes on all the same.
            self.assertEqual(past_expiry(client, "outbound"), 1)
            shown = [c for c in server.page("/connections") if c["peer_id"] == CLIENT_ID]
            self.assertEqual(len(shown), 1, shown)
            self.assertGreaterEqual(shown[0]["reauthentications"], LIFETIMES)
            print(f"{stream.blocks} blocks in {LIFETIMES} lifetimes, {renewed:.0f} renewals inside the "
                  f"connection, longest echo {longest * 1000:.0f} ms")
        for proxy in (client, server):
            proxy.wait_recorded()
            for reason in ("reset", "reauth_failed", "peer_expired_open", "rejected_by_peer"):
                self.assertEqual(proxy.metric("postern_connections_closed_total", reason=reason), 0,
                                 f"{proxy.name} {reason}")
        wait_until(lambda: reauths(client, "answered") >= renewed, 10, "the client's count")
        record = server.access_log()[-1]
        self.assertEqual(record["reason"], "ok")
        self.assertGreaterEqual(record["reauthentications"], LIFETIMES)


class CloseTest(harness.MeshTest):
    """--on-peer-expiry close, where the peer cannot prove itself again: a server to its client."""

    mesh_options = {"svid_ttl": f"{TTL}s"}
    client_words = ("--on-peer-expiry", "close")
    echo_port = 7000

    def test_the_connection_ends_with_the_servers_certificate(self):
        client = self.proxy("client")
        with contextlib.closing(Stream(self.mesh)) as stream:
            began = time.monotonic()
            with self.assertRaises((AssertionError, OSError)):
                while time.monotonic() - began < 2 * TTL:
                    stream.echo(100)
                    time.sleep(0.05)
            self.assertLess(time.monotonic() - began, TTL + 2)
        wait_until(lambda: client.metric("postern_connections_closed_total",
                                         reason="peer_expired_open") == 1, what="the count")
        failure = client.failures()[0]
        self.assertEqual(failure["reason"], "peer_expired_open")
        self.assertEqual(failure["alert_sent"], 45)
        # A new one stands at once.
        with contextlib.closing(Stream(self.mesh)) as stream:
            stream.echo()


if __name__ == "__main__":
    unittest.main()
