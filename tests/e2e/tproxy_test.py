# SPDX-License-Identifier: Apache-2.0
"""tproxy: nginx sees the client's address, in both families, with mesh and plaintext clients, and
nobody gets to it when the proxy is away. Source validation (rp_filter) is on."""

import contextlib
import hashlib
import os
import re
import subprocess
import unittest

import harness
import servers
from harness import CLIENT, PROXY_UID, SERVER, SERVER_BACK, TRUST_DOMAIN, url_host
from lab import wait_until

BACK = "198.18.3.2"  # a client that is not of the mesh
BACK6, SERVER_BACK6 = "fd00:5b:3::2", "fd00:5b:3::1"
POLICY = """apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {name: everybody}
spec:
  action: ALLOW
  rules: [{from: [{trustDomains: [%s]}, {unauthenticated: true}]}]
""" % TRUST_DOMAIN
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13


class TproxyTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        for key in ("all", "default", "lo", "pstn1b", "pstn3a"):
            mesh.server.run("sysctl", "-q", "-w", f"net.ipv4.conf.{key}.rp_filter=1")
        cls.start_nginx(mesh)
        mesh.put_policy(POLICY)
        mesh.serve("echo", 8090)
        mesh.serve("smtp", 8025)
        mesh.add_workload(
            "server", mesh.server, "198.18.3.2", "--port-mode", "8081=permissive",
            "--port-mode", "8025=permissive", "--peer-mode", "strict", "--workers", "2",
            intercept=["--mode", "tproxy", "--exclude-inbound-port", "2222"],
            entry=["--address", SERVER[4], "--address", SERVER[6]], capabilities=["net_admin"])
        mesh.add_workload("client", mesh.client, "198.18.2.2")
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        return mesh

    @staticmethod
    def start_nginx(mesh):
        with open(mesh.path("big"), "wb") as handle:
            handle.write(os.urandom(20_000_000))
        servers.start_nginx(mesh, 8080, f"""log_format peer '$remote_addr $server_port $request_uri';
  access_log {mesh.path("nginx.access.log")} peer;
  server {{ listen 0.0.0.0:8080; listen [::]:8080; listen 0.0.0.0:8081; listen [::]:8081;
    listen 0.0.0.0:2222;
    location = /big {{ alias {mesh.path('big')}; }}
    location / {{ default_type text/plain; return 200 "$remote_addr $remote_port"; }} }}""")

    def peer(self, space, address, port=8080, path="/"):
        """Who nginx says it is talking to: (address, port)."""
        url = f"http://{url_host(address)}:{port}{path}"
        out = space.run("curl", "-s", "--max-time", "10", "--fail", url).stdout
        found, number = out.split()
        return found, int(number)

    def nginx_log(self):
        with open(self.mesh.path("nginx.access.log"), encoding="ascii") as handle:
            return handle.read()

    def test_the_application_sees_the_clients_address_through_mutual_tls(self):
        since = self.proxy("server").count_records()
        for family in (4, 6):
            for _ in range(20):
                address, port = self.peer(self.mesh.client, SERVER[family], path="/mesh")
                self.assertEqual(address, CLIENT[family])
                self.assertTrue(port % 2 == 1 and port < 32768, port)  # no port of the client's own
            self.assertIn(f"{CLIENT[family]} 8080 /mesh", self.nginx_log())
        records = self.proxy("server").access_log()[since:]
        self.assertEqual({record["security"] for record in records}, {"mutual_tls"})

    def test_and_of_a_plaintext_client_on_a_permissive_port(self):
        self.assertEqual(self.peer(self.mesh.back, SERVER_BACK, 8081)[0], BACK)
        self.assertEqual(self.peer(self.mesh.back, SERVER_BACK6, 8081)[0], BACK6)
        self.assertEqual(self.peer(self.mesh.client, SERVER[4], 8081)[0], CLIENT[4])
        self.assertGreaterEqual(
            self.proxy("server").metric("postern_plaintext_connections_total", reason="permissive"), 2)

    def test_a_server_that_speaks_first_is_heard_by_a_silent_client(self):
        with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 8025, 10)) as sock:
            self.assertTrue(sock.recv(100).startswith(b"220 "))

    def test_a_strict_port_refuses_plaintext(self):
        done = self.mesh.back.run("curl", "-s", "--max-time", "5", f"http://{SERVER_BACK}:8080/strict",
                                  check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("/strict", self.nginx_log())

    def test_large_transfers_arrive_whole(self):
        with open(self.mesh.path("big"), "rb") as handle:
            wanted = hashlib.sha256(handle.read()).hexdigest()
        for family in (4, 6):
            url = f"http://{url_host(SERVER[family])}:8080/big"
            data = self.mesh.client.run("sh", "-c", f"curl -s --fail '{url}' | sha256sum").stdout
            self.assertEqual(data.split()[0], wanted)

    def test_hundreds_of_connections_of_one_client_at_a_time(self):
        process = self.mesh.app(self.mesh.client, "hold", SERVER[4], 8090, 400, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        self.assertIn(b'"open": 400', process.stdout.readline())
        out, _ = process.communicate(b"\n", 60)
        self.assertIn(b'"done": 400', out)
        self.assertEqual(process.returncode, 0)

    def test_the_application_calls_its_own_address(self):
        for family in (4, 6):
            self.assertEqual(self.peer(self.mesh.server, SERVER[family])[0], SERVER[family])

    def test_excluded_ports_are_left_alone(self):
        before = self.proxy("server").metric("postern_connections_opened_total", direction="inbound")
        self.assertEqual(self.peer(self.mesh.back, SERVER_BACK, 2222)[0], BACK)
        self.assertEqual(
            self.proxy("server").metric("postern_connections_opened_total", direction="inbound"), before)

    def test_a_direct_call_to_the_intercept_port_makes_no_second_connection(self):
        server = self.proxy("server")
        before = server.metric("postern_connections_opened_total")
        with contextlib.suppress(ConnectionResetError):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, 15006)) as sock:
                self.assertEqual(sock.recv(1), b"")
        wait_until(lambda: server.metric("postern_connections_closed_total", reason="self_loop") > 0,
                   what="self_loop")
        self.assertEqual(server.metric("postern_connections_opened_total"), before + 1)

    def test_only_the_threads_that_dial_keep_the_capability(self):
        pid = self.proxy("server").process.pid
        holders = {}
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as handle:
                    text = handle.read()
            except OSError:  # a thread of a library that has ended since
                continue
            if int(re.search(r"CapPrm:\s+(\w+)", text).group(1), 16) & (NET_ADMIN | NET_RAW):
                holders[int(task)] = re.search(r"Name:\s+(.*)", text).group(1)
        self.assertNotIn(pid, holders, "the main thread, and whatever it starts from now on")
        self.assertGreaterEqual(len(holders), 2, "the workers")

    def test_without_the_capability_it_says_what_is_missing(self):
        server = self.proxy("server")
        words = [word for word in server.command]
        for flag, value in (("--inbound-port", "17006"), ("--outbound-port", "17001"),
                            ("--admin", "127.0.0.1:17000"), ("--metrics", "127.0.0.1:17020")):
            words += [flag, value]
        state = words.index("--state-dir")
        words[state + 1] = self.mesh.private_directory("other.state")
        done = self.mesh.server.run(*words, uid=PROXY_UID, check=False, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("CAP_NET_ADMIN", done.stderr)

    def test_nobody_gets_in_while_the_proxy_is_away(self):
        server = self.proxy("server")
        server.kill()
        try:
            for address in (SERVER_BACK, SERVER_BACK6):
                with self.assertRaises(OSError):
                    self.mesh.back.connect(address, 8081, timeout=2).close()
            shown = self.mesh.server.run(self.mesh.tool("postern"), "intercept", "show").stdout
            self.assertRegex(shown, r"closed: inbound past the proxy  \[[1-9]")
        finally:
            server.start()
            server.wait_ready()
        self.assertEqual(self.peer(self.mesh.back, SERVER_BACK, 8081)[0], BACK)

    def test_the_watchdog_works_with_it_too(self):
        page = self.proxy("server").page("/status")
        self.assertIs(page["intercept_ok"], True)
        self.assertEqual(page["interception"]["mode"], "tproxy")


if __name__ == "__main__":
    unittest.main()
