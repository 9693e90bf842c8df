# SPDX-License-Identifier: Apache-2.0
"""A mesh on one machine: issuer, client and server in namespaces of their own, with the built programs.

    client 198.18.1.1 ---- 198.18.1.2 server      fd00:5b:1::1 and ::2
    client 198.18.2.1 ---- 198.18.2.2 issuer
    server 198.18.3.1 ---- 198.18.3.2 issuer

Applications run as root in the namespaces; the proxies as PROXY_UID, which is also their loop guard,
so a command with uid=PROXY_UID speaks past the client's proxy. Everything goes when the mesh is closed.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import lab
from lab import wait_until

BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))
HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps.py")
PROXY_UID = 64901
PORTS = {"admin": 15000, "metrics": 15020}
TRUST_DOMAIN = "e2e.test"
CLIENT_ID, SERVER_ID = f"spiffe://{TRUST_DOMAIN}/client", f"spiffe://{TRUST_DOMAIN}/server"
CLIENT = {4: "198.18.1.1", 6: "fd00:5b:1::1"}
SERVER = {4: "198.18.1.2", 6: "fd00:5b:1::2"}
# The server as the issuer's namespace sees it: a way in that no client proxy intercepts.
SERVER_BACK = "198.18.3.1"
SOAK = bool(os.environ.get("POSTERN_SOAK"))


def url_host(address):
    return f"[{address}]" if ":" in address else address


def tail(path, lines=25):
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as handle:
        return "".join(handle.readlines()[-lines:])
    return "(nothing)\n"


def parse_metrics(text):
    """{"name{a=\"b\"}": value}"""
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


class Proxy:
    """One postern-proxy and what it says of itself. It runs as `uid`, which keeps `capabilities`; a
    second one on a host has other ports, and one of `postern run` its command `last`."""

    def __init__(self, mesh, name, space, command, uid=PROXY_UID, capabilities=(), ports=PORTS,
                 last=()):
        self.mesh, self.name, self.space, self.command, self.last = mesh, name, space, command, last
        self.uid, self.capabilities, self.ports = uid, capabilities, ports
        self.log_path = os.path.join(mesh.directory, f"{name}.log")
        self.access_path = os.path.join(mesh.directory, f"{name}.access.log")
        self.process = None
        mesh.owned_file(f"{name}.access.log", "", uid)
        self.start()

    def start(self):
        self._records_before = len(self.access_log())
        with open(self.log_path, "ab") as log:
            self.process = self.mesh.lab.start(
                self.space, *self.command, "--access-log", self.access_path, *self.last, uid=self.uid,
                capabilities=self.capabilities, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, timeout=40):
        return self.mesh.lab.stop(self.process, timeout)

    def kill(self):
        """Gives it no time for anything."""
        self.process.kill()
        self.process.wait()

    def get(self, path, port=None, host="127.0.0.1"):
        """(status, text) of a page, asked from inside the namespace."""
        port = port or self.ports["admin"]
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.sock = self.space.connect(host, port)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def page(self, path):
        status, text = self.get(path)
        if status != 200:
            raise AssertionError(f"{self.name} {path}: {status} {text}")
        return json.loads(text)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n"
                                 + tail(self.log_path))
        try:
            return self.get("/ready", self.ports["metrics"])[0] == 200
        except OSError:
            return False

    def wait_ready(self, timeout=20):
        def why():
            with contextlib.suppress(OSError):
                return f"{self.name} ready: {self.get('/ready', self.ports['metrics'])[1]}\n{tail(self.log_path)}"
            return f"{self.name} ready: no answer\n{tail(self.log_path)}"
        wait_until(self.is_ready, timeout, why)

    def metrics(self):
        return parse_metrics(self.get("/metrics", self.ports["metrics"])[1])

    def metric(self, name, **labels):
        """The sum over all series of `name` that carry these labels."""
        total = 0.0
        for key, value in self.metrics().items():
            if key.split("{")[0] == name and all(f'{k}="{v}"' in key for k, v in labels.items()):
                total += value
        return total

    def open_connections(self):
        return self.metric("postern_connections_open")

    def wait_idle(self, timeout=15):
        wait_until(lambda: self.open_connections() == 0, timeout,
                   lambda: f"{self.name} idle; open: {self.page('/connections')}")

    def wait_recorded(self, timeout=15):
        """Until it is idle and the access log, which a thread of its own writes, has a record of each
        connection since the start. Not where floods are refused at the accept: those are not all recorded."""
        def recorded():
            return len(self.access_log()) - self._records_before

        def is_recorded():
            return (self.open_connections() == 0
                    and recorded() >= self.metric("postern_connections_closed_total"))
        wait_until(is_recorded, timeout, lambda: f"{self.name} idle and {recorded()} records those of all; "
                   f"open: {self.page('/connections')}")

    def count_records(self, timeout=15):
        """How many records there are once it is idle and all is recorded: what comes later is new."""
        self.wait_recorded(timeout)
        return len(self.access_log())

    def failures(self):
        return self.page("/failures")

    def access_log(self):
        with open(self.access_path, encoding="utf-8") as handle:
            return [json.loads(line) for line in handle if line.endswith("\n")]

    def resident(self):
        """Anonymous resident memory in bytes: where a leak is. Pages of files come and go with use."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as handle:
            return int(re.search(r"RssAnon:\s+(\d+) kB", handle.read()).group(1)) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def check_not_restarted(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n"
                                 + tail(self.log_path))


