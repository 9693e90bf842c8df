# SPDX-License-Identifier: Apache-2.0
"""Real programs through interception: what they say arrives, and nobody on the wire can read it."""

import contextlib
import hashlib
import os
import socket
import subprocess
import unittest

import harness
import servers
from harness import SERVER, url_host
from lab import wait_until

MARK = b"THIS-IS-THE-PLAINTEXT-"
WIRE = "pstn1b"  # the server's end of the wire between the two workloads
GIGABYTE = 1 << 30


def write_gigabyte(path):
    """1 GiB in which every KiB is different and holds the mark; returns its SHA-256."""
    digest, block = hashlib.sha256(), os.urandom(1024 - 64)
    with open(path, "wb") as handle:
        for part in range(1024):
            chunk = b"".join((MARK + b"%d" % (part * 1024 + i)).ljust(64) + block
                             for i in range(1024))
            digest.update(chunk)
            handle.write(chunk)
    return digest.hexdigest()


class NginxTest(harness.MeshTest):
    """curl in the client's namespace, nginx in the server's."""

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        root = mesh.path("www")
        os.makedirs(root)
        with open(os.path.join(root, "small"), "wb") as handle:
            handle.write(MARK * (1024 // len(MARK)))
        # Kept in memory: the disk is not what is tested.
        cls.big = f"/dev/shm/pstn-e2e-{os.getpid()}"
        cls.addClassCleanup(lambda: os.path.exists(cls.big) and os.remove(cls.big))
        servers.start_nginx(mesh, 8080, f"""access_log off; sendfile on;
  server {{ listen 0.0.0.0:8080; listen [::]:8080; root {root};
    location = /big {{ alias {cls.big}; }} }}""")
        return mesh

    def curl(self, family, path, *words):
        return self.mesh.client.run("curl", "-sS", "--fail", "--max-time", "120", *words,
                                    f"http://{url_host(SERVER[family])}:8080/{path}")

    def test_a_kilobyte_arrives_and_the_wire_shows_none_of_it(self):
        for family in (4, 6):
            with self.subTest(family=family):
                records = len(self.proxy("client").access_log())
                wire = self.mesh.capture(self.mesh.server, WIRE)
                inside = self.mesh.capture(self.mesh.server, "lo")
                body = self.curl(family, "small").stdout.encode()
                self.assertEqual(body, MARK * (1024 // len(MARK)))
                seen, plain = wire.stop(), inside.stop()
                self.assertIn(MARK, plain)  # the capture does find it where it is in the clear
                self.assertIn(b"GET /small", plain)
                self.assertNotIn(MARK, seen)
                for word in (b"GET /small", b"HTTP/1.1", b"curl/", b"nginx"):
                    self.assertNotIn(word, seen)
                self.assertIn(b"\x17\x03\x03", seen)  # TLS application data went over the wire
                wait_until(lambda n=records: len(self.proxy("client").access_log()) > n, what="record")
                self.assert_mutual_tls(records)

    def test_a_gigabyte_arrives_whole_in_both_families(self):
        wanted = write_gigabyte(self.big)
        for family in (4, 6):
            with self.subTest(family=family):
                before = self.proxy("server").metric("postern_bytes_total", direction="inbound",
                                                     **{"from": "upstream"})
                wire = self.mesh.capture(self.mesh.server, WIRE, snap=512)
                words = self.mesh.client.prefix() + [
                    "curl", "-sS", "--fail", "--max-time", "120",
                    f"http://{url_host(SERVER[family])}:8080/big"]
                digest = hashlib.sha256()
                with subprocess.Popen(words, stdout=subprocess.PIPE) as curl:
                    while data := curl.stdout.read(1 << 20):
                        digest.update(data)
                self.assertEqual(curl.returncode, 0)
                self.assertEqual(digest.hexdigest(), wanted)
                self.assertNotIn(MARK, wire.stop())
                carried = wait_until(lambda: self.proxy("server").metric(
                    "postern_bytes_total", direction="inbound", **{"from": "upstream"}) - before,
                    what="bytes counted")
                self.assertGreaterEqual(carried, GIGABYTE)

    def test_a_keep_alive_connection_carries_many_requests(self):
        url = f"http://{SERVER[4]}:8080/small"
        opened = self.proxy("client").metric("postern_connections_opened_total")
        self.mesh.client.run("curl", "-sS", "--fail", *["-o", "/dev/null", url] * 50)
        self.assertEqual(self.proxy("client").metric("postern_connections_opened_total"), opened + 1)

    def test_the_application_calls_itself_by_its_own_address(self):
        for family in (4, 6):
            self.mesh.server.run("curl", "-sS", "--fail", "--max-time", "10",
                                 f"http://{url_host(SERVER[family])}:8080/small")

    def test_plaintext_from_outside_the_mesh_is_refused(self):
        done = self.mesh.back.run("curl", "-sS", "--max-time", "10",
                                  f"http://{harness.SERVER_BACK}:8080/small", check=False)
        self.assertNotEqual(done.returncode, 0)
        wait_until(lambda: any(f["reason"] == "plaintext_refused"
                               for f in self.proxy("server").failures()), what="failure")

    def test_metrics_can_be_scraped_from_outside_in_both_families(self):
        for address in (SERVER[4], SERVER[6]):
            self.assertIn("postern_connections_opened_total", self.mesh.client.run(
                "curl", "-sS", "--fail", f"http://{url_host(address)}:15020/metrics").stdout)


class MannersTest(harness.MeshTest):
    """Applications that end their connections in every way."""

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        for kind, port in (("echo", 7000), ("sum", 7001), ("reset", 7002)):
            mesh.serve(kind, port)
        return mesh

    def last_reason(self, name):
        self.proxy(name).wait_recorded()
        return self.proxy(name).access_log()[-1]["reason"]

    def test_a_half_closed_connection_still_brings_the_answer(self):
        for family in (4, 6):
            with contextlib.closing(self.mesh.client.connect(SERVER[family], 7001)) as sock:
                sock.sendall(b"x" * 3_000_000)
                sock.shutdown(socket.SHUT_WR)
                self.assertEqual(sock.recv(100), b"3000000")
                self.assertEqual(sock.recv(100), b"")
            self.assertEqual(self.last_reason("server"), "ok")

    def test_a_client_that_resets_is_a_reset_for_the_server(self):
        sock = self.mesh.client.connect(SERVER[4], 7000)
        sock.sendall(b"a")
        self.assertEqual(sock.recv(1), b"a")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        self.assertEqual(self.last_reason("server"), "reset")
        self.assertEqual(self.last_reason("client"), "reset")

    def test_a_server_that_resets_is_a_reset_for_the_client(self):
        with contextlib.closing(self.mesh.client.connect(SERVER[4], 7002)) as sock:
            sock.sendall(b"a")
            with self.assertRaises(ConnectionResetError):
                while sock.recv(100):
                    pass

    def test_a_port_where_nobody_listens_is_an_error_for_the_client(self):
        with contextlib.closing(self.mesh.client.connect(SERVER[4], 7999)) as sock:
            with self.assertRaises(ConnectionResetError):
                sock.sendall(b"a")
                if sock.recv(1) == b"":
                    self.fail("a clean end, although nobody answered")
        wait_until(lambda: any(f["reason"] == "connect_failed"
                               for f in self.proxy("server").failures()), what="connect_failed")


class SlowReaderTest(harness.MeshTest):
    """One that reads a byte a second while a server has a gigabyte to send."""

    def test_memory_stays_flat(self):
        server = self.mesh.serve("flood", 7003)
        proxies = [self.proxy("client"), self.proxy("server")]
        before = [proxy.resident() for proxy in proxies]
        sock = self.mesh.client.connect(SERVER[4], 7003)
        self.addCleanup(sock.close)
        sent = []
        for _ in range(8 if not harness.SOAK else 60):
            sock.settimeout(10)
            self.assertEqual(sock.recv(1), b"\xa5")
            sent.append(int(server.stdout.readline()))  # once a second
        self.assertEqual(sent[-1], sent[3], "the server is held back")
        # Socket buffers of three connections and the proxies' watermarks, far from a gigabyte.
        self.assertLess(sent[-1], 64 << 20)
        for proxy, start in zip(proxies, before):
            self.assertLess(proxy.resident() - start, 4 << 20, proxy.name)


if __name__ == "__main__":
    unittest.main()
