# SPDX-License-Identifier: Apache-2.0
"""The outbound proxy port, as curl uses it: SOCKS5 and HTTP CONNECT, IPv4, IPv6 and names, into the
mesh and past it, and what curl is told when that fails."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import unittest

import lab
import pki
from dns_server import DnsServer
from lab import wait_until
from loopback import LoopbackTest, Proxy, free_port, tool

WEB, DB = "spiffe://proxy.test/web", "spiffe://proxy.test/db"
CURL_PROXY_FAILED, CURL_CONNECT_REFUSED = 97, 56  # of SOCKS, and of CONNECT


class Site(http.server.BaseHTTPRequestHandler):
    """Says its own word to everybody."""

    def do_GET(self):
        body = self.server.word.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class SixServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class OutboundProxyTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        self.ca = pki.Authority(self.directory, "ca")
        self.site = self.serve("app")
        self.inbound, self.port = free_port(), free_port()
        self.dns = DnsServer(self)

    def serve(self, word, address="127.0.0.1", port=0):
        """The port of a web site that says `word`."""
        kind = SixServer if ":" in address else http.server.ThreadingHTTPServer
        server = kind((address, port), Site)
        server.word = word
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def identity(self, name, spiffe_id):
        pem, key = self.ca.issue(name, spiffe_id)
        return ["--svid", pem, "--svid-key", key, "--bundle", self.ca.root]

    def write(self, name, text):
        path = self.path(name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)
        return path

    def start_member(self, name="db", spiffe_id=DB, listen=None, target=None):
        """A workload of the mesh in front of the site."""
        return self.start(Proxy(
            self, name, *self.identity(name, spiffe_id), "--drain-delay", "0", "--tunnel",
            f"inbound,listen=127.0.0.1:{listen or self.inbound},"
            f"target=127.0.0.1:{target or self.site},peer={WEB}")).wait_ready()

    def destination(self, *endpoints, names="[site.mesh.test]"):
        listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
        return ("apiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: site}\nspec:\n"
                f"  names: {names}\n  ports: [80]\n  spiffeIds: [\"{DB}\"]\n"
                f"  endpoints: [{listed}]\n")

    def start_client(self, *words, before=(), listen=None, admin_socket="off"):
        proxy = Proxy(self, "client", *self.identity("web", WEB), "--drain-delay", "0",
                      "--outbound-proxy", listen or f"127.0.0.1:{self.port}", *words)
        at = proxy.command.index("--admin-socket") + 1
        proxy.command = [*before, *proxy.command[:at], admin_socket, *proxy.command[at + 1:]]
        return self.start(proxy).wait_ready()

    def use_dns(self):
        return ["--name-server", f"{self.dns.address}:{self.dns.port}"]

    def curl(self, *words):
        """Exit status and what came."""
        done = subprocess.run(["curl", "-sS", "-g", "--max-time", "10", *words],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=20,
                              env={**os.environ, "no_proxy": "", "NO_PROXY": ""})
        return done.returncode, done.stdout

    def ways(self):
        """The ways in which curl asks the proxy; the first resolves names by itself."""
        proxy = f"127.0.0.1:{self.port}"
        return {"socks5": ["--socks5", proxy], "socks5h": ["--socks5-hostname", proxy],
                "connect": ["-x", f"http://{proxy}", "--proxytunnel"]}

    def test_curl_reaches_what_is_not_of_the_mesh(self):
        six = self.serve("six", "::1")
        self.dns.names["plain.test"] = (["127.0.0.1"], 60)
        client = self.start_client(*self.use_dns())
        for name, way in self.ways().items():
            with self.subTest(way=name):
                self.assertEqual(self.curl(*way, f"http://127.0.0.1:{self.site}/"), (0, "app"))
                self.assertEqual(self.curl(*way, f"http://[::1]:{six}/"), (0, "six"))
                if name != "socks5":
                    self.assertEqual(self.curl(*way, f"http://plain.test:{self.site}/"), (0, "app"))
        self.assertEqual(client.metric("postern_proxy_requests_total", protocol="socks5"), 5)
        self.assertEqual(client.metric("postern_proxy_requests_total", protocol="http_connect"), 3)
        self.assertEqual(client.metric("postern_plaintext_connections_total", reason="not_in_mesh"), 8)

    def test_curl_reaches_a_name_of_the_mesh(self):
        self.start_member()
        client = self.start_client("--destinations", self.write(
            "d.yaml", self.destination(f"127.0.0.1:{self.inbound}")), "--outbound-default", "deny")
        for name in ("socks5h", "connect"):
            with self.subTest(way=name):
                self.assertEqual(self.curl(*self.ways()[name], "http://site.mesh.test/"), (0, "app"))
        wait_until(lambda: len(client.access_log()) == 2, 10, "two records")
        for record in client.access_log():
            self.assertEqual((record["destination"], record["security"], record["peer_id"]),
                             ("site.mesh.test:80", "mutual_tls", DB))

    def test_a_unix_socket_serves_as_well(self):
        path = self.path("proxy.sock")
        self.start_client(listen=f"unix:{path}")
        self.assertEqual(self.curl("-x", f"socks5h://localhost{path}",
                                   f"http://127.0.0.1:{self.site}/"), (0, "app"))

    def test_curl_is_told_how_it_failed(self):
        self.start_member("wrong", "spiffe://proxy.test/other")
        closed = free_port()
        self.start_client(*self.use_dns(), "--outbound-default", "deny", "--destinations", self.write(
            "d.yaml", self.destination(f"127.0.0.1:{self.inbound}") + "---\n"
            + self.destination(f"127.0.0.1:{closed}", names="[closed.mesh.test]")))
        ways = self.ways()
        for host, code, status, reason in [
                (f"127.0.0.1:{self.site}", 2, 403, "destination_denied"),
                (f"127.0.0.1:{self.port}", 2, 403, "self_loop"),
                ("closed.mesh.test", 5, 502, "connect_failed"),
                ("site.mesh.test", 1, 502, "identity_mismatch"),
                ("nowhere.test.", 4, 502, "connect_failed")]:
            with self.subTest(host=host):
                exit_status, said = self.curl(*ways["socks5h"], f"http://{host}/")
                self.assertEqual(exit_status, CURL_PROXY_FAILED, said)
                self.assertIn(f"({code})", said)
                exit_status, said = self.curl(*ways["connect"], "-D", "-", f"http://{host}/")
                self.assertEqual(exit_status, CURL_CONNECT_REFUSED, said)
                self.assertIn(f"HTTP/1.1 {status} ", said)
                self.assertIn(f"Postern-Close-Reason: {reason}", said)

    def test_curl_without_a_tunnel_is_told_what_to_do(self):
        self.start_client()
        status, said = self.curl("-i", "-x", f"http://127.0.0.1:{self.port}",
                                 f"http://127.0.0.1:{self.site}/")
        self.assertEqual(status, 0)
        self.assertIn("HTTP/1.1 405 ", said)
        self.assertIn("Allow: CONNECT", said)

    def test_an_address_that_others_reach_is_refused(self):
        for address in ("0.0.0.0:1080", "[::]:1080", "192.0.2.1:1080", "localhost:1080"):
            done = lab.run([*Proxy(self, "refused", *self.identity("web", WEB), "--outbound-proxy",
                                   address).command], check=False)
            self.assertEqual(done.returncode, 2, address)
            self.assertIn("--outbound-proxy", done.stderr)

    def test_a_dead_endpoint_is_passed_over_and_a_bad_file_changes_nothing(self):
        self.start_member()
        dead = free_port()
        path = self.write("d.yaml", self.destination(f"127.0.0.1:{dead}", f"127.0.0.1:{self.inbound}"))
        client = self.start_client("--destinations", path)
        ask = [*self.ways()["socks5h"], "http://site.mesh.test/"]
        for _ in range(10):
            self.assertEqual(self.curl(*ask), (0, "app"))
        self.assertEqual(client.metric("postern_endpoint_retries_total", reason="connect_failed"),
                         client.metric("postern_endpoint_failures_total"))
        self.write("d.yaml", self.destination("127.0.0.1:0"))
        wait_until(lambda: "spec.endpoints[0]" in client.log(), 10, client.log)
        self.assertIn(f"{path}:8: spec.endpoints[0]: '127.0.0.1:0' is no address", client.log())
        self.assertEqual(self.curl(*ask), (0, "app"), "the last good set goes on")
        self.assertEqual(client.metric("postern_file_reload_failures_total"), 1)
        self.write("d.yaml", self.destination(f"127.0.0.1:{dead}"))
        wait_until(lambda: self.curl(*ask)[0] == CURL_PROXY_FAILED, 10, "the new file is in force")

    def test_a_name_is_followed_within_its_ttl_and_kept_while_nobody_answers(self):
        port = self.serve("one", "127.0.0.2")
        self.serve("two", "127.0.0.3", port)
        self.dns.names["moving.test"] = (["127.0.0.2"], 1)
        client = self.start_client(*self.use_dns())
        ask = [*self.ways()["socks5h"], f"http://moving.test:{port}/"]
        self.assertEqual(self.curl(*ask), (0, "one"))
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), 5)) as held:
            held.sendall(b"CONNECT moving.test:%d HTTP/1.0\r\n\r\n" % port)
            self.assertIn(b" 200 ", held.recv(1000))
            self.dns.names["moving.test"] = (["127.0.0.3"], 1)
            wait_until(lambda: self.curl(*ask) == (0, "two"), 6, "the new address")
            self.dns.mood = "fails"
            wait_until(lambda: self.curl(*ask) == (0, "two") and client.metric(
                "postern_name_lookups_total", result="failed") > 0, 10, "a failed look-up")
            self.dns.mood = "silent"
            self.assertEqual(self.curl(*ask), (0, "two"))
            held.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertTrue(held.recv(1000).startswith(b"HTTP/1.0 200"), "it stays where it is")
        self.assertGreater(client.metric("postern_name_lookups_total", result="stale"), 0)
        self.dns.mood = "answers"
        del self.dns.names["moving.test"]
        wait_until(lambda: self.curl(*ask)[0] == CURL_PROXY_FAILED, 40, "the name is gone")

    def expect_refused(self, host, reason):
        """curl is told why, in both ways of asking by name."""
        exit_status, said = self.curl(*self.ways()["socks5h"], f"http://{host}/")
        self.assertEqual((exit_status, "(2)" in said), (CURL_PROXY_FAILED, True), said)
        exit_status, said = self.curl(*self.ways()["connect"], "-D", "-", f"http://{host}/")
        self.assertEqual(exit_status, CURL_CONNECT_REFUSED, said)
        self.assertIn("HTTP/1.1 403 ", said)
        self.assertIn(f"Postern-Close-Reason: {reason}", said)

    def test_a_name_that_must_be_mutual_tls_is_refused_in_plaintext(self):
        for name in ("db.corp.test", "a.b.corp.test", "corp.test", "bank.test"):
            self.dns.names[name] = (["127.0.0.1"], 60)
        client = self.start_client(*self.use_dns(), "--require-mtls", "*.corp.test",
                                   "--require-mtls", "BANK.test.", "--require-mtls", "198.18.0.0/15")
        for host in ("db.corp.test", "A.B.corp.test", "bank.test", "bank.test."):
            with self.subTest(host=host):
                self.expect_refused(f"{host}:{self.site}", "mtls_required")
        self.assertEqual(client.metric("postern_plaintext_connections_total"), 0)
        wait_until(lambda: client.metric("postern_connections_closed_total", reason="mtls_required")
                   == 8, 10, "each was counted")
        wait_until(lambda: f"db.corp.test:{self.site}" in [
            one["destination"] for one in client.access_log() if one["reason"] == "mtls_required"],
            10, "the record of one")
        self.assertIn("--require-mtls forbids", client.failures()[0]["detail"])
        for host in ("corp.test", "127.0.0.1"):
            self.assertEqual(self.curl(*self.ways()["socks5h"], f"http://{host}:{self.site}/"),
                             (0, "app"), host)

    def test_a_name_that_must_be_mutual_tls_has_to_be_one(self):
        for text in ("db.*.test", "*", "db.test:5432", "10.0.0.1/8"):
            done = lab.run([*Proxy(self, "refused", *self.identity("web", WEB), "--require-mtls",
                                   text).command], check=False)
            self.assertEqual(done.returncode, 2, text)
            self.assertIn(f"--require-mtls: '{text}' is n", done.stderr)

    def test_a_name_once_reached_by_mutual_tls_is_not_followed_out_of_the_mesh(self):
        self.start_member()
        self.serve("plain", "127.0.0.2", self.inbound)
        self.dns.names["moving.test"] = self.dns.names["other.test"] = (["127.0.0.1"], 1)
        path = self.write("d.yaml", self.destination(names="[site.mesh.test]").replace(
            "  names: [site.mesh.test]\n  ports: [80]\n", "  addresses: [127.0.0.1/32]\n"
            f"  ports: [{self.inbound}]\n").replace("  endpoints: []\n", ""))
        admin = self.path("admin.sock")
        words = [*self.use_dns(), "--destinations", path, "--state-dir", self.path("state")]
        client = self.start_client(*words, admin_socket=admin)
        host = f"moving.test:{self.inbound}"
        ask = [*self.ways()["socks5h"], f"http://{host}/"]
        self.assertEqual(self.curl(*ask), (0, "app"))
        self.dns.names["moving.test"] = self.dns.names["other.test"] = (["127.0.0.2"], 1)
        wait_until(lambda: self.curl(*ask)[0] == CURL_PROXY_FAILED, 10, "the name's new address")
        self.expect_refused(host, "mesh_downgrade")
        other = [*self.ways()["socks5h"], f"http://other.test:{self.inbound}/"]
        self.assertEqual(self.curl(*other), (0, "plain"), "that name never was of the mesh")
        self.assertEqual(client.metric("postern_plaintext_connections_total"), 1)
        client.stop()  # what was seen outlives the process
        client = self.start_client(*words, admin_socket=admin)
        self.expect_refused(host.upper(), "mesh_downgrade")
        self.assertEqual(client.metric("postern_plaintext_connections_total"), 0)
        postern = tool("postern")
        listed = lab.run([postern, "seen", "list", "--admin", f"127.0.0.1:{client.admin_port}"])
        self.assertIn(host, listed.stdout)
        lab.run([postern, "seen", "forget", host, "--admin-socket", admin])
        self.assertEqual(self.curl(*ask), (0, "plain"))
        again = lab.run([postern, "seen", "forget", host, "--admin-socket", admin], check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn(f"{host} was not seen in the mesh", again.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: a file of its own at /etc/resolv.conf")
    def test_the_systems_hosts_and_search_domains_count(self):
        server = DnsServer(self, "127.53.80.1", 53)
        server.names["app.corp.test"] = (["127.0.0.1"], 60)
        resolv = self.write("resolv.conf", "nameserver 127.53.80.1\nsearch corp.test\n")
        hosts = self.write("hosts", "127.0.0.1 localhost only-here\n")
        script = (f"{' '.join(lab.PRIVATE_MOUNTS)} && mount --bind {resolv} /etc/resolv.conf && "
                  f'mount --bind {hosts} /etc/hosts && exec "$@"')
        self.start_client(before=["unshare", "--mount", "--propagation", "unchanged", "sh", "-c",
                                  script, "sh"])
        way = self.ways()["socks5h"]
        self.assertEqual(self.curl(*way, f"http://only-here:{self.site}/"), (0, "app"))
        self.assertEqual(server.asked, [])
        self.assertEqual(self.curl(*way, f"http://app:{self.site}/"), (0, "app"))
        self.assertIn("app.corp.test", [name for name, _ in server.asked])


if __name__ == "__main__":
    unittest.main()
