# SPDX-License-Identifier: Apache-2.0
"""Renewals of one proxy forced one after another by its control socket, under bulk load: no connection
is lost, no byte changed, and neither memory nor descriptors grow. And `postern renew`."""

import os
import threading
import time
import unittest

import harness
import lab
from control import Control
from harness import SERVER
from lab import wait_until
from renewal_test import Load, renewals

RENEWALS = 1000 if harness.SOAK else 50
BULK = 4
PATTERN = os.urandom(1 << 20)
# Anonymous memory breathes with the load by some 100 KiB; a renewal that leaks 4 KiB is found.
MOST_GROWTH = 4 << 20


class Bulk:
    """Connections that send all they can to the server's echo and compare all that comes back."""

    def __init__(self, mesh, count):
        self.errors, self.moved = [], 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = []
        for _ in range(count):
            sock = mesh.client.connect(SERVER[4], 7000)
            sock.settimeout(30)
            for work in (self._send, self._receive):
                self._threads.append(threading.Thread(target=work, args=(sock,)))
        for thread in self._threads:
            thread.start()

    def _note(self, error):
        with self._lock:
            self.errors.append(error)

    def _send(self, sock):
        try:
            while not self._stop.is_set():
                sock.sendall(PATTERN)
            sock.shutdown(1)
        except OSError as error:
            self._note(f"sending: {error}")

    def _receive(self, sock):
        at = 0
        try:
            with sock:
                while data := sock.recv(1 << 18):
                    place = at % len(PATTERN)
                    if data != (PATTERN + PATTERN[:1 << 18])[place:place + len(data)]:
                        raise OSError(f"changed near byte {at}")
                    at += len(data)
        except OSError as error:
            self._note(f"receiving: {error}")
        if at % len(PATTERN) != 0 or not self._stop.is_set():
            self._note(f"ended after {at} bytes")
        with self._lock:
            self.moved += at

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class ForcedRenewalTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh(issuer_words=["--certify-rate", "0"])
        cls.addClassCleanup(mesh.close)
        words = {}
        for name in ("client", "server"):
            directory = mesh.private_directory(f"{name}.run")
            words[name] = ["--admin-socket", os.path.join(directory, "admin.sock")]
        mesh.add_pair(words["client"], words["server"])
        mesh.serve("echo", 7000)
        return mesh

    def control(self, name):
        return Control(os.path.join(self.mesh.path(f"{name}.run"), "admin.sock"))

    def renew_under_load(self, name, count):
        proxy, control = self.proxy(name), self.control(name)
        load, bulk = Load(self.mesh), Bulk(self.mesh, BULK)
        try:
            serials, sizes, descriptors = [], [], []
            failed = renewals(proxy, "failed")
            began = time.monotonic()
            for done in range(1, count + 1):
                before = control.leaf_serial()
                control.renew()
                wait_until(lambda b=before: control.leaf_serial() != b, 20,
                           lambda: f"renewal {done}: {control.identity()}", 0.005)
                serials.append(control.leaf_serial())
                sizes.append(proxy.resident())
                descriptors.append(proxy.descriptors())
            took = time.monotonic() - began
            self.assertTrue(proxy.is_ready())
        finally:
            bulk.end()
            counts = load.end()
        self.assertEqual(bulk.errors, [])
        self.assertEqual(counts["errors"], [])
        self.assertEqual(len(set(serials)), count, "a new certificate each time")
        self.assertEqual(renewals(proxy, "failed"), failed)
        # The least of a part of the run: what is left when the load lets go of its buffers.
        fifth = max(count // 5, 1)
        early, late = min(sizes[fifth:2 * fifth] or sizes), min(sizes[-fifth:])
        print(f"{count} renewals of the {name} in {took:.1f} s; {bulk.moved >> 20} MiB in {BULK} bulk "
              f"connections, {counts['short']} short ones and {counts['long_echoes']} echoes beside "
              f"them, none lost; anonymous memory {early >> 10} -> {late >> 10} KiB, descriptors "
              f"{descriptors[fifth]} -> {descriptors[-1]}")
        self.assertLess(late - early, MOST_GROWTH)
        self.assertLess(max(descriptors[-fifth:]) - max(descriptors[fifth:2 * fifth]
                                                        or descriptors), 10)
        self.assertGreater(bulk.moved, count << 20)

    def tearDown(self):
        for proxy in self.mesh.proxies.values():
            proxy.check_not_restarted()

    def test_no_connection_is_lost_when_the_server_renews(self):
        self.renew_under_load("server", RENEWALS)
        self.assert_closed_well()

    def test_no_connection_is_lost_when_the_client_renews(self):
        self.renew_under_load("client", RENEWALS // 5)
        self.assert_closed_well()

    def assert_closed_well(self):
        for proxy in self.mesh.proxies.values():
            proxy.wait_idle()
            closed = {key: value for key, value in proxy.metrics().items() if value > 0
                      and key.startswith("postern_connections_closed_total")
                      and 'reason="ok"' not in key}
            self.assertEqual(closed, {}, proxy.name)

    def test_postern_renew_prints_the_new_serial_or_why_there_is_none(self):
        control = self.control("server")
        before = control.leaf_serial()
        words = [self.mesh.tool("postern"), "renew", "--admin-socket", control._path]
        done = lab.run(words)
        self.assertNotEqual(control.leaf_serial(), before)
        self.assertIn(control.leaf_serial(), done.stdout)
        self.mesh.stop_issuer()
        try:
            failed = lab.run(words, check=False)
        finally:
            self.mesh.start_issuer()
        self.assertEqual(failed.returncode, 1, failed.stdout)
        self.assertIn("the old certificate goes on", failed.stderr)
        self.assertTrue(self.proxy("server").is_ready())
        wait_until(lambda: self.proxy("server").metric("postern_issuer_connected") == 1, 30,
                   "the stream")


if __name__ == "__main__":
    unittest.main()
