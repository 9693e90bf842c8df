# SPDX-License-Identifier: Apache-2.0
"""--fail-closed: while no proxy runs, nothing of the workload is seen on the wire in plaintext.

The wire is captured at its far end. What would be a leak carries a mark.
"""

import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
import types
import unittest

import harness
import lab
from harness import CLIENT, PROXY_UID, SERVER, SERVER_BACK
from lab import wait_until

MARK = b"PLAINTEXT-OF-THE-WORKLOAD"
POSTERN = os.path.join(harness.BUILD, "bin", "postern")
FAR_END = "pstn1b"
FLOOD_PORT, FLOOD = 8082, b"\xa5" * 64
EXCLUDED_UID = 64930


def destination_ports(pcap):
    """Of the TCP packets of a capture of an Ethernet device."""
    ports, at = [], 24
    while at + 16 <= len(pcap):
        size = struct.unpack_from("<I", pcap, at + 8)[0]
        frame, at = pcap[at + 16:at + 16 + size], at + 16 + size
        kind = struct.unpack_from("!H", frame, 12)[0]
        segment = 14 + (frame[14] & 15) * 4 if kind == 0x0800 else 14 + 40
        ports.append(struct.unpack_from("!H", frame, segment + 2)[0])
    return ports


class RulesAloneTest(unittest.TestCase):
    """The time between the rules and the proxy. The workload is in the client's namespace; it has
    connections from before the rules, in both directions."""

    def setUp(self):
        self.lab = lab.Lab()
        self.addCleanup(self.lab.close)
        self.here, self.there = self.lab.namespace("here"), self.lab.namespace("there")
        self.lab.join(self.here, self.there, 1)
        directory = tempfile.mkdtemp(prefix="pstn-leak-")
        self.addCleanup(shutil.rmtree, directory)
        self.mesh = types.SimpleNamespace(lab=self.lab, directory=directory)

    def up(self, *flags):
        return self.here.run(POSTERN, "intercept", "up", "--proxy-uid", str(PROXY_UID), *flags)

    def listen(self, space, address, port):
        sock = space.listen(address, port)
        sock.settimeout(5)
        self.addCleanup(sock.close)
        return sock

    def pair(self, listener, space, address, port):
        """(the end of the one who connected, the end of the listener)"""
        ours = space.connect(address, port)
        self.addCleanup(ours.close)
        theirs, _ = listener.accept()
        self.addCleanup(theirs.close)
        for sock in (ours, theirs):
            sock.settimeout(0.5)
        return ours, theirs

    def connections_from_before(self, port_out=8080, port_in=9090):
        """The workload's ends and the far ends of four connections: out and in, IPv4 and IPv6."""
        near, far = [], []
        for family in (4, 6):
            listener = self.listen(self.there, SERVER[family], port_out)
            ours, theirs = self.pair(listener, self.here, SERVER[family], port_out)
            near.append(ours)
            far.append(theirs)
            listener = self.listen(self.here, CLIENT[family], port_in)
            theirs, ours = self.pair(listener, self.there, CLIENT[family], port_in)
            near.append(ours)
            far.append(theirs)
        return near, far

    def seen_after(self, near, *flags):
        """What the far end of the wire sees once the rules stand and the workload speaks."""
        self.up(*flags)
        capture = harness.Capture(self.mesh, self.there, FAR_END)
        for i, sock in enumerate(near):
            sock.sendall(MARK + b"-%d" % i)
        time.sleep(1)  # the kernel has sent it again by then
        return capture.stop()

    def test_without_the_flag_connections_from_before_go_on_and_the_capture_sees_it(self):
        near, far = self.connections_from_before()
        seen = self.seen_after(near)
        for i, sock in enumerate(far):
            self.assertEqual(sock.recv(100), MARK + b"-%d" % i)
            self.assertIn(MARK + b"-%d" % i, seen)

    def test_with_it_they_say_nothing_more(self):
        near, far = self.connections_from_before()
        self.assertNotIn(MARK, self.seen_after(near, "--fail-closed"))
        for sock in far:
            with self.assertRaises(TimeoutError):
                sock.recv(100)

    def test_with_it_they_hear_nothing_more(self):
        near, far = self.connections_from_before()
        self.up("--fail-closed")
        for sock in far:
            sock.sendall(b"to the workload")
        incoming = near[1::2]  # outgoing ones may hear answers: what came was on the wire before
        for sock in incoming:
            with self.assertRaises(TimeoutError):
                sock.recv(100)

    def test_nothing_new_gets_out_or_in(self):
        self.up("--fail-closed")
        capture = harness.Capture(self.mesh, self.there, FAR_END)
        for family in (4, 6):
            self.listen(self.there, SERVER[family], 8080)
            app = self.listen(self.here, CLIENT[family], 9090)
            app.settimeout(0.2)
            with self.assertRaises(ConnectionRefusedError):  # at once: the application can tell
                self.here.connect(SERVER[family], 8080)
            with self.assertRaises(OSError):
                self.there.connect(CLIENT[family], 9090, timeout=1)
            with self.assertRaises(TimeoutError):
                app.accept()
        ports = destination_ports(capture.stop())
        self.assertIn(9090, ports)  # the capture works
        self.assertNotIn(8080, ports)

    def test_what_is_excluded_goes_on(self):
        old, far = self.connections_from_before(port_out=22, port_in=2222)
        self.up("--fail-closed", "--exclude-outbound-port", "22", "--exclude-inbound-port", "2222")
        for ours, theirs in zip(old, far):
            theirs.sendall(b"from outside")
            self.assertEqual(ours.recv(100), b"from outside")
            ours.sendall(b"from the workload")
            self.assertEqual(theirs.recv(100), b"from the workload")
        listener = self.listen(self.there, SERVER[4], 23)
        self.up("--fail-closed", "--exclude-cidr", f"{SERVER[4]}/32")
        ours, theirs = self.pair(listener, self.here, SERVER[4], 23)
        theirs.sendall(b"new")
        self.assertEqual(ours.recv(100), b"new")

    def test_what_an_excluded_user_left_to_the_kernel_still_arrives(self):
        """Its process is gone by then, and the packets have no user any more."""
        self.up("--fail-closed", "--exclude-uid", str(EXCLUDED_UID))
        listener = self.listen(self.there, SERVER[4], 8080)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        code = ("import os,socket\n"
                f"s=socket.create_connection(({SERVER[4]!r},8080),5)\n"
                "s.setsockopt(socket.SOL_SOCKET,socket.SO_SNDBUF,200000)\n"
                "s.sendall(b'x'*150000)\nos._exit(0)\n")
        process = self.lab.start(self.here, "python3", "-c", code, uid=EXCLUDED_UID)
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(process.wait(10), 0)
        accepted.settimeout(5)
        got = 0
        while data := accepted.recv(65536):
            got += len(data)
        self.assertEqual(got, 150000)


