# SPDX-License-Identifier: Apache-2.0
"""`postern run`: commands of an unprivileged user, whose connections and ports go through a proxy of
their own, in a namespace without any rule. The server stands behind a proxy with interception."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import unittest

import harness
import lab
import pki
from harness import CLIENT, CLIENT_ID, HERE, PROXY_UID, SERVER, SERVER_ID, TRUST_DOMAIN, url_host
from lab import wait_until

BACK = "198.18.2.2"  # in no mesh: what goes there is plaintext, if it is let go at all
PYTHON = "/usr/bin/python3"  # one that every user can run
ECHO, WEB, PLAIN, NOBODY, OWN_TLS = 7000, 8000, 7100, 7999, 7443

# Connects, echoes, loses its proxy, and tries again.
LOSES_ITS_PROXY = """
import os, signal, socket, sys, time
address = (sys.argv[1], int(sys.argv[2]))
def reach():
    try:
        with socket.create_connection(address, 5) as sock:
            sock.sendall(b"x")
            return sock.recv(1).decode() or "ended"
    except OSError as error:
        return type(error).__name__
said = [reach()]
parent = os.getppid()
children = open(f"/proc/{parent}/task/{parent}/children").read().split()
proxy = next(int(p) for p in children if open(f"/proc/{p}/comm").read().startswith("postern-proxy"))
os.kill(proxy, signal.SIGKILL)
while os.path.exists(f"/proc/{proxy}"):
    time.sleep(0.01)
said += [reach() for _ in range(3)]
sock = socket.socket()
sock.setblocking(False)
said.append(str(sock.connect_ex(address)))
print(*said)
"""

# TLS of its own over a blocking socket: whose certificate it sees, and how long that takes.
TLS_CLIENT = """
import hashlib, socket, ssl, sys, time
began = time.monotonic()
sock = socket.socket()
sock.connect((sys.argv[1], int(sys.argv[2])))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
tls = context.wrap_socket(sock)
tls.sendall(b"mine")
print(hashlib.sha256(tls.getpeercert(True)).hexdigest(), tls.recv(9).decode(),
      round(time.monotonic() - began, 3))
"""

# An event loop, many connections at a time.
ASYNC_CLIENT = """
import asyncio, sys
async def one(number):
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    data = b"%d\\n" % number
    writer.write(data)
    got = await reader.readexactly(len(data))
    writer.close()
    return got == data
async def all_of_them():
    return sum(await asyncio.gather(*(one(i) for i in range(200))))
print(asyncio.run(all_of_them()))
"""

# Goes on when its supervisor has gone, and tries to connect then.
OUTLIVES_IT = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
parent = os.getppid()
print("ready", flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
print(*(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))) for _ in range(3)), flush=True)
"""

# A unix socket by a relative path, a UDP socket, and a TCP one on loopback.
LOCAL_CLIENT = """
import os, socket, sys, tempfile, threading
os.chdir(tempfile.mkdtemp())
said = []
for family, kind, name in ((socket.AF_UNIX, socket.SOCK_STREAM, "here"),
                           (socket.AF_UNIX, socket.SOCK_STREAM, "\\0pstn-run-%d" % os.getpid()),
                           (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
                           (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))):
    server = socket.socket(family, kind)
    server.bind(name)
    server.listen()
    client = socket.socket(family, kind)
    client.connect(server.getsockname())
    peer, _ = server.accept()
    peer.sendall(b"ok")
    said.append(client.recv(2).decode())
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 0))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(("127.0.0.1", udp.getsockname()[1]))
sender.send(b"ok")
said.append(udp.recv(2).decode())
closed = socket.socket()
said.append(str(closed.connect_ex(("127.0.0.1", 1))))
print(*said, os.stat("here").st_uid == os.getuid())
"""

# Asks a second time for what became of a non-blocking connect, of several outcomes.
ASKS_TWICE = """
import errno, select, socket, sys
def ask(address, event=select.POLLOUT):
    sock = socket.socket()
    sock.setblocking(False)
    said = [sock.connect_ex(address)]
    if event is not None:
        poll = select.poll()
        poll.register(sock, event)
        poll.poll(10000)
    said.append(sock.connect_ex(address))
    print(*(errno.errorcode.get(error, error) for error in said))
    return sock
ask((sys.argv[1], int(sys.argv[2])))
server = socket.create_server(("127.0.0.1", 0), backlog=0)
address = server.getsockname()
kept = [ask(address)]
ask(("127.0.0.1", 1))
ask((sys.argv[3], int(sys.argv[4])), 0)  # an error is told of in any case
for _ in range(3):
    kept.append(ask(address, None))  # until the queue is full
"""

