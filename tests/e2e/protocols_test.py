# SPDX-License-Identifier: Apache-2.0
"""Real servers behind a permissive and a strict port: who speaks first does not matter, nobody outside
the mesh waits long for a greeting, and the mesh's own connections are mutual TLS all the same."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import unittest

import harness
import servers
from harness import CLIENT, SERVER, SERVER_BACK
from lab import wait_until

ADDRESSES = {4: SERVER[4], 6: SERVER[6]}
# Whoever comes from the issuer's namespace is outside the mesh and passes no client's proxy.
STALL_LIMIT = 0.1
MARIADB, SSHD, SMTP, REDIS, POSTGRES, POSTGRES_TLS = 3306, 2222, 2525, 6379, 5432, 5433


def accepts(space, port):
    with contextlib.suppress(OSError):
        space.connect("127.0.0.1", port).close()
        return True
    return False


class Servers:
    """The applications, in the server's namespace; `start` returns once each of them accepts."""

    def __init__(self, mesh):
        self.mesh = mesh

    def start(self):
        for serve in (self.mariadb, self.sshd, self.smtp, self.redis, self.postgres):
            serve()
        for port in (MARIADB, SSHD, SMTP, REDIS, POSTGRES, POSTGRES_TLS):
            wait_until(lambda p=port: accepts(self.mesh.server, p), 60,
                       lambda p=port: f"port {p}\n" + harness.tail(self.mesh.path("apps.log")))

    def run(self, *words, **options):
        with open(self.mesh.path("apps.log"), "ab") as log:
            self.mesh.lab.start(self.mesh.server, *words, stdin=subprocess.DEVNULL, stdout=log,
                                stderr=log, **options)

    def directory(self, name, user, group):
        path = self.mesh.path(name)
        os.makedirs(path, mode=0o700)
        shutil.chown(path, user, group)
        return path

    def mariadb(self):
        data = self.directory("mysql", "nobody", "nogroup")
        # Without grant tables there is nothing to install: everybody may do everything.
        self.run("mariadbd", "--no-defaults", f"--datadir={data}", "--user=nobody",
                 f"--port={MARIADB}", "--bind-address=*", "--skip-grant-tables", "--skip-networking=0",
                 f"--socket={data}/mysql.sock", f"--pid-file={data}/mysql.pid",
                 "--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--skip-name-resolve",
                 "--innodb-flush-method=nosync", f"--tmpdir={data}")

    def sshd(self):
        home = self.mesh.path("ssh")
        os.makedirs(home, mode=0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"],
                           check=True, stdin=subprocess.DEVNULL)
        shutil.copy(f"{home}/user.pub", f"{home}/authorized")
        os.makedirs("/run/sshd", exist_ok=True)
        with open(f"{home}/config", "w", encoding="ascii") as handle:
            handle.write(f"Port {SSHD}\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {home}/host\n"
                         f"AuthorizedKeysFile {home}/authorized\nPidFile none\nStrictModes no\n"
                         "UsePAM no\nUseDNS no\nPermitRootLogin prohibit-password\n")
        self.run("/usr/sbin/sshd", "-D", "-e", "-f", f"{home}/config")

    def smtp(self):
        program = self.mesh.path("smtp.py")
        with open(program, "w", encoding="ascii") as handle:
            handle.write("import asyncio, sys\n"
                         "from aiosmtpd.controller import UnthreadedController\n"
                         "from aiosmtpd.handlers import Debugging\n"
                         "loop = asyncio.new_event_loop()\n"
                         "for host in ('0.0.0.0', '::'):\n"
                         "    UnthreadedController(Debugging(sys.stdout), hostname=host,\n"
                         f"                         port={SMTP}, loop=loop).begin()\n"
                         "loop.run_forever()\n")
        # Debian's own: the package is of that interpreter.
        self.run("/usr/bin/python3", program)

    def redis(self):
        self.run("redis-server", "--port", str(REDIS), "--bind", "0.0.0.0", "::", "--protected-mode",
                 "no", "--save", "", "--dir", self.mesh.directory)

    def postgres(self):
        servers.start_postgresql(self.mesh, POSTGRES)
        servers.start_postgresql(self.mesh, POSTGRES_TLS, tls=True)


class ProtocolsTest(harness.MeshTest):
    mode = "permissive"

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_workload("server", mesh.server, "198.18.3.2", "--peer-mode", cls.mode,
                          entry=["--address", SERVER[4], "--address", SERVER[6]])
        mesh.add_workload("client", mesh.client, "198.18.2.2",
                          entry=["--address", CLIENT[4], "--address", CLIENT[6]])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        Servers(mesh).start()
        return mesh

    def clients(self, space, address):
        """Runs the real client of each protocol in `space`; each must get its answer."""
        run = space.run
        self.assertEqual(run("mariadb", "--no-defaults", "-h", address, "-P", str(MARIADB), "-u", "root",
                             "--skip-ssl", "-N", "-B", "-e", "select 6*7").stdout, "42\n")
        self.assertEqual(run("ssh", "-F", "none", "-p", str(SSHD), "-i", self.mesh.path("ssh/user"), "-o",
                             "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                             "BatchMode=yes", "-o", "LogLevel=ERROR", f"root@{address}", "echo over ssh",
                             ).stdout, "over ssh\n")
        mail = ("import smtplib\ns = smtplib.SMTP(%r, %d, timeout=20)\n"
                "s.sendmail('a@example.org', ['b@example.org'], 'Subject: x\\r\\n\\r\\nhello')\n"
                "s.quit()\nprint('sent')\n" % (address, SMTP))
        self.assertEqual(run("python3", "-c", mail).stdout, "sent\n")
        self.assertEqual(run("redis-cli", "-h", address, "-p", str(REDIS), "ping").stdout, "PONG\n")
        for port, tls in ((POSTGRES, "disable"), (POSTGRES_TLS, "require")):
            done = run("psql", f"host={address} port={port} user=postgres dbname=postgres sslmode={tls}",
                       "-At", "-c", "select 'row', exists(select 1 from pg_stat_ssl where ssl and "
                       "pid = pg_backend_pid())")
            self.assertEqual(done.stdout, f"row|{'t' if tls == 'require' else 'f'}\n")

    def greeting_time(self, space, address, port):
        """Seconds from the connect to the first byte that the server says; and that byte."""
        began = time.monotonic()
        with contextlib.closing(space.connect(address, port)) as sock:
            sock.settimeout(20)
            byte = sock.recv(1)
            return time.monotonic() - began, byte

    def plain(self, reason):
        return self.proxy("server").metric("postern_plaintext_connections_total", reason=reason)


