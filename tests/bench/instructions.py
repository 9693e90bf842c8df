#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions that a small request and a new connection cost a pair of proxies (callgrind).

  instructions.py --build build/release
  instructions.py --workers 1 2         also compares the counts of one worker and of two
  instructions.py --top 40 --json FILE  a longer list of functions; everything as JSON as well

A real pair stands between a client and an HTTP server of this script on 127.0.0.1: an outbound and an
inbound tunnel, identities from files, the access log into a file. Three runs are compared: one, one with
more requests on its kept connections, one with more connections of one request each. What is in all of
them, start and end above all, cancels. Callgrind sees user space alone, not the kernel, and a processor
without the newest instructions, so cryptography counts for more than on the real one.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "e2e"), os.path.join(HERE, "..", "testing"), HERE]

import callgrind  # noqa: E402
import pki  # noqa: E402

TRUST_DOMAIN = "bench.test"
SIDES = ("client", "server")
BODY = b"x" * 100
RESPONSE = (b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
            % len(BODY)) + BODY
REQUEST = (b"GET /small HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n")
START_LIMIT = 90  # seconds: callgrind is some fifty times slower
STOP_LIMIT = 60
KEPT = 8          # connections that carry the requests in turn

# Functions that belong to metrics and access log, and the files that are inlined into others. Atomics
# inside functions of ours are nearly all counters: all of them are taken for such.
TELEMETRY = re.compile(
    r"postern::telemetry::|postern::session::Session::(Record|MakeRecord|CountEnd|DestinationText)\b")
SYSTEM_CALLS = ("recv", "send", "read", "write", "epoll_wait", "epoll_pwait", "epoll_ctl", "accept4",
                "connect", "socket", "close", "shutdown", "getsockopt", "setsockopt", "getsockname",
                "getpeername", "fcntl", "fcntl64", "ioctl", "getrandom", "clock_gettime", "malloc")


def is_telemetry(function):
    return TELEMETRY.search(function) is not None


def is_ours(function):
    return "postern::" in function


def is_inlined_telemetry(function, file):
    return ("proxy/telemetry/" in file
            or (function.startswith("postern::") and file.endswith("/atomic_base.h")))


class HttpServer:
    """Answers every request on every connection with the same small response."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    @staticmethod
    def _serve(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), contextlib.closing(sock):
            got = b""
            while data := sock.recv(65536):
                got += data
                while b"\r\n\r\n" in got:
                    got = got.partition(b"\r\n\r\n")[2]
                    sock.sendall(RESPONSE)

    def close(self):
        self._listener.close()


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request(sock):
    sock.sendall(REQUEST)
    got = b""
    while len(got) < len(RESPONSE):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(f"ended after {len(got)} of {len(RESPONSE)} bytes")
        got += data
    if got != RESPONSE:
        raise ConnectionError("not the response that the server gave")


def end(sock):
    """Ends properly, and waits until the other side has ended too: then everything is counted."""
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1) != b"":
        raise ConnectionError("bytes behind the response")
    sock.close()


def one_after_another(port, count):
    for _ in range(count):
        sock = connect(port)
        request(sock)
        end(sock)


def await_listener(port, process):
    """A refused connection costs the proxy nothing, an accepted one would: so /proc is asked."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + START_LIMIT
    while True:
        with open("/proc/net/tcp", encoding="ascii") as table:
            if wanted in table.read():
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the proxy did not start (status {process.poll()})")
        time.sleep(0.05)


def free_ports(count):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


