# SPDX-License-Identifier: Apache-2.0
"""A service: one address of several workloads, which the issuer answers with a place for each of them.
Connections go to all of them, past one that is dead, and never on in plaintext."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import unittest

import harness
import lab
from harness import SERVER, SERVER_BACK, SERVER_ID
from lab import wait_until
from loopback import Issuer, LoopbackTest, Proxy, free_port

TRUST_DOMAIN = "services.test"
DB, WEB = f"spiffe://{TRUST_DOMAIN}/db", f"spiffe://{TRUST_DOMAIN}/web"
SERVICE, PORT = "198.18.99.1", 5432  # nobody has this address, nor SERVICE6
SERVICE6 = "fd00:5b:99::1"
NOT_ALLOWED, REFUSED = 2, 5  # of SOCKS


class ServicesTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        self.issuer = Issuer(self, TRUST_DOMAIN)
        self.start(self.issuer).wait_ready()
        self.port = free_port()

    def greeter(self, word):
        """The port of an application that says `word` to everybody and hangs up."""
        return self.application(lambda connection: connection.sendall(word))

    def token(self, name, spiffe_id, *words):
        made = self.issuer.postern("token", "create", "--spiffe-id", spiffe_id, *words)
        path = self.path(f"{name}.token")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(made.stdout.strip())
        return ["--join-token-file", path]

    def member(self, word):
        """One workload of the service, with a port of its own."""
        listen, name = free_port(), word.decode()
        token = self.token(name, DB, "--address", "127.0.0.1", "--port", str(listen), "--service",
                           f"{SERVICE}:{PORT}={listen}")
        return self.start(Proxy(
            self, name, *self.issuer.flags(), *token, "--drain-delay", "0", "--tunnel",
            f"inbound,listen=127.0.0.1:{listen},target=127.0.0.1:{self.greeter(word)},peer={WEB}"
        )).wait_ready()

    def ask(self):
        """What the service says, or the code with which the connection was refused; b"" if it was cut."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), 10)) as sock:
            sock.sendall(b"\x05\x01\x00")
            answer = sock.makefile("rb")
            self.assertEqual(answer.read(2), b"\x05\x00")
            sock.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(SERVICE) + struct.pack(">H", PORT))
            reply = answer.read(10)
            with contextlib.suppress(ConnectionResetError):
                return reply[1] or answer.read()
            return b""

    def test_a_service_is_reached_at_each_of_its_workloads_and_past_a_dead_one(self):
        one, two = self.member(b"one"), self.member(b"two")
        client = self.start(Proxy(
            self, "client", *self.issuer.flags(), *self.token("client", WEB), "--drain-delay", "0",
            "--outbound-proxy", f"127.0.0.1:{self.port}")).wait_ready()
        self.assertEqual({self.ask() for _ in range(40)}, {b"one", b"two"})
        wait_until(lambda: len(client.access_log()) == 40, 10, "the records")
        for record in client.access_log():
            self.assertEqual((record["destination"], record["security"], record["peer_id"]),
                             (f"{SERVICE}:{PORT}", "mutual_tls", DB))
        self.assertEqual(len({record["upstream"] for record in client.access_log()}), 2)

        one.stop()
        self.assertEqual([self.ask() for _ in range(20)], [b"two"] * 20, "before a byte has flown")
        self.assertGreater(client.metric("postern_endpoint_retries_total", reason="connect_failed"), 0)
        two.stop()
        self.assertEqual(self.ask(), REFUSED)

        self.member(b"three")
        wait_until(lambda: self.ask() == b"three", 20, "the issuer to tell of the third one")
        entries = json.loads(self.issuer.postern("entry", "list", "--output", "json").stdout)
        served = [entry for entry in entries if entry["services"]]
        self.assertEqual(len(served), 3)
        for entry in served:
            self.issuer.postern("entry", "delete", entry["id"])
        wait_until(lambda: self.ask() == NOT_ALLOWED, 20, "the service to be gone")
        self.assertEqual(client.failures()[0]["reason"], "mesh_downgrade")
        self.assertEqual(client.metric("postern_plaintext_connections_total"), 0)


