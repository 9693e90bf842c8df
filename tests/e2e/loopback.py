# SPDX-License-Identifier: Apache-2.0
"""The built programs on 127.0.0.1, for what needs neither addresses nor rules: no root, no namespace."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

import lab
from harness import parse_metrics, tail
from lab import wait_until

BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))


def tool(program):
    return os.path.join(BUILD, "bin", program)


_given_ports = set()


def free_port():
    """A port that nobody has, and that this did not give before: who got it may not have bound it yet."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port


class Program:
    """One daemon and its log, ended with the test case."""

    metrics_port = None

    def __init__(self, case, name, command):
        self.name, self.command = name, [str(word) for word in command]
        self.log_path = case.path(f"{name}.log")
        self.process = None
        case.addCleanup(self.stop)

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        return self

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as handle:
            return handle.read()

    def get(self, path, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.metrics_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n"
                                 + tail(self.log_path))
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def wait_ready(self, timeout=20):
        wait_until(self.is_ready, timeout, lambda: f"{self.name} ready\n{tail(self.log_path)}")
        return self

    def metric(self, name, **labels):
        """The sum over all series of `name` that carry these labels."""
        return sum(value for key, value in parse_metrics(self.get("/metrics")[1]).items()
                   if key.split("{")[0] == name
                   and all(f'{k}="{v}"' in key for k, v in labels.items()))


class Issuer(Program):
    """postern-identity; `postern` runs a verb of the command line on it."""

    def __init__(self, case, trust_domain, *words):
        self.port, self.metrics_port = free_port(), free_port()
        self.trust_domain, self.socket = trust_domain, case.path("identity.sock")
        super().__init__(case, "issuer", [
            tool("postern-identity"), "--trust-domain", trust_domain, "--state-dir",
            case.path("issuer"), "--listen", f"127.0.0.1:{self.port}", "--admin",
            f"127.0.0.1:{self.metrics_port}", "--socket", self.socket, *words])

    def postern(self, *words, check=True, **options):
        return lab.run([tool("postern"), *words, "--socket", self.socket], check=check, **options)

    def flags(self):
        """What a proxy needs to know this issuer."""
        pin = self.postern("bundle", "show", "--output", "pin").stdout.split()[0]
        return ["--issuer", f"127.0.0.1:{self.port}", "--issuer-pin", pin, "--trust-domain",
                self.trust_domain]

    def refused(self, reason):
        return self.metric("postern_issuer_refused_total", reason=reason)

    def issued(self, evidence):
        return self.metric("postern_issuer_certificates_issued_total", evidence=evidence)


class Proxy(Program):
    """postern-proxy with tunnels."""

    def __init__(self, case, name, *words):
        self.admin_port, self.metrics_port = free_port(), free_port()
        self.access_path = case.path(f"{name}.access.log")
        super().__init__(case, name, [
            tool("postern-proxy"), "--admin", f"127.0.0.1:{self.admin_port}", "--metrics",
            f"127.0.0.1:{self.metrics_port}", "--admin-socket", "off", "--access-log",
            self.access_path, *words])

    def failures(self):
        return json.loads(self.get("/failures", self.admin_port)[1])

    def access_log(self):
        with contextlib.suppress(FileNotFoundError), open(self.access_path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
        return []


class LoopbackTest(unittest.TestCase):
    """A directory for each test case, and the logs of what ran in it when it fails."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="pstn-loop-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.programs = []

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, program):
        self.programs.append(program)
        return program.start()

    def application(self, handle):
        """The port of an application that calls `handle` with one connection at a time, then ends it."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        handle(connection)
        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    def echo(self):
        """The port of an application that sends back what it gets."""
        def send_back(connection):
            while data := connection.recv(65536):
                connection.sendall(data)
        return self.application(send_back)

    def _callTestMethod(self, method):
        try:
            super()._callTestMethod(method)
        except unittest.SkipTest:
            raise
        except BaseException:
            for program in self.programs:
                print(f"--- {program.name}\n{tail(program.log_path)}", end="", flush=True)
            raise


def exchange(port, data=b"hello\n", timeout=5.0):
    """What comes back through a tunnel; b"" when the connection is refused or reset."""
    with contextlib.suppress(OSError), \
            contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout)) as sock:
        sock.sendall(data)
        sock.settimeout(timeout)
        return sock.recv(65536)
    return b""