# Serves, and calls itself by each address.
CALLS_ITSELF = """
import socket, sys, threading
server = socket.create_server(("::", 7310), family=socket.AF_INET6, dualstack_ipv6=True)
def serve():
    while True:
        server.accept()[0].sendall(b"me")
threading.Thread(target=serve, daemon=True).start()
for address in sys.argv[1:]:
    with socket.create_connection((address, 7310), 10) as sock:
        try:
            sock.sendall(b"x")
            print(sock.recv(2).decode())
        except ConnectionError:
            print("reset")
"""


class RunTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        cls.numbers = itertools.count()
        mesh.add_workload("server", mesh.server, "198.18.3.2", "--port-mode",
                          f"{OWN_TLS}=permissive", entry=["--address", SERVER[4], "--address", SERVER[6]])
        mesh.proxies["server"].wait_ready()
        mesh.serve("echo", ECHO)
        cls.make_static_client(mesh)
        mesh.lab.start(mesh.server, sys.executable, "-m", "http.server", str(WEB), "--bind", "::",
                       "--directory", mesh.private_directory("www"), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: cls.listens(mesh.server, "127.0.0.1", WEB), what="the web server")
        # Outside the mesh, and in plaintext: counts who comes.
        cls.plain_callers = []
        listener = mesh.back.listen(BACK, PLAIN)
        cls.addClassCleanup(listener.close)
        threading.Thread(target=cls.serve_plain, args=(listener,), daemon=True).start()
        return mesh

    @staticmethod
    def listens(space, address, port):
        with contextlib.suppress(OSError):
            space.connect(address, port).close()
            return True

    @classmethod
    def serve_plain(cls, listener):
        with contextlib.suppress(OSError):
            while True:
                sock, peer = listener.accept()
                cls.plain_callers.append(peer)
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(5)
                    sock.sendall(sock.recv(1))

    @classmethod
    def make_static_client(cls, mesh):
        cls.static = mesh.path("run_client")
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("g++")
        lab.run([compiler, "-x", "c", "-static", "-O1", "-Wall", "-pthread", "-o", cls.static,
                 os.path.join(HERE, "run_client.c")])

    def words(self, *flags, name="client", entry=()):
        """`postern run` with an identity of its own, up to the command."""
        number = next(self.numbers)
        mesh = self.mesh
        self.access = mesh.owned_file(f"run{number}.access.log", "")
        self.log = mesh.owned_file(f"run{number}.log", "")
        return [*mesh.run_words(name, BACK, f"run{number}", "--access-log", self.access, "--proxy-log",
                                self.log, *flags, entry=entry), "--"]

    def run_it(self, *command, flags=(), check=True, **options):
        done = self.mesh.client.run(*self.words(*flags), *command, uid=PROXY_UID, check=False,
                                    timeout=40, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
                                 + harness.tail(self.log))
        return done

    def start(self, *command, flags=(), entry=(), **options):
        """The same without waiting for its end."""
        return self.mesh.lab.start(self.mesh.client, *self.words(*flags, entry=entry), *command,
                                   uid=PROXY_UID, stdin=subprocess.DEVNULL, **options)

    def static_client(self, *words, **options):
        return self.run_it(self.static, *[str(word) for word in words], **options).stdout.strip()

    @contextlib.contextmanager
    def over_mtls(self, count=1):
        """What happens inside comes to the server as mutual TLS of the client."""
        before = (server := self.proxy("server")).count_records()
        yield
        records = wait_until(lambda: len(server.access_log()) >= before + count
                             and server.access_log()[before:], what="the server's records")
        for record in records:
            self.assertEqual((record["security"], record["peer_id"], record["local_id"]),
                             ("mutual_tls", CLIENT_ID, SERVER_ID), record)

    # What is caught.

    def test_curl_goes_over_mtls_in_both_families(self):
        for family in (4, 6):
            with self.subTest(family=family), self.over_mtls():
                wire = self.mesh.capture(self.mesh.client, "pstn1a")
                body = self.run_it("curl", "-sS", "--fail", "--max-time", "20",
                                   f"http://{url_host(SERVER[family])}:{WEB}/").stdout
                self.assertIn("Directory listing", body)
                seen = wire.stop()
                self.assertNotIn(b"HTTP/1", seen)
                self.assertIn(b"\x17\x03\x03", seen)

    def test_a_static_binary_is_caught(self):
        with self.over_mtls():
            # The peer that it sees is the supervisor's side of the doorway.
            self.assertEqual(self.static_client("echo", SERVER[4], ECHO), "echo ok 127.0.0.1")

    def test_epoll_registrations_and_options_outlive_a_non_blocking_connect(self):
        with self.over_mtls():
            self.assertEqual(self.static_client("epoll", SERVER[4], ECHO), "epoll ok")

    def test_many_threads_connect_at_the_same_time(self):
        with self.over_mtls(64 * 5):
            self.assertEqual(self.static_client("threads", SERVER[4], ECHO, 64, 5),
                             "threads 0 failed")

    def test_an_event_loop_connects_many_times(self):
        with self.over_mtls(200):
            self.assertEqual(self.run_it(PYTHON, "-c", ASYNC_CLIENT, SERVER[4],
                                         str(ECHO)).stdout.strip(), "200")

    def serve_own_tls(self):
        """An application that has TLS of its own; the digest of its certificate."""
        chain, key = pki.Authority(self.mesh.directory, "own-tls").issue("app", "spiffe://own.test/app")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        listener = self.mesh.server.listen(SERVER[4], OWN_TLS)
        self.addCleanup(listener.close)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with contextlib.suppress(OSError):
                        sock.settimeout(10)
                        with context.wrap_socket(sock, server_side=True) as tls:
                            tls.sendall(b"own: " + tls.recv(100))
        threading.Thread(target=serve, daemon=True).start()
        with open(chain, encoding="ascii") as file:
            return self.digest_of(file.read())

    @staticmethod
    def digest_of(text):
        """Of the first certificate in it."""
        pem = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.group())).hexdigest()

    def test_tls_of_its_own_is_passed_on_where_the_port_says_so(self):
        digest = self.serve_own_tls()
        # So long a wait for the first bytes would be noticed, and no load makes them late.
        flags = ["--application-tls", f"{OWN_TLS}=pass", "--sniff-timeout", "10s"]
        before = self.proxy("server").count_records()
        done = self.run_it(PYTHON, "-c", TLS_CLIENT, SERVER[4], str(OWN_TLS), flags=flags)
        seen, _, said, took = done.stdout.split()
        self.assertEqual((seen, said), (digest, "mine"))
        self.assertLess(float(took), 8)
        done = self.run_it("openssl", "s_client", "-connect", f"{SERVER[4]}:{OWN_TLS}", flags=flags,
                           stdin=subprocess.DEVNULL)
        self.assertEqual(self.digest_of(done.stdout), digest)
        records = wait_until(lambda: len(self.proxy("server").access_log()) >= before + 2
                             and self.proxy("server").access_log()[before:], what="records")
        self.assertEqual([record["security"] for record in records], ["application_tls"] * 2)
        with self.over_mtls():  # where no flag says so, it is wrapped
            done = self.run_it(PYTHON, "-c", TLS_CLIENT, SERVER[4], str(OWN_TLS))
        self.assertEqual(done.stdout.split()[0], digest)

    def test_what_the_command_starts_is_caught_too(self):
        with self.over_mtls(2):
            done = self.run_it("sh", "-c", f"({self.static} echo {SERVER[4]} {ECHO}) & wait; "
                               f"setsid -w {self.static} echo {SERVER[4]} {ECHO}")
            self.assertEqual(done.stdout.count("echo ok"), 2)

    def test_signals_in_the_middle_of_a_connect(self):
        # With SA_RESTART nobody sees them; without, the call is broken off and taken up again.
        self.assertRegex(self.static_client("signals", SERVER[4], ECHO, 1), r"^signals ok 1 0$")
        self.assertRegex(self.static_client("signals", SERVER[4], ECHO, 0), r"^signals ok 1 ")

    def test_signals_in_the_middle_of_a_bind(self):
        self.assertEqual(self.static_client("bind"), "bind ok 1")

    def test_a_refused_port_is_refused(self):
        code = ("import socket, sys\nsock = socket.socket()\n"
                "print(sock.connect_ex((sys.argv[1], int(sys.argv[2]))))\n"
                "print(sock.connect_ex((sys.argv[1], int(sys.argv[3]))))\n")
        done = self.run_it(PYTHON, "-c", code, BACK, str(NOBODY), str(PLAIN))
        self.assertEqual(done.stdout.split(), ["111", "0"])  # ECONNREFUSED, and the socket is usable

    def test_a_destination_that_policy_refuses_is_a_permission_denied(self):
        callers = len(self.plain_callers)
        code = "import socket, sys\nprint(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"
        done = self.run_it(PYTHON, "-c", code, BACK, str(PLAIN),
                           flags=["--outbound-default", "deny"])
        self.assertEqual(done.stdout.strip(), "13")
        self.assertEqual(len(self.plain_callers), callers)

    def test_what_is_on_this_host_stays_as_it_is(self):
        self.assertEqual(self.run_it(PYTHON, "-c", LOCAL_CLIENT).stdout.strip(),
                         "ok ok ok ok ok 111 True")

    def test_who_asks_twice_is_told_what_became_of_a_connect(self):
        said = self.run_it(PYTHON, "-c", ASKS_TWICE, SERVER[4], str(ECHO), BACK,
                           str(NOBODY)).stdout.splitlines()
        self.assertEqual(said[:4], ["EINPROGRESS 0", "EINPROGRESS 0", "EINPROGRESS ECONNREFUSED",
                                    "EINPROGRESS ECONNRESET"])
        self.assertIn(said[-1], ("EINPROGRESS EINPROGRESS", "EINPROGRESS EALREADY"))

    # What would go round it.

    def test_ways_round_the_filter_are_refused(self):
        lines = self.static_client("refused", SERVER[4], ECHO).splitlines()
        self.assertEqual(lines[:5], ["io_uring_setup ENOSYS", "fastopen EOPNOTSUPP",
                                     "fastopen sendmsg EOPNOTSUPP", "smc EAFNOSUPPORT",
                                     "sctp EPROTONOSUPPORT"])
        self.assertIn(lines[5:], ([], ["x32 ENOSYS"]))

    def test_system_calls_of_another_abi_end_the_process(self):
        done = self.run_it(self.static, "foreign", check=False)
        self.assertEqual(done.returncode, 128 + signal.SIGSYS, done.stdout)

    def test_an_address_that_changes_during_the_call_reaches_nobody_in_plaintext(self):
        callers = len(self.plain_callers)
        with self.over_mtls():
            reached, refused = map(int, self.static_client(
                "race", SERVER[4], ECHO, 3, BACK, PLAIN, flags=["--outbound-default", "deny"]).split())
        self.assertGreater(reached, 0)
        self.assertGreater(refused, 0)  # the forged address was read, and the proxy refused it
        self.assertEqual(len(self.plain_callers), callers)

    def test_without_its_proxy_nothing_connects(self):
        callers = len(self.plain_callers)
        done = self.run_it(PYTHON, "-c", LOSES_ITS_PROXY, BACK, str(PLAIN))
        self.assertEqual(done.stdout.split(), ["x"] + ["ConnectionRefusedError"] * 3 + ["111"])
        self.assertEqual(len(self.plain_callers), callers + 1)
        self.assertIn("the proxy has ended", done.stderr)

    def test_without_its_supervisor_nothing_connects(self):
        callers = len(self.plain_callers)
        command = self.start(PYTHON, "-c", OUTLIVES_IT, BACK, str(PLAIN), stdout=subprocess.PIPE)
        self.assertEqual(command.stdout.readline(), b"ready\n")
        command.kill()
        self.assertEqual(command.stdout.readline(), b"38 38 38\n")  # ENOSYS
        command.stdout.close()
        self.assertEqual(len(self.plain_callers), callers)

    def test_nobody_else_gets_through_the_doorway(self):
        command = self.start("sleep", "60")
        try:
            ports = wait_until(lambda: self.ports_of(command.pid), what="the doorway")
            records = os.path.getsize(self.access)
            for port in ports:
                with contextlib.suppress(ConnectionResetError), \
                        self.mesh.client.connect("127.0.0.1", port) as sock:
                    self.assertEqual(sock.recv(1), b"")
            self.assertEqual(os.path.getsize(self.access), records)
        finally:
            self.mesh.lab.stop(command)

    def ports_of(self, pid):
        """The ports of 127.0.0.1 on which a process listens."""
        with contextlib.suppress(OSError):
            inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
                rows = [line.split() for line in table.readlines()[1:]]
            return [int(row[1].split(":")[1], 16) for row in rows
                    if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
        return []

    # How it ends.

    def test_it_ends_with_the_commands_status(self):
        for command, status in ((["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -KILL $$"], 137),
                                (["/nonexistent/program"], 127), (["/etc/passwd"], 126),
                                (["true"], 0)):
            with self.subTest(command=command):
                self.assertEqual(self.run_it(*command, check=False).returncode, status)

    def test_it_forwards_signals_and_leaves_nobody_behind(self):
        command = self.start("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done",
                             stdout=subprocess.PIPE)
        self.assertEqual(command.stdout.readline(), b"ready\n")
        with open(f"/proc/{command.pid}/task/{command.pid}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
        self.assertEqual(len(children), 2)
        command.send_signal(signal.SIGTERM)
        self.assertEqual(command.wait(15), 42)
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children),
                   what="the proxy's end")
        command.stdout.close()

    def test_command_and_proxy_end_when_it_is_killed(self):
        command = self.start("sleep", "60")
        def children():
            with contextlib.suppress(OSError):
                with open(f"/proc/{command.pid}/task/{command.pid}/children", encoding="ascii") as file:
                    pids = file.read().split()
                return pids if len(pids) == 2 else None
        pids = wait_until(children, what="its two children")
        command.kill()
        command.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids),
                   what="their end")

    def test_what_was_written_arrives_after_the_command_has_ended(self):
        server = self.mesh.serve("sum", 7001)
        try:
            code = ("import socket, sys\nsock = socket.create_connection((sys.argv[1], 7001))\n"
                    "sock.sendall(bytes(4 << 20))\n")
            before = self.proxy("server").count_records()
            self.run_it(PYTHON, "-c", code, SERVER[4])
            record = wait_until(lambda: self.proxy("server").access_log()[before:], what="record")[-1]
            self.assertEqual(record["bytes_from_downstream"], 4 << 20)
        finally:
            self.mesh.lab.stop(server)
            server.stdout.close()

    def test_a_proxy_that_cannot_start_is_a_failure_of_its_own(self):
        mesh = self.mesh
        done = mesh.client.run(mesh.tool("postern"), "run", "--issuer", "nowhere", "--", "true",
                               uid=PROXY_UID, check=False)
        self.assertEqual(done.returncode, 125)
        self.assertIn("--issuer", done.stderr)
        done = mesh.client.run(mesh.tool("postern"), "run", "--proxy-log", "-", uid=PROXY_UID,
                               check=False)
        self.assertEqual(done.returncode, 2)

    # What others reach.

    def test_its_ports_are_reached_through_the_proxy_alone(self):
        code = ("import socket, socketserver, sys\n"  # at first for IPv6 alone, which does not stay
                "socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6).close()\n"
                "class H(socketserver.BaseRequestHandler):\n"
                "  def handle(self): self.request.sendall(self.request.recv(100))\n"
                "class S(socketserver.ThreadingTCPServer):\n"
                "  address_family = socket.AF_INET6; allow_reuse_address = True\n"
                "s = S(('::', int(sys.argv[1])), H); print(*s.socket.getsockname()[:2], flush=True)\n"
                "s.serve_forever()\n")
        command = self.start(PYTHON, "-c", code, "7200", stdout=subprocess.PIPE,
                             entry=["--address", CLIENT[4], "--address", CLIENT[6]])
        try:
            # Bound to loopback at the port that it asked for.
            self.assertEqual(command.stdout.readline(), b"::ffff:127.0.0.1 7200\n",
                             harness.tail(self.log))
            # Once the issuer has told the server's proxy of the new workload's addresses.
            for family in (4, 6):
                wait_until(lambda f=family: self.pings(CLIENT[f], 7200), what=f"answer IPv{family}")
            wait_until(lambda: self.mutual_inbound() == 2, what="the client's records")
            # In plaintext from outside the mesh: refused. On this host's loopback: as ever.
            with contextlib.suppress(ConnectionResetError), \
                    self.mesh.back.connect("198.18.2.1", 7200) as sock:
                sock.sendall(b"ping")
                self.assertEqual(sock.recv(100), b"")
            with self.mesh.client.connect("127.0.0.1", 7200) as sock:
                sock.sendall(b"ping")
                self.assertEqual(sock.recv(100), b"ping")
        finally:
            self.mesh.lab.stop(command)
            command.stdout.close()

    def test_nginx_with_its_workers_is_reached_through_the_proxy(self):
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        root = self.mesh.private_directory("nginx")
        config = self.mesh.owned_file("nginx.conf", f"""daemon off; worker_processes 2;
pid {root}/pid; error_log {root}/log; events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b;
  fastcgi_temp_path {root}/c; uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
  server {{ listen 0.0.0.0:8081 reuseport; listen [::]:8081; return 200 "here"; }} }}
""")
        command = self.start(nginx, "-c", config, "-e", f"{root}/log",
                             entry=["--address", CLIENT[4], "--address", CLIENT[6]])
        for family in (4, 6):
            wait_until(lambda f=family: self.mesh.server.run(
                "curl", "-sS", "--max-time", "5", f"http://{url_host(CLIENT[f])}:8081/",
                check=False).stdout == "here", what="an answer of nginx")
        wait_until(lambda: self.mutual_inbound() == 2, what="the client's records")
        command.send_signal(signal.SIGQUIT)
        self.assertEqual(command.wait(15), 0)

    def test_a_port_that_the_command_has_closed_ends_in_a_reset_and_not_in_a_loop(self):
        code = ("import socket, sys\nserver = socket.create_server(('', int(sys.argv[1])))\n"
                "print('ready', flush=True); sys.stdin.readline(); server.close()\n"
                "print('closed', flush=True); sys.stdin.readline()\n")
        command = self.mesh.lab.start(self.mesh.client, *self.words("--peer-mode", "permissive"), PYTHON,
                                      "-c", code, "7400", uid=PROXY_UID, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)
        try:
            self.assertEqual(command.stdout.readline(), b"ready\n", harness.tail(self.log))
            command.stdin.write(b"\n")
            command.stdin.flush()
            self.assertEqual(command.stdout.readline(), b"closed\n")
            with contextlib.suppress(ConnectionResetError), \
                    self.mesh.back.connect("198.18.2.1", 7400) as sock:
                sock.sendall(b"ping")
                self.assertEqual(sock.recv(100), b"")
            # The caller's, and the one that has come back.
            wait_until(lambda: len(self.reasons()) >= 2, what=self.reasons)
        finally:
            self.mesh.lab.stop(command)
            command.stdin.close()
            command.stdout.close()
        self.assertEqual(self.reasons(), ["reset", "self_loop"])

    def reasons(self):
        with open(self.access, encoding="utf-8") as file:
            return sorted(json.loads(line)["reason"] for line in file if line.endswith("\n"))

    def pings(self, address, port):
        with contextlib.suppress(ConnectionResetError), \
                self.mesh.server.connect(address, port) as sock:
            sock.sendall(b"ping")
            return sock.recv(100) == b"ping"

    def mutual_inbound(self):
        with open(self.access, encoding="utf-8") as file:
            # Not those that came before the command had begun to listen.
            return sum('"direction":"inbound"' in line and '"security":"mutual_tls"' in line
                       and SERVER_ID in line and '"reason":"ok"' in line for line in file)

    def test_a_command_calls_itself_by_its_own_address(self):
        words = [PYTHON, "-c", CALLS_ITSELF, "127.0.0.1", CLIENT[4], CLIENT[6]]
        self.assertEqual(self.run_it(*words).stdout.split(), ["me", "reset", "reset"])
        self.assertEqual(self.reasons().count("plaintext_refused"), 2)
        command = self.start(*words, entry=["--address", CLIENT[4], "--address", CLIENT[6]],
                             stdout=subprocess.PIPE)
        self.assertEqual(command.communicate(timeout=40)[0].split(), [b"me"] * 3)
        with open(self.access, encoding="utf-8") as file:
            self.assertEqual([json.loads(line)["security"] for line in file], ["mutual_tls"] * 4)

    def test_a_port_is_taken_once_and_can_be_taken_again(self):
        code = ("import socket\n"
                "def listen():\n"
                "  s = socket.socket(); s.bind(('0.0.0.0', 7300)); s.listen(); return s\n"
                "first = listen()\n"
                "try:\n  listen(); print('twice')\n"
                "except OSError as error: print(error.errno)\n"
                "first.close(); listen(); print('again')\n"
                "unbound = socket.socket(); unbound.listen(); print(unbound.getsockname()[0])\n")
        self.assertEqual(self.run_it(PYTHON, "-c", code).stdout.split(),
                         ["98", "again", "127.0.0.1"])


if __name__ == "__main__":
    unittest.main()