class InterceptedServiceTest(harness.MeshTest):
    """One workload, which the client can reach at one address of each family and not at a third."""

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        own = [word for address in (SERVER[4], SERVER[6], SERVER_BACK)
               for word in ("--address", address)]
        mesh.add_workload("server", mesh.server, "198.18.3.2", entry=[
            *own, "--service", f"{SERVICE}:{PORT}=7000", "--service", f"[{SERVICE6}]:{PORT}=7000"])
        mesh.add_workload("client", mesh.client, "198.18.2.2")
        mesh.client.run("ip", "route", "add", f"{SERVICE}/32", "via", SERVER[4])
        mesh.client.run("ip", "route", "add", f"{SERVICE6}/128", "via", SERVER[6])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        mesh.serve("echo", 7000)
        return mesh

    def test_what_is_intercepted_on_its_way_to_a_service_reaches_a_place_of_its_family(self):
        for address in [SERVICE] * 20 + [SERVICE6] * 3:
            with contextlib.closing(self.mesh.client.connect(address, PORT)) as sock:
                sock.settimeout(10)
                sock.sendall(b"hello")
                self.assertEqual(sock.recv(5), b"hello", address)
        client = self.proxy("client")
        wait_until(lambda: len(client.access_log()) == 23, 10, "the records")
        records = client.access_log()
        self.assertEqual({(one["destination"], one["upstream"], one["security"], one["peer_id"])
                          for one in records},
                         {(f"{SERVICE}:{PORT}", f"{SERVER[4]}:7000", "mutual_tls", SERVER_ID),
                          (f"[{SERVICE6}]:{PORT}", f"[{SERVER[6]}]:7000", "mutual_tls", SERVER_ID)})
        self.assertGreater(client.metric("postern_endpoint_retries_total", reason="connect_failed"), 0)
        self.assertEqual(client.metric("postern_plaintext_connections_total"), 0)


class OwnServiceTest(harness.MeshTest):
    """A workload that dials the service of which it is itself one of two places. The application says
    nothing before its client has ended, so that whoever took it for a proxy would wait for it."""

    TARGET, REQUESTS = 7001, 1080
    NO_SELF = f"""
apiVersion: postern.dev/v1
kind: AuthorizationPolicy
metadata: {{name: not-itself}}
spec: {{workload: "{SERVER_ID}", action: DENY, rules: [{{from: [{{spiffeIds: ["{SERVER_ID}"]}}]}}]}}
"""
    intercept, capabilities = (), ()

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        for name, space, issuer, own in (("server", mesh.server, "198.18.3.2", SERVER.values()),
                                         ("second", mesh.back, "127.0.0.1", ["198.18.3.2"])):
            mesh.add_workload(
                name, space, issuer, "--outbound-proxy", f"127.0.0.1:{cls.REQUESTS}",
                intercept=[*cls.intercept, "--exclude-inbound-port", "15012"],
                capabilities=cls.capabilities,
                entry=[*[word for address in own for word in ("--address", address)],
                       "--service", f"{SERVICE}:{PORT}={cls.TARGET}",
                       "--service", f"[{SERVICE6}]:{PORT}={cls.TARGET}"])
            served = mesh.app(space, "sum", cls.TARGET, stdout=subprocess.PIPE)
            assert b"listening" in served.stdout.readline()
        mesh.server.run("ip", "route", "add", f"{SERVICE}/32", "via", harness.CLIENT[4])
        mesh.server.run("ip", "route", "add", f"{SERVICE6}/128", "via", harness.CLIENT[6])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        return mesh

    def ask(self, address=SERVICE):
        """What the service says to its own workload; None: it hung up."""
        try:
            with contextlib.closing(self.mesh.server.connect(address, PORT)) as sock:
                return self.answer_on(sock)
        except ConnectionError:
            return None

    @staticmethod
    def answer_on(sock):
        sock.settimeout(20)
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(10)

    def test_a_request_for_its_own_address_is_served_as_well(self):
        since = len(self.proxy("server").access_log())
        with contextlib.closing(self.mesh.server.connect("127.0.0.1", self.REQUESTS)) as sock:
            for request, reply in ((b"\x05\x01\x00", 2), (b"\x05\x01\x00\x01" + socket.inet_aton(
                    SERVER[4]) + struct.pack(">H", self.TARGET), 10)):
                sock.sendall(request)
                self.assertEqual(sock.recv(reply, socket.MSG_WAITALL)[1], 0)
            self.assertEqual(self.answer_on(sock), b"5")
        for direction in ("inbound", "outbound"):
            record = self.records(direction, since, 1)[0]
            self.assertEqual((record["security"], record["peer_id"]), ("mutual_tls", SERVER_ID))

    def records(self, direction, since, count):
        server = self.proxy("server")
        return wait_until(lambda: len(found := [one for one in server.access_log()[since:]
                                                if one["direction"] == direction]) >= count and found,
                          10, f"{count} records {direction}")

    def test_it_is_served_as_any_other_client_of_itself(self):
        since = len(self.proxy("server").access_log())
        for address in [SERVICE] * 20 + [SERVICE6] * 20:
            self.assertEqual(self.ask(address), b"5", address)
        out = self.records("outbound", since, 40)
        self.assertEqual({one["security"] for one in out}, {"mutual_tls"})
        places = {f"{SERVER[4]}:{self.TARGET}", f"198.18.3.2:{self.TARGET}",
                  f"[{SERVER[6]}]:{self.TARGET}"}
        self.assertEqual({one["upstream"] for one in out}, places)
        to_itself = [one for one in out if one["peer_id"] == SERVER_ID]
        taken_in = self.records("inbound", since, len(to_itself))
        self.assertEqual(len(taken_in), len(to_itself), "each went through its own proxy")
        self.assertEqual({(one["security"], one["peer_id"], one["downstream"].rpartition(":")[0])
                          for one in taken_in},
                         {("mutual_tls", SERVER_ID, SERVER[4]),
                          ("mutual_tls", SERVER_ID, f"[{SERVER[6]}]")})

        self.mesh.put_policy(self.NO_SELF)
        server = self.proxy("server")
        wait_until(lambda: any(one["reason"] == "policy_denied" and one["peer_id"] == SERVER_ID
                               for _ in [self.ask()] for one in server.failures()), 20, "its policy")

        # Rules of somebody else, or of before, do not lead it to the proxy: then another place will do.
        for verb in ("flush", "delete"):
            self.mesh.server.run("nft", verb, "chain", "inet", "postern", "own_workload")

        def has_met_itself():
            self.assertEqual(self.ask(), b"5")
            return any("no rule leads there" in one["detail"] for one in server.failures())
        wait_until(has_met_itself, 20, "a connection that would have gone past its proxy")
        self.assertEqual(
            server.metric("postern_endpoint_retries_total", reason="handshake_timeout"), 0)


