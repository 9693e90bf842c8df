#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one postern-proxy costs to start and to keep: time to ready, idle memory, memory per connection.

    tests/bench/footprint.py --build build/release [--json FILE] [--starts N] [--connections N,N]
                             [--what start,idle,connections] [--env NAME=VALUE]...

Needs root, because a proxy's memory is hidden from everybody else, and nothing but the standard
library, `openssl` and the built programs. Everything is on 127.0.0.1 and ends with the script.

start        exec to "/ready answers 200", with identity from files and from an issuer that is up: with
             a join token (first start) and with a state directory (any later start)
idle         after two quiet seconds: PSS, its anonymous part, private dirty pages, threads. The issuer
             runs on copies of its libraries: pages that two programs share count half for each.
connections  growth of PSS for each idle connection of a pair of proxies, each side by itself. Each
             connection has carried one byte each way before it is idle.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import resource
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "e2e"), os.path.join(HERE, "..", "testing")]
import pki  # noqa: E402  (found by the line above)

TRUST_DOMAIN = "bench.test"
QUIET = 2.0  # seconds until a process counts as idle
POLL = 0.002  # each question costs the proxy a fraction of a millisecond
READY_LIMIT = 20.0
SPARE_FILES = 1000  # beside two for each connection
BATCH = 50  # connections that shake hands at the same time


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def http_status(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        return reply.status


class Program:
    """A process that ends with the block it was made in."""

    def __init__(self, stack, words, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.began = time.monotonic()
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=env)
        stack.callback(self.stop)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait_ready(self, port):
        """Milliseconds from exec to the first 200 of /ready."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if http_status(port, "/ready") == 200:
                    return (time.monotonic() - self.began) * 1000
            if self.process.poll() is not None or time.monotonic() - self.began > READY_LIMIT:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise SystemExit(f"not ready:\n{log.read()}")
            time.sleep(POLL)

    def cpu_ms(self):
        """Milliseconds of processor time of the threads that live; what a busy machine does not change."""
        spent = 0
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                spent += int(stat.read().split()[0])
        return spent / 1e6

    def memory(self):
        """Bytes by their name in smaps_rollup, and the number of threads."""
        facts = {}
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as rollup:
            for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", rollup.read(), re.MULTILINE):
                facts[name] = int(kilobytes) * 1024
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            threads = int(re.search(r"^Threads:\s+(\d+)$", status.read(), re.MULTILINE).group(1))
        return {"pss": facts["Pss"], "pss_anon": facts["Pss_Anon"], "rss": facts["Rss"],
                "private_dirty": facts["Private_Dirty"], "threads": threads}


class Bench:
    """Certificates, an issuer when asked for, and proxies, in one temporary directory."""

    def __init__(self, stack, build, env):
        self.stack = stack
        self.bin = os.path.join(build, "bin")
        self.env = {**os.environ, **env}
        self.directory = tempfile.mkdtemp(prefix="pstn-footprint-")
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        authority = pki.Authority(self.directory, "root")
        self.bundle = authority.root
        self.svid, self.key = authority.issue("svid", f"spiffe://{TRUST_DOMAIN}/bench")
        self.count = 0
        self.issuer_port = None

    def path(self, name):
        return os.path.join(self.directory, name)

    def from_files(self):
        return ["--svid", self.svid, "--svid-key", self.key, "--bundle", self.bundle]

    def proxy(self, stack, identity, *words):
        """A started proxy and its port of /ready."""
        port = free_port()
        self.count += 1
        command = [os.path.join(self.bin, "postern-proxy"), *identity, "--access-log", "off",
                   "--admin", f"127.0.0.1:{free_port()}", "--metrics", f"127.0.0.1:{port}", *words]
        return Program(stack, command, self.path(f"proxy{self.count}.log"), self.env), port

    # The issuer.
    def start_issuer(self):
        libraries = self.path("lib")
        os.mkdir(libraries)
        program = os.path.join(self.bin, "postern-identity")
        listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"=> (/\S+)", listed):
            shutil.copy(library, libraries)
        self.issuer_port, admin = free_port(), free_port()
        issuer = Program(self.stack, [
            program, "--trust-domain", TRUST_DOMAIN, "--state-dir", self.path("issuer"), "--listen",
            f"127.0.0.1:{self.issuer_port}", "--admin", f"127.0.0.1:{admin}", "--socket",
            self.path("identity.sock")], self.path("issuer.log"),
            {**os.environ, "LD_LIBRARY_PATH": libraries})
        issuer.wait_ready(admin)
        self.pin = self.postern("bundle", "show", "--output", "pin").split()[0]

    def postern(self, *words):
        return subprocess.run([os.path.join(self.bin, "postern"), *words, "--socket",
                               self.path("identity.sock")], check=True, capture_output=True,
                              text=True).stdout

    def from_issuer(self, state):
        """Flags of a workload with a state directory and a join token of its own."""
        directory, token = self.path(state), self.path(f"{state}.token")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        words = ["--issuer", f"127.0.0.1:{self.issuer_port}", "--issuer-pin", self.pin,
                 "--trust-domain", TRUST_DOMAIN, "--state-dir", directory]
        text = self.postern("token", "create", "--spiffe-id", f"spiffe://{TRUST_DOMAIN}/{state}")
        with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
            out.write(text)
        return [*words, "--join-token-file", token]

    # The measurements.
    def inbound(self):
        return f"inbound,listen=127.0.0.1:{free_port()},target=127.0.0.1:9,peer=spiffe://{TRUST_DOMAIN}/*"

    def time_start(self, identity):
        with contextlib.ExitStack() as stack:
            program, port = self.proxy(stack, identity, "--tunnel", self.inbound())
            return program.wait_ready(port), program.cpu_ms()

    def starts(self, rounds):
        spread = {"files": [], "issuer_first": [], "issuer_again": []}
        for number in range(rounds):
            spread["files"].append(self.time_start(self.from_files()))
            words = self.from_issuer(f"start{number}")
            spread["issuer_first"].append(self.time_start(words))
            spread["issuer_again"].append(self.time_start(words))
        found = {}
        for name, measured in spread.items():
            times, spent = zip(*measured)
            found[name] = {"median_ms": statistics.median(times), "min_ms": min(times),
                           "max_ms": max(times), "cpu_median_ms": statistics.median(spent)}
        return found

    def idle(self, identity):
        with contextlib.ExitStack() as stack:
            program, port = self.proxy(stack, identity, "--tunnel", self.inbound())
            program.wait_ready(port)
            time.sleep(QUIET)
            return program.memory()

    def connections(self, counts):
        """PSS growth per connection of a pair, by number of connections and side."""
        found = {}
        with contextlib.ExitStack() as stack:
            listen, mesh = free_port(), free_port()
            target = Echo(stack)
            peer = f"peer=spiffe://{TRUST_DOMAIN}/*"
            pair = {}
            for side, tunnel in (
                    ("server", f"inbound,listen=127.0.0.1:{mesh},target=127.0.0.1:{target.port},{peer}"),
                    ("client", f"outbound,listen=127.0.0.1:{listen},target=127.0.0.1:{mesh},{peer}")):
                pair[side], ready = self.proxy(stack, self.from_files(), "--tunnel", tunnel)
                pair[side].wait_ready(ready)
            target.hold(listen, BATCH)  # what is made once is there before
            time.sleep(QUIET)
            before = {side: proxy.memory() for side, proxy in pair.items()}
            for count in counts:
                target.hold(listen, count)
                time.sleep(QUIET)
                after = {side: proxy.memory() for side, proxy in pair.items()}
                found[count] = {side: (after[side]["pss"] - before[side]["pss"]) / (count - BATCH)
                                for side in pair}
            target.drop()
            time.sleep(QUIET * 4)  # until the last has ended, and the next look at the heap
            found["pss_after_all_have_ended"] = {side: proxy.memory()["pss"]
                                                 for side, proxy in pair.items()}
        return found


class Echo:
    """A client and the echo server that it reaches through the pair, in this process."""

    def __init__(self, stack):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.clients, self.accepted = [], []
        stack.callback(self.drop)
        stack.callback(self.listener.close)

    def hold(self, port, count):
        """Opens connections until `count` are open; each carries a byte there and back."""
        while len(self.clients) < count:
            batch = [socket.create_connection(("127.0.0.1", port), timeout=20)
                     for _ in range(min(BATCH, count - len(self.clients)))]
            for sock in batch:
                sock.sendall(b"?")
            self.listener.settimeout(20)
            for _ in batch:
                sock, _ = self.listener.accept()
                sock.settimeout(20)
                sock.sendall(sock.recv(1))
                self.accepted.append(sock)
            for sock in batch:
                if sock.recv(1) != b"?":
                    raise SystemExit("a connection through the pair did not echo")
            self.clients += batch

    def drop(self):
        for sock in self.clients + self.accepted:
            sock.close()
        self.clients, self.accepted = [], []


def within_limit(counts):
    """Raises the limit of open files, or lowers the counts to what it allows and says so."""
    wanted = max(counts) * 2 + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return counts
        most = (hard - SPARE_FILES) // 2
        print(f"the limit of {hard} open files allows {most} connections", file=sys.stderr)
        counts = [min(count, most) for count in counts]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted)), hard))
    return counts


def show(found):
    for name, times in found.get("start", {}).items():
        print(f"start {name:14} median {times['median_ms']:7.1f} ms   min {times['min_ms']:.1f}"
              f"   max {times['max_ms']:.1f}   processor {times['cpu_median_ms']:.1f} ms")
    for name, facts in found.get("idle", {}).items():
        mebibytes = ", ".join(f"{key} {facts[key] / (1 << 20):.2f} MiB"
                              for key in ("pss", "pss_anon", "private_dirty", "rss"))
        print(f"idle {name:15} {mebibytes}, {facts['threads']} threads")
    for count, sides in found.get("connections", {}).items():
        unit = (1 << 20, "MiB") if isinstance(count, str) else (1 << 10, "KiB each")
        print(f"connections {count}: "
              + ", ".join(f"{side} {size / unit[0]:.2f} {unit[1]}" for side, size in sides.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--connections", default="1000,10000")
    parser.add_argument("--what", default="start,idle,connections")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="for the proxies alone")
    words = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, to read a proxy's memory")
    counts = within_limit([int(count) for count in words.connections.split(",")])
    what, found = words.what.split(","), {}
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, words.build, dict(pair.split("=", 1) for pair in words.env))
        if "start" in what or "idle" in what:
            bench.start_issuer()
        if "start" in what:
            found["start"] = bench.starts(words.starts)
        if "idle" in what:
            found["idle"] = {"files": bench.idle(bench.from_files()),
                             "issuer": bench.idle(bench.from_issuer("idle"))}
        if "connections" in what:
            found["connections"] = bench.connections(counts)
    show(found)
    if words.json:
        with open(words.json, "w", encoding="utf-8") as out:
            json.dump(found, out, indent=1)
            out.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