class Capture:
    """tcpdump on one interface; `stop()` returns what it wrote."""

    def __init__(self, mesh, space, device, words=("tcp",), snap=65535):
        self.path = os.path.join(mesh.directory, f"{device}-{time.monotonic_ns()}.pcap")
        self._lab = mesh.lab
        self._process = mesh.lab.start(
            space, "tcpdump", "-i", device, "-U", "--immediate-mode", "-n", "-Z", "root", "-B", "16384", "-s", str(snap),
            "-w", self.path, *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        line = self._process.stderr.readline()
        while line and b"listening on" not in line:
            line = self._process.stderr.readline()
        if not line:
            raise AssertionError(f"tcpdump did not start: {self._process.poll()}")

    def stop(self):
        size = -1
        while size != (size := os.path.getsize(self.path)):
            time.sleep(0.3)  # until it has written what it has seen
        self._lab.stop(self._process)
        self._process.stderr.close()
        with open(self.path, "rb") as handle:
            return handle.read()


class Mesh:
    """See the head of the file."""

    def __init__(self, svid_ttl=None, issuer=True, issuer_words=()):
        lab.require_root()
        for program in ("postern", "postern-proxy", "postern-identity"):
            if not os.path.exists(os.path.join(BUILD, "bin", program)):
                raise AssertionError(f"{BUILD}/bin/{program} is not built")
        self.lab = lab.Lab()
        self.proxies, self.issuer = {}, None
        self.directory = tempfile.mkdtemp(prefix="pstn-e2e-")
        try:
            self._set_up(svid_ttl, issuer, issuer_words)
        except BaseException:
            self.explain()
            self.close()
            raise

    def _set_up(self, svid_ttl, issuer, issuer_words):
        os.chmod(self.directory, 0o755)
        # The checkout and the build may be where the proxies' user cannot go.
        self.bin = os.path.join(self.directory, "bin")
        os.mkdir(self.bin)
        self.apps = shutil.copy(APPS, self.bin)
        os.chmod(self.apps, 0o755)
        for program in ("postern", "postern-proxy", "postern-identity"):
            shutil.copy(os.path.join(BUILD, "bin", program), self.bin)
        self.client = self.lab.namespace("client")
        self.server = self.lab.namespace("server")
        self.back = self.lab.namespace("issuer")
        self.lab.join(self.client, self.server, 1)
        self.lab.join(self.client, self.back, 2)
        self.lab.join(self.server, self.back, 3)
        self.socket = os.path.join(self.directory, "identity.sock")
        self._issuer_words = ["--trust-domain", TRUST_DOMAIN, "--state-dir", self.path("issuer"),
                              "--listen", "0.0.0.0:15012", "--socket", self.socket]
        if svid_ttl:
            self._issuer_words += ["--svid-ttl", svid_ttl, "--allow-short-ttl"]
        self._issuer_words += issuer_words
        if issuer:
            self.start_issuer()

    def path(self, name):
        return os.path.join(self.directory, name)

    def tool(self, program):
        return os.path.join(self.bin, program)

    # The issuer.
    def start_issuer(self):
        with open(self.path("issuer.log"), "ab") as log:
            self.issuer = self.lab.start(self.back, self.tool("postern-identity"),
                                         *self._issuer_words, stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=log)
        self.back.run(self.tool("postern"), "wait", "--address", "127.0.0.1:15014",
                      "--timeout", "20s")

    def stop_issuer(self):
        self.lab.stop(self.issuer)

    def issuer_page(self, path):
        """(status, text) of a page of the issuer."""
        connection = http.client.HTTPConnection("127.0.0.1", 15014, timeout=5)
        connection.sock = self.back.connect("127.0.0.1", 15014)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def issuer_metric(self, name, **labels):
        """The sum over all series of the issuer's `name` that carry these labels."""
        values = parse_metrics(self.issuer_page("/metrics")[1])
        return sum(value for key, value in values.items() if key.split("{")[0] == name
                   and all(f'{k}="{v}"' in key for k, v in labels.items()))

    def postern(self, *words, check=True):
        """An administration command over the issuer's socket."""
        return lab.run([self.tool("postern"), *words, "--socket", self.socket], check=check)

    def pin(self):
        return self.postern("bundle", "show", "--output", "pin").stdout.split()[0]

    def put_policy(self, yaml):
        with open(self.path("policy.yaml"), "w", encoding="utf-8") as handle:
            handle.write(yaml)
        self.postern("policy", "put", self.path("policy.yaml"))

    # Workloads.
    def private_directory(self, name, uid=PROXY_UID):
        path = self.path(name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chown(path, uid, uid)
        return path

    def owned_file(self, name, text, uid=PROXY_UID):
        """A file that only the proxies' user can read."""
        path = self.path(name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="utf-8") as handle:
            handle.write(text)
        os.chown(path, uid, uid)
        return path

    def intercept_up(self, space, *flags, uid=PROXY_UID):
        return space.run(self.tool("postern"), "intercept", "up", "--proxy-uid", str(uid), *flags)

    def add_proxy(self, name, space, words, intercept=("--exclude-outbound-port", "15012"), wrap=(),
                  uid=PROXY_UID, **options):
        """Starts a proxy with interception (flags of `postern intercept up`); `words` are its
        identity flags and others, `wrap` what runs it (such as env), `options` Proxy's."""
        if intercept is not None:
            self.intercept_up(space, *intercept, uid=uid)
            mode = "tproxy" if "tproxy" in intercept else "redirect"
            words = ["--intercept", mode, *words]
        control = [] if "--admin-socket" in words else ["--admin-socket", "off"]
        command = [*wrap, self.tool("postern-proxy"), *control, *words]
        self.proxies[name] = Proxy(self, name, space, command, uid, **options)
        return self.proxies[name]

    def new_token(self, name, *entry, uid=PROXY_UID):
        """A join token for the workload `name`, in the file that its proxy reads."""
        token = self.postern("token", "create", "--spiffe-id",
                             f"spiffe://{TRUST_DOMAIN}/{name}", *entry).stdout
        return self.owned_file(f"{name}.token", token, uid)

    def add_workload(self, name, space, issuer_address, *words, entry=(), intercept=(), wrap=(),
                     uid=PROXY_UID, **options):
        """A proxy that gets its identity from the issuer by a join token."""
        return self.add_proxy(name, space, [
            "--issuer", f"{issuer_address}:15012", "--issuer-pin", self.pin(),
            "--trust-domain", TRUST_DOMAIN,
            "--join-token-file", self.new_token(name, *entry, uid=uid),
            "--state-dir", self.private_directory(f"{name}.state", uid), *words], intercept, wrap,
            uid, **options)

    def add_pair(self, client_words=(), server_words=()):
        """The two workloads of most tests: self.proxies["client"] and ["server"], both ready."""
        self.add_workload("server", self.server, "198.18.3.2", *server_words,
                          entry=["--address", SERVER[4], "--address", SERVER[6]])
        self.add_workload("client", self.client, "198.18.2.2", *client_words)
        for proxy in self.proxies.values():
            proxy.wait_ready()

    def run_words(self, name, issuer_address, label, *flags, entry=(), uid=PROXY_UID):
        """`postern run` up to its "--", as the workload `name`; the files of this run are LABEL.*."""
        self.new_token(name, *entry, uid=uid)
        os.rename(self.path(f"{name}.token"), self.path(f"{label}.run.token"))
        return [self.tool("postern"), "run", "--issuer", f"{issuer_address}:15012", "--issuer-pin",
                self.pin(), "--trust-domain", TRUST_DOMAIN, "--join-token-file",
                self.path(f"{label}.run.token"), "--state-dir",
                self.private_directory(f"{label}.state", uid), *flags]

    # Applications.
    def app(self, space, *words, **options):
        """Starts one of apps.py."""
        return self.lab.start(space, "python3", self.apps, *[str(word) for word in words], **options)

    def serve(self, kind, port, *words):
        """Starts a server of apps.py on both families in the server's namespace."""
        process = self.app(self.server, kind, port, *words, stdout=subprocess.PIPE)
        if b"listening" not in process.stdout.readline():
            raise AssertionError(f"apps.py {kind} did not start")
        return process

    def capture(self, space, device, *words, snap=65535):
        return Capture(self, space, device, words or ("tcp",), snap)

    def explain(self):
        """Prints what the programs said last; called when a test fails."""
        running = {name: proxy.process for name, proxy in self.proxies.items()}
        for name, process in {**running, "issuer": self.issuer}.items():
            if process is not None and process.poll() is not None:
                print(f"--- {name} has ended with {process.returncode}")
        for name in [*self.proxies, "issuer"]:
            print(f"--- {name}.log\n{tail(self.path(name + '.log'))}", end="", flush=True)
        for name in self.proxies:
            print(f"--- {name}.access.log\n{tail(self.path(name + '.access.log'), 5)}", end="")

    def close(self):
        self.lab.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class MeshTest(unittest.TestCase):
    """Test cases that share one mesh, made by `make_mesh`; each failure shows the programs' logs."""

    mesh = None
    # What the default mesh is made with.
    mesh_options = {}
    client_words = ()
    echo_port = None

    @classmethod
    def make_mesh(cls):
        mesh = Mesh(**cls.mesh_options)
        cls.addClassCleanup(mesh.close)
        mesh.add_pair(cls.client_words)
        if cls.echo_port is not None:
            mesh.serve("echo", cls.echo_port)
        return mesh

    @classmethod
    def setUpClass(cls):
        lab.require_root()
        cls.mesh = cls.make_mesh()

    def _callTestMethod(self, method):
        try:
            super()._callTestMethod(method)
        except unittest.SkipTest:
            raise
        except BaseException:
            self.mesh.explain()
            raise

    def proxy(self, name):
        return self.mesh.proxies[name]

    def assert_mutual_tls(self, since=0):
        """Every record of both proxies after the first `since` is mutual TLS 1.3 with both names."""
        for name, own, peer in (("client", CLIENT_ID, SERVER_ID), ("server", SERVER_ID, CLIENT_ID)):
            records = wait_until(lambda n=name: self.proxy(n).access_log()[since:], what="a record")
            for record in records:
                self.assertEqual(record["security"], "mutual_tls", record)
                self.assertEqual(record["tls_version"], "TLSv1.3", record)
                self.assertEqual((record["local_id"], record["peer_id"]), (own, peer), record)