class Traffic:
    """Connections one after the other, one that stays as long as it can, and one at which the server
    does not stop to send, in threads of their own until it is stopped."""

    def __init__(self, space, address, port):
        self.space, self.address, self.port = space, address, port
        self.served = self.refused = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True)
                         for work in (self._short, self._long, self._listen)]
        for thread in self._threads:
            thread.start()

    def _short(self):
        while not self._stop.is_set():
            try:
                with contextlib.closing(self.space.connect(self.address, self.port, 2)) as sock:
                    sock.sendall(MARK)
                    if sock.recv(100) == MARK:
                        self.served += 1
                    else:
                        self.refused += 1
            except OSError:
                self.refused += 1
            self._stop.wait(0.005)

    def _long(self):
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                with contextlib.closing(self.space.connect(self.address, self.port, 2)) as sock:
                    while not self._stop.is_set():
                        sock.sendall(MARK * 100)
                        if not sock.recv(65536):
                            break
            self._stop.wait(0.005)

    def _listen(self):
        with contextlib.suppress(OSError):
            with contextlib.closing(self.space.connect(self.address, FLOOD_PORT, 2)) as sock:
                while not self._stop.wait(0.02) and sock.recv(32768):
                    pass

    def more(self, what, count=20, timeout=20):
        start = getattr(self, what)
        wait_until(lambda: getattr(self, what) >= start + count, timeout, f"{count} more {what}")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


class KilledProxyTest(harness.MeshTest):
    """kill -9 under traffic, on either side."""

    server_rules = ["--fail-closed"]
    server_capabilities = ()
    refusals = 20

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_workload("server", mesh.server, "198.18.3.2", intercept=cls.server_rules,
                          capabilities=cls.server_capabilities, entry=["--address", SERVER[4], "--address", SERVER[6]])
        mesh.add_workload("client", mesh.client, "198.18.2.2", intercept=["--fail-closed"])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        mesh.serve("echo", 8080)
        mesh.serve("sum", 8081)
        mesh.serve("flood", FLOOD_PORT)
        return mesh

    def kill_under_traffic(self, name):
        captures = [self.mesh.capture(self.mesh.server, FAR_END)]
        running = []
        for family in (4, 6):
            running.append(Traffic(self.mesh.client, SERVER[family], 8080))
        try:
            for traffic in running:
                traffic.more("served")
            self.proxy(name).kill()
            for traffic in running:
                traffic.more("refused", self.refusals)
            self.look_while_it_is_down(name)
        finally:
            for traffic in running:
                traffic.stop()
        seen = [capture.stop() for capture in captures]
        self.assertGreater(len(seen[0]), 100_000)
        for packets in seen:
            self.assertNotIn(MARK, packets)
            self.assertNotIn(FLOOD, packets)
        self.proxy(name).start()
        self.proxy(name).wait_ready()
        again = Traffic(self.mesh.client, SERVER[4], 8080)
        self.addCleanup(again.stop)
        again.more("served")

    def look_while_it_is_down(self, name):
        """A plaintext client of no mesh does not get to the application either."""
        if name != "server":
            return
        back = self.mesh.capture(self.mesh.server, "pstn3a")
        for _ in range(3):
            with self.assertRaises(OSError):
                with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 8080, 2)) as sock:
                    sock.sendall(MARK)
                    if not sock.recv(100):
                        raise ConnectionError("ended")
        self.assertNotIn(MARK, back.stop())

    def test_nothing_leaks_when_the_clients_proxy_is_killed(self):
        self.kill_under_traffic("client")

    def test_nothing_leaks_when_the_servers_proxy_is_killed(self):
        self.kill_under_traffic("server")

    def test_all_that_should_pass_passes(self):
        """Also what the proxies have left to the kernel when they close."""
        for family in (4, 6):
            with contextlib.closing(self.mesh.client.connect(SERVER[family], 8081, 20)) as sock:
                sock.sendall(b"y" * 3_000_000)
                sock.shutdown(socket.SHUT_WR)
                self.assertEqual(sock.recv(100), b"3000000")
        for name in ("client", "server"):
            space = self.proxy(name).space
            shown = space.run(POSTERN, "intercept", "show").stdout
            self.assertIn("closed: outbound past the proxy  [0 packets]", shown)


class KilledTransparentProxyTest(KilledProxyTest):
    """The same where the application answers to the client's own address."""

    server_rules = ["--mode", "tproxy", "--fail-closed"]
    server_capabilities = ("net_admin",)
    refusals = 2  # what is dropped is refused by a deadline


if __name__ == "__main__":
    unittest.main()