class PermissiveTest(ProtocolsTest):
    def test_the_mesh_is_mutual_tls_in_both_families(self):
        records = len(self.proxy("client").access_log())
        before = [self.plain(reason) for reason in ("permissive", "server_first", "application_tls")]
        for address in ADDRESSES.values():
            self.clients(self.mesh.client, address)
        for name in ("client", "server"):
            self.proxy(name).wait_idle()
        wait_until(lambda: len(self.proxy("client").access_log()) >= records + 12, what="records")
        for record in self.proxy("client").access_log()[records:]:
            self.assertEqual(record["security"], "mutual_tls", record)
        self.assertEqual(before, [self.plain(reason) for reason in
                                  ("permissive", "server_first", "application_tls")])

    def test_clients_outside_the_mesh_are_served_in_plaintext_and_counted(self):
        before = self.plain("server_first"), self.plain("permissive")
        self.clients(self.mesh.back, SERVER_BACK)
        self.proxy("server").wait_idle()
        # A client of SSH does not wait for the server's greeting to send its own.
        self.assertGreaterEqual(self.plain("server_first") - before[0], 2)  # MariaDB, SMTP
        self.assertGreaterEqual(self.plain("permissive") - before[1], 3)    # Redis, PostgreSQL twice

    def test_no_greeting_waits_for_a_tenth_of_a_second(self):
        for port in (MARIADB, SSHD, SMTP):
            with self.subTest(port=port):
                # What the server itself needs is not the proxy's; the least of some tries is
                # what is there without another program in the way.
                alone = min(self.greeting_time(self.mesh.server, "127.0.0.1", port)[0]
                            for _ in range(5))
                times = [self.greeting_time(self.mesh.back, SERVER_BACK, port)[0] for _ in range(5)]
                print(f"port {port}: greeting after {alone * 1000:.1f} ms alone; through the proxy "
                      + ", ".join(f"{t * 1000:.1f}" for t in times) + " ms")
                self.assertLess(min(times) - alone, STALL_LIMIT)
                self.assertLess(sorted(times)[2] - alone, STALL_LIMIT)

    def test_mesh_and_plaintext_clients_mix_on_one_port(self):
        for _ in range(10):
            for space, address in ((self.mesh.client, SERVER[4]), (self.mesh.back, SERVER_BACK)):
                self.assertEqual(self.greeting_time(space, address, SMTP)[1], b"2")
        self.assertEqual(self.proxy("server").metric("postern_connections_closed_total",
                                                     reason="late_client_hello"), 0)

    def test_a_known_member_is_never_answered_in_plaintext(self):
        """The client's proxy's own user speaks past that proxy, from an address of the mesh."""
        self.greeting_time(self.mesh.client, SERVER[4], SMTP)  # the server's proxy learns the address
        self.proxy("server").wait_idle()
        records = len(self.proxy("server").access_log())
        script = ("import socket\ns = socket.create_connection((%r, %d), 20)\ns.settimeout(2)\n"
                  "try: print(s.recv(1))\nexcept socket.timeout: print('silence')\n"
                  "s.settimeout(20)\ntry: print(s.recv(1))\nexcept OSError as e: print('reset')\n"
                  % (SERVER[4], SMTP))
        said = self.mesh.client.run("python3", "-c", script, uid=harness.PROXY_UID).stdout.splitlines()
        self.assertEqual(said[0], "silence", said)
        self.assertIn(said[1], ("reset", "b''"), said)
        wait_until(lambda: len(self.proxy("server").access_log()) > records, what="record")
        record = self.proxy("server").access_log()[records]
        self.assertEqual((record["reason"], record["bytes_from_upstream"]), ("sniff_timeout", 0), record)


class StrictTest(ProtocolsTest):
    mode = "strict"

    def test_the_mesh_speaks_every_protocol(self):
        for address in ADDRESSES.values():
            self.clients(self.mesh.client, address)

    def test_a_client_outside_the_mesh_gets_no_byte(self):
        for port in (MARIADB, SSHD, SMTP):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, port)) as sock:
                sock.settimeout(20)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(sock.recv(1), b"")
        for port in (REDIS, POSTGRES):
            with contextlib.closing(self.mesh.back.connect(SERVER_BACK, port)) as sock:
                sock.settimeout(20)
                with contextlib.suppress(ConnectionResetError):
                    sock.sendall(b"PING\r\n")
                    self.assertEqual(sock.recv(1), b"")
        self.assertGreater(self.proxy("server").metric("postern_connections_closed_total",
                                                       reason="plaintext_refused"), 0)


if __name__ == "__main__":
    unittest.main()