class Pair:
    """Two proxies under callgrind. Ended and removed by close, whatever happened."""

    def __init__(self, options, workers, directory, backend_port):
        self._options, self._workers, self._directory = options, workers, directory
        self._processes = {}
        self.port, inner, *pages = free_ports(6)
        words = {"client": f"outbound,listen=127.0.0.1:{self.port},target=127.0.0.1:{inner},"
                           f"peer=spiffe://{TRUST_DOMAIN}/server",
                 "server": f"inbound,listen=127.0.0.1:{inner},target=127.0.0.1:{backend_port},"
                           f"peer=spiffe://{TRUST_DOMAIN}/client"}
        try:
            self._start("server", words["server"], pages[:2])
            self._start("client", words["client"], pages[2:])
            await_listener(inner, self._processes["server"])
            await_listener(self.port, self._processes["client"])
        except BaseException:
            self.close()
            raise

    def _path(self, name):
        return os.path.join(self._directory, name)

    def _start(self, side, tunnel, pages):
        command = ["valgrind", "-q", *callgrind.FLAGS,
                   f"--callgrind-out-file={self._path(side + '.callgrind')}",
                   os.path.join(self._options.build, "bin", "postern-proxy"),
                   "--svid", self._path(f"ca.{side}.pem"), "--svid-key", self._path(f"ca.{side}.key"),
                   "--bundle", self._path("ca.root.pem"), "--tunnel", tunnel,
                   "--admin", f"127.0.0.1:{pages[0]}", "--metrics", f"127.0.0.1:{pages[1]}",
                   "--admin-socket", "off", "--workers", str(self._workers),
                   "--access-log", "off" if self._options.no_access_log
                   else self._path(f"{side}.access.log"),
                   "--handshake-timeout", "60s", "--connect-timeout", "60s",
                   "--drain-delay", "0s", "--drain-timeout", "20s",
                   *[f"--{flag}" for flag in self._options.flag]]
        with open(self._path(f"{side}.log"), "wb") as log:
            self._processes[side] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                     stderr=log)

    def finish(self):
        """Ends both and returns {side: Profile}."""
        profiles = {}
        for side in SIDES:
            process = self._processes[side]
            process.send_signal(signal.SIGTERM)
            if process.wait(timeout=STOP_LIMIT) != 0:
                raise RuntimeError(f"{side} ended with {process.returncode}: {self.log(side)}")
            profiles[side] = callgrind.read_file(self._path(side + ".callgrind"))
        return profiles

    def log(self, side):
        with open(self._path(f"{side}.log"), encoding="utf-8", errors="replace") as handle:
            return handle.read()[-2000:]

    def close(self):
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def run(options, workers, requests, connections):
    """One run of a pair: {side: Profile}."""
    directory = tempfile.mkdtemp(prefix="postern-instructions-")
    server = HttpServer()
    try:
        authority = pki.Authority(directory, "ca")
        for side in SIDES:
            authority.issue(side, f"spiffe://{TRUST_DOMAIN}/{side}")
        pair = Pair(options, workers, directory, server.port)
        with contextlib.closing(pair):
            kept = [connect(pair.port) for _ in range(KEPT)]
            for i in range(requests):
                request(kept[i % KEPT])
            one_after_another(pair.port, connections)
            for sock in kept:
                end(sock)
            return pair.finish()
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


def difference(more, base, count):
    """What one of `count` costs, {side: Counts}, with "pair" for both sides together."""
    found = {side: more[side].minus(base[side]) for side in SIDES}
    found["pair"] = found["client"].plus(found["server"])
    return {side: describe(profile, count) for side, profile in found.items()}


def module_of(binary, function):
    if not binary.startswith("postern"):
        return binary
    found = re.match(r"(postern::\w+|absl|grpc\w*)::", function)
    return found.group(1) if found else "postern, other"


def describe(profile, count):
    modules = collections.Counter()
    for (binary, function), cost in profile.by_function().items():
        modules[module_of(binary, function)] += cost
    functions = [{"function": function, "object": binary, "instructions": cost / count}
                 for (binary, function), cost in profile.by_function().most_common()
                 if cost >= count]
    telemetry = profile.below(is_telemetry, is_inlined_telemetry)
    calls = profile.calls_of()
    leaving = [{"from": edge[0], "to": edge[1], "calls": profile.calls[edge] / count,
                "instructions": cost / count}
               for edge, cost in profile.leaving(is_ours).most_common() if cost >= count]
    return {"instructions": profile.total / count,
            "telemetry": telemetry / count,
            "telemetry_share": telemetry / profile.total,
            "modules": {name: cost / count for name, cost in modules.most_common() if cost >= count},
            "calls": {name: calls[name] / count for name in SYSTEM_CALLS if calls[name] > 0},
            "leaving": leaving,
            "functions": functions}


