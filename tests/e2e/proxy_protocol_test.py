# SPDX-License-Identifier: Apache-2.0
"""nginx and HAProxy behind a proxy learn of their clients by the PROXY protocol, and from nobody else."""

import contextlib
import re
import shutil
import subprocess
import unittest

import harness
import servers
from harness import CLIENT, CLIENT_ID, SERVER, SERVER_BACK, url_host
from lab import run, wait_until

NGINX, HAPROXY = 8080, 8081
BACK = "198.18.3.2"
# From these versions on they can be asked for any TLV.
NGINX_WITH_TLVS, HAPROXY_WITH_TLVS = (1, 23, 2), (2, 9, 0)


def version(program):
    done = run([program, "-v"])
    found = re.search(r"(?:nginx/|version )(\d+)\.(\d+)\.(\d+)", done.stdout + done.stderr)
    return tuple(int(part) for part in found.groups())


class ProxyProtocolTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_pair((), ["--peer-mode", "permissive", "--proxy-protocol", str(NGINX),
                           "--proxy-protocol", str(HAPROXY)])
        cls.nginx = version("nginx")
        cls.start_nginx(mesh)
        cls.haproxy = version("haproxy") if shutil.which("haproxy") else None
        if cls.haproxy:
            cls.start_haproxy(mesh)
        return mesh

    @classmethod
    def start_nginx(cls, mesh):
        says = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr"
        # The client's SPIFFE ID, and what is in the TLV about its TLS.
        tlvs = ("id=$proxy_protocol_tlv_0xd0 version=$proxy_protocol_tlv_ssl_version "
                "cipher=$proxy_protocol_tlv_ssl_cipher verify=$proxy_protocol_tlv_ssl_verify"
                if cls.nginx >= NGINX_WITH_TLVS else "")
        servers.start_nginx(mesh, NGINX, f"""log_format who '$proxy_protocol_addr $status';
  access_log {mesh.path('nginx.access.log')} who;
  server {{ listen 0.0.0.0:{NGINX} proxy_protocol; listen [::]:{NGINX} proxy_protocol;
    default_type text/plain; location / {{ return 200 "{says}\\n"; }}
    location = /tlvs {{ return 200 "{says} {tlvs}\\n"; }} }}""")

    @classmethod
    def start_haproxy(cls, mesh):
        tlvs = "id=%[fc_pp_tlv(0xD0)]" if cls.haproxy >= HAPROXY_WITH_TLVS else ""
        with open(mesh.path("haproxy.cfg"), "w", encoding="ascii") as handle:
            handle.write(f"""defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend it
  bind 0.0.0.0:{HAPROXY} accept-proxy
  bind :::{HAPROXY} v6only accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] {tlvs}\\n"
""")
        mesh.lab.start(mesh.server, "haproxy", "-db", "-f", mesh.path("haproxy.cfg"),
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        servers.await_port(mesh, HAPROXY)

    def curl(self, space, address, port, path=""):
        """The words of the answer, and the record of the server's proxy about the connection."""
        server = self.proxy("server")
        before = len(server.access_log())
        words = space.run("curl", "-sS", "--fail", "--max-time", "10",
                          f"http://{url_host(address)}:{port}/{path}").stdout.split()

        def record():  # not that of a connection from before, which may come late
            return [one for one in server.access_log()[before:]
                    if one["downstream"].endswith(f":{words[1]}")]
        return words, wait_until(record, what=lambda: f"a record of {words}")[-1]

    def assert_told(self, port):
        for family in (4, 6):
            with self.subTest(family=family, mesh=True):
                words, record = self.curl(self.mesh.client, SERVER[family], port)
                self.assertEqual(record["security"], "mutual_tls")
                self.assertEqual(words[:3], [CLIENT[family],
                                             record["downstream"].rpartition(":")[2],
                                             SERVER[family]])
                self.assertEqual(record["downstream"], f"{url_host(words[0])}:{words[1]}")
        with self.subTest(mesh=False):
            words, record = self.curl(self.mesh.back, SERVER_BACK, port)
            self.assertEqual(record["security"], "plaintext")
            self.assertEqual(words[:3], [BACK, record["downstream"].rpartition(":")[2], SERVER_BACK])

    def test_nginx_is_told_of_mesh_and_plaintext_clients(self):
        self.assert_told(NGINX)

    def skip_before(self, program, found, wanted):
        if found < wanted:
            self.skipTest("distribution: %s %d.%d.%d cannot read TLVs, %d.%d.%d can"
                          % (program, *found, *wanted))

    def test_nginx_is_told_the_identity_and_the_tls(self):
        self.skip_before("nginx", self.nginx, NGINX_WITH_TLVS)
        for family in (4, 6):
            with self.subTest(family=family):
                words, record = self.curl(self.mesh.client, SERVER[family], NGINX, "tlvs")
                self.assertEqual(words[3:], [f"id={CLIENT_ID}", "version=TLSv1.3",
                                             f"cipher={record['tls_cipher']}", "verify=0"])
        with self.subTest(mesh=False):
            words, _ = self.curl(self.mesh.back, SERVER_BACK, NGINX, "tlvs")
            self.assertEqual(words[3:6], ["id=", "version=", "cipher="])

    def test_haproxy_which_checks_the_checksum_is_told_of_them_too(self):
        if not self.haproxy:
            self.skipTest("haproxy is not installed")
        self.assert_told(HAPROXY)

    def test_haproxy_is_told_the_identity(self):
        if not self.haproxy:
            self.skipTest("haproxy is not installed")
        self.skip_before("haproxy", self.haproxy, HAPROXY_WITH_TLVS)
        for family in (4, 6):
            with self.subTest(family=family):
                self.assertEqual(self.curl(self.mesh.client, SERVER[family], HAPROXY)[0][3:],
                                 [f"id={CLIENT_ID}"])
        with self.subTest(mesh=False):
            self.assertEqual(self.curl(self.mesh.back, SERVER_BACK, HAPROXY)[0][3:], ["id="])

    def test_a_header_from_outside_is_not_believed(self):
        forged = (b"PROXY TCP4 192.0.2.66 198.18.3.1 1 8080\r\n",
                  b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x42\xc6\x12\x03\x01\0\1\x1f\x90")
        for header in forged:
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, NGINX)) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(header + b"GET /forged HTTP/1.0\r\n\r\n")
                    answer = b""
                    while more := sock.recv(4096):
                        answer += more
                    self.assertIn(b" 400 ", answer.split(b"\r\n")[0])

        def lines():
            with open(self.mesh.path("nginx.access.log"), encoding="utf-8") as handle:
                return [line.split() for line in handle]
        wait_until(lambda: [BACK, "400"] in lines(), what=lambda: str(lines()))
        self.assertNotIn("192.0.2.66", [line[0] for line in lines()])


if __name__ == "__main__":
    unittest.main()