class OwnServiceWithTproxyTest(OwnServiceTest):
    intercept, capabilities = ("--mode", "tproxy"), ("net_admin",)


class ServiceWithOwnTlsTest(harness.MeshTest):
    """A service at two workloads whose application speaks TLS, which the client's proxy passes on."""

    OWN_TLS = 7443

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        for name, space, issuer, address in (("server", mesh.server, "198.18.3.2", SERVER[4]),
                                             ("second", mesh.back, "127.0.0.1", "198.18.2.2")):
            mesh.add_workload(
                name, space, issuer, "--port-mode", f"{cls.OWN_TLS}=permissive", "--drain-delay", "0",
                entry=["--address", address, "--service", f"{SERVICE}:{PORT}={cls.OWN_TLS}"],
                intercept=("--exclude-inbound-port", "15012"))
            cls.serve_tls(mesh, name, space)
        mesh.add_workload("client", mesh.client, "198.18.2.2", "--application-tls", f"{PORT}=pass")
        mesh.client.run("ip", "route", "add", f"{SERVICE}/32", "via", SERVER[4])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        return mesh

    @classmethod
    def serve_tls(cls, mesh, name, space):
        """An https server with a certificate of the service's own, that says its name at /who."""
        root, pem, key = (mesh.path(f"{name}.{what}") for what in ("www", "pem", "key"))
        os.makedirs(root)
        with open(os.path.join(root, "who"), "w", encoding="ascii") as file:
            file.write(name)
        lab.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                 f"subjectAltName=IP:{SERVICE}", "-keyout", key, "-out", pem])
        mesh.lab.start(space, "openssl", "s_server", "-4", "-accept", str(cls.OWN_TLS), "-cert", pem,
                       "-key", key, "-WWW", cwd=root, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answers():
            with contextlib.suppress(OSError):
                space.connect("127.0.0.1", cls.OWN_TLS).close()
                return True
        wait_until(answers, what=f"the application of {name}")

    def ask(self):
        """Who answered at the service, by a certificate that is good for the service's address."""
        trusted = self.mesh.path("trusted.pem")
        with open(trusted, "w", encoding="ascii") as into:
            for name in ("server", "second"):
                with open(self.mesh.path(f"{name}.pem"), encoding="ascii") as pem:
                    into.write(pem.read())
        return self.mesh.client.run("curl", "-sS", "--fail", "--max-time", "20", "--cacert", trusted,
                                    f"https://{SERVICE}:{PORT}/who").stdout

    def test_an_applications_own_tls_reaches_each_place_and_goes_past_one_that_is_away(self):
        wait_until(lambda: {self.ask() for _ in range(4)} == {"server", "second"}, 30, "both places")
        client = self.proxy("client")
        record = wait_until(client.access_log, what="a record")[-1]
        self.assertEqual((record["destination"], record["security"]),
                         (f"{SERVICE}:{PORT}", "application_tls"))
        for name in ("server", "second"):
            wait_until(lambda one=name: self.proxy(one).metric(
                "postern_plaintext_connections_total", reason="application_tls") > 0, what=name)

        self.proxy("second").kill()
        retried = client.metric("postern_endpoint_retries_total", reason="connect_failed")
        self.assertEqual([self.ask() for _ in range(12)], ["server"] * 12)
        self.assertGreater(
            client.metric("postern_endpoint_retries_total", reason="connect_failed"), retried)


if __name__ == "__main__":
    unittest.main()