def measure(options, workers):
    """{"request": ..., "connection": ...}, each as `difference` gives it."""
    few = 2 * KEPT  # each kept connection is warm
    base = run(options, workers, few, 2)
    result = {"request": difference(run(options, workers, few + options.requests, 2), base,
                                    options.requests)}
    if options.connections > 0:
        result["connection"] = difference(run(options, workers, few, 2 + options.connections), base,
                                          options.connections)
    return result


TITLES = {"request": "a small request on a kept connection",
          "connection": "a new connection with one small request (full handshake, and its end)"}


def shorten(name, width=78):
    name = re.sub(r"\(.*\)( const)?", "()", name)
    return name if len(name) <= width else name[:width - 2] + ".."


def print_table(kind, sides, top):
    print(f"\n{TITLES[kind]}: instructions\n")
    print(f"{'':34} {'client side':>12} {'server side':>12} {'both':>12}")
    rows = [("all", "instructions"), ("metrics and access log", "telemetry")]
    for label, key in rows:
        print(f"{label:34}" + "".join(f" {sides[s][key]:12.0f}" for s in (*SIDES, "pair")))
    print(f"{'  share':34}"
          + "".join(f" {100 * sides[s]['telemetry_share']:11.2f}%" for s in (*SIDES, "pair")))
    for group in ("modules", "calls"):
        print(f"\n{'by module' if group == 'modules' else 'calls'}")
        for name in sides["pair"][group]:
            print(f"{name:34}"
                  + "".join(f" {sides[s][group].get(name, 0):12.1f}" for s in (*SIDES, "pair")))
    print(f"\nthe {top} functions with the most instructions of their own, both sides")
    for entry in sides["pair"]["functions"][:top]:
        print(f"{entry['instructions']:12.0f}  {shorten(entry['function'])} [{entry['object']}]")
    print(f"\nthe {top} dearest calls out of our code, with all that is below them, both sides")
    for entry in sides["pair"]["leaving"][:top]:
        print(f"{entry['instructions']:12.0f}  {entry['calls']:6.1f} x {shorten(entry['to'], 34)}"
              f"  from {shorten(entry['from'], 60)}")


def compare(results):
    """Prints how each number of workers differs from the first."""
    (first, base), *others = results.items()
    for workers, result in others:
        for kind in result:
            old, new = (r[kind]["pair"]["instructions"] for r in (base, result))
            print(f"\n{TITLES[kind]}: {workers} workers {new:.0f}, {first} worker {old:.0f} "
                  f"instructions: {100 * (new / old - 1):+.1f} %")


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--requests", type=int, default=400, help="more requests of the second run")
    parser.add_argument("--connections", type=int, default=40,
                        help="more connections of the third run; 0 leaves it out")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--no-access-log", action="store_true")
    parser.add_argument("--flag", action="append", default=[], metavar="NAME=VALUE",
                        help="one more flag of both proxies, without its dashes; repeatable")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--json", metavar="FILE", help="also writes everything there")
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    if shutil.which("valgrind") is None:
        sys.exit("instructions.py: valgrind is not installed: deploy/packages.sh install bench")
    if not os.path.exists(os.path.join(options.build, "bin", "postern-proxy")):
        sys.exit(f"instructions.py: {options.build}/bin/postern-proxy is not built")
    results = {workers: measure(options, workers) for workers in options.workers}
    for workers, result in results.items():
        print(f"\n== {workers} worker{'s' if workers > 1 else ''}")
        for kind, sides in result.items():
            print_table(kind, sides, options.top)
    compare(results)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as handle:
            json.dump(results, handle, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
