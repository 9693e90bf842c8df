#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How postern's cost grows with connections, workloads, endpoints and policy rules: three sizes each.

    tests/bench/growth.py --build build/release [--json FILE] [--quick] [--rounds N]
                          [--what connections,workloads,endpoints,learnt,rules]

CPU time and anonymous memory of the programs that are measured, never rates: a busy machine makes those
worthless. Each number is the median of three (--rounds), each of a fresh process. Needs root (memory of
other processes; a namespace for the endpoints), `openssl`, `ip`, `nft` and the built programs.

connections  a pair with identities from files; 50 connections work, the others are only open
workloads    the issuer with so many entries, made through its socket one after the other: its start, a
             Certify by a unix peer, one more entry
endpoints    a proxy with interception and so many addresses in --destinations: its start, and a new
             connection to a destination for the first time, again, and to one that the file has not
learnt       a proxy that asks the issuer: so many destinations outside of the mesh, one after the other for
             the first time, then some again; what it keeps of each
rules        the server side of a pair with so many rules in --policy: its start, a new connection
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "testing")]
import accounting  # noqa: E402  (found by the line above)
import backends  # noqa: E402
import lab  # noqa: E402
import machine  # noqa: E402
import pki  # noqa: E402
from loads.connections import open_and_close  # noqa: E402
from loads.memory import held_connections  # noqa: E402
from peers.base import Plan  # noqa: E402
from peers.postern import Postern  # noqa: E402
from processes import Workshop, end_on_signals, raise_descriptor_limit, wait_until  # noqa: E402
from unary_grpc import Channel, field  # noqa: E402

SIZES = {"connections": (100, 1000, 8000), "workloads": (100, 1000, 10000),
         "endpoints": (10, 1000, 10000), "learnt": (10, 1000, 10000), "rules": (10, 1000, 10000)}
QUICK = {"connections": (60, 100, 300), "workloads": (10, 100, 300), "endpoints": (10, 100, 1000),
         "learnt": (10, 50, 100), "rules": (10, 100, 1000)}
ACTIVE = 50  # connections that work
SPARE_FILES = 500
PROXY_UID = 64901  # of the proxy with interception: its loop guard
OF_ONE = 10  # addresses of one destination: a document each would be more than a file may hold
MESH_PORT, PLAIN_PORT = 15443, 9000
TITLES = {
    "cpu_us": "CPU of a small request, both proxies, us",
    "connection_kib": "memory of a connection, each proxy, KiB",
    "start_ms": "CPU of the start, ms",
    "memory_mib": "anonymous memory, MiB",
    "certify_ms": "CPU of a Certify, ms",
    "create_ms": "CPU of one more entry, ms",
    "first_ms": "new connection, destination seen for the first time: CPU, ms",
    "again_ms": "new connection, the same destinations again: CPU, ms",
    "other_ms": "new connection passed through, not in the file: CPU, ms",
    "ask_ms": "new connection passed through, the issuer asked first: CPU, ms",
    "known_ms": "new connection passed through, answer known: CPU, ms",
    "learnt_mib": "growth of anonymous memory, MiB",
    "new_ms": "new connection: CPU, ms",
}


class Bench:
    """The workshop, the certificates and how much work each number stands on."""

    def __init__(self, workshop, build, quick):
        self.workshop, self.authority = workshop, pki.Authority(workshop.directory)
        self.postern = Postern(build)
        self.amounts = {"requests": 20, "calls": 20, "dials": 20, "new": 20} if quick else \
            {"requests": 200, "calls": 200, "dials": 200, "new": 200}

    def start_cost(self, program):
        """CPU milliseconds of a start that has just ended, and then the anonymous memory in MiB."""
        spent = accounting.settled_cpu_seconds([program.pid])
        return {"start_ms": spent * 1e3,
                "memory_mib": accounting.idle_anonymous_kib([program.pid]) / 1024}

    @staticmethod
    def cpu_ms(program, count, work):
        """CPU milliseconds of each of the `count` things that work() does."""
        before = accounting.settled_cpu_seconds([program.pid])
        work()
        return (accounting.settled_cpu_seconds([program.pid]) - before) / count * 1e3


def exchange(sockets, rounds):
    """A small request on each of the connections, so many times over."""
    for _ in range(rounds):
        for sock in sockets:
            sock.sendall(b"r" * 64)
        for sock in sockets:
            wanted = 64
            while wanted:
                got = len(sock.recv(wanted))
                if not got:
                    raise SystemExit("a working connection was closed")
                wanted -= got


def connections(bench, count):
    """What a request costs among `count` connections, and what each idle one keeps."""
    with backends.echo(bench.workshop) as target, \
            bench.postern.start(bench.workshop, bench.authority,
                                Plan(target, connections=count)) as pair, \
            held_connections(pair.port, ACTIVE) as active:
        exchange(active, 20)
        before = accounting.settled_pss_kib(pair.pids, 1.0, size_of=accounting.anonymous_kib)
        with held_connections(pair.port, count - ACTIVE):
            after = accounting.settled_pss_kib(pair.pids, 1.0, size_of=accounting.anonymous_kib)
            spent = accounting.settled_cpu_seconds(pair.pids)
            exchange(active, bench.amounts["requests"])
            spent = accounting.settled_cpu_seconds(pair.pids) - spent
        pair.check_running()
    return {"cpu_us": spent / bench.amounts["requests"] / ACTIVE * 1e6,
            "connection_kib": (after - before) / (count - ACTIVE) / 2}


class Issuer:
    """An issuer whose entries grow from size to size; each measurement starts it anew."""

    def __init__(self, bench):
        self.bench, self.entries = bench, 0
        self.state = bench.workshop.path(f"issuer-{bench.workshop.free_port()}")
        os.mkdir(self.state, 0o700)
        self.socket = os.path.join(self.state, "identity.sock")
        csr = subprocess.run(
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", "/dev/null", "-subj", "/", "-outform", "DER"], check=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        self.certify_request = field(1, csr) + field(4, b"")

    def command(self, listen, admin):
        """Its command line."""
        return [self.bench.postern.tool("postern-identity"), "--trust-domain", pki.TRUST_DOMAIN,
                "--state-dir", os.path.join(self.state, "state"), "--socket", self.socket,
                "--listen", listen, "--admin", f"127.0.0.1:{admin}", "--certify-rate", "0",
                "--log-level", "warn"]

    def postern(self, *words):
        """What an administration command prints."""
        return subprocess.run([self.bench.postern.tool("postern"), *words, "--socket", self.socket],
                              check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

    @contextlib.contextmanager
    def running(self):
        """The program, once it is ready."""
        workshop, admin = self.bench.workshop, self.bench.workshop.free_port()
        program = workshop.start(
            "issuer", self.command(f"127.0.0.1:{workshop.free_port()}", admin))

        def ready():
            program.check_running()
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=20)
                with contextlib.closing(connection):
                    connection.request("GET", "/ready")
                    return connection.getresponse().status == 200
            return False
        try:
            wait_until(ready, 60, program.last_words, 0.05)
            yield program
        finally:
            workshop.stop(program)

    def create(self, channel, count):
        """So many entries more; the first is the one that we ourselves match."""
        for number in range(self.entries, self.entries + count):
            uid = 0 if number == 0 else 100000 + number
            entry = (field(2, f"spiffe://{pki.TRUST_DOMAIN}/workload/{number}")
                     + field(3, f"unix:uid:{uid}")
                     + field(4, f"198.18.{number >> 8}.{number & 255}"))
            channel.call("/postern.v1.Admin/CreateEntry", field(1, entry))
        self.entries += count

    def certify(self, channel, count):
        """So many certificates for us."""
        for _ in range(count):
            channel.call("/postern.v1.Identity/Certify", self.certify_request)


def workloads(bench, issuer, count):
    """A start of the issuer with `count` entries, a Certify, and an entry more (a few, then)."""
    calls = bench.amounts["calls"]
    if issuer.entries < count:
        with issuer.running(), Channel(issuer.socket) as channel:
            issuer.create(channel, count - issuer.entries)
    with issuer.running() as program:
        found = bench.start_cost(program)
        with Channel(issuer.socket) as channel:
            issuer.certify(channel, 10)
            found["certify_ms"] = bench.cpu_ms(program, calls,
                                               lambda: issuer.certify(channel, calls))
            few = max(5, calls // 10)
            found["create_ms"] = bench.cpu_ms(program, few, lambda: issuer.create(channel, few))
    return found


def listed(number):
    """The address of one destination."""
    return f"198.18.{100 + number // 200}.{1 + number % 200}"


class Roads:
    """Two namespaces: the proxy that is measured, and behind it the server's side and an echo."""

    def __init__(self, bench, stack):
        self.bench, self.lab = bench, stack.enter_context(lab.Lab())
        self.near, self.far = self.lab.namespace("near"), self.lab.namespace("far")
        self.lab.join(self.near, self.far, 1)
        self.near.run("ip", "route", "add", "default", "via", "198.18.1.2")
        self.far.run("ip", "route", "add", "local", "198.18.100.0/22", "dev", "lo")
        self.far.run("ip", "route", "add", "local", "198.18.104.0/21", "dev", "lo")
        self.far.run("ip", "route", "add", "local", "198.18.112.0/20", "dev", "lo")
        self.far.run("ip", "route", "add", "local", "198.18.128.0/19", "dev", "lo")
        self.near.run(bench.postern.tool("postern"), "intercept", "up", "--proxy-uid",
                      str(PROXY_UID), "--no-inbound")
        authority = bench.authority
        # The proxy takes a key of its own user only, and the other proxies are not of that user.
        self.near_key = bench.workshop.path("near.key")
        if not os.path.exists(self.near_key):
            shutil.copy(authority.client.key, self.near_key)
            os.chown(self.near_key, PROXY_UID, PROXY_UID)
        self.lab.start(self.far, sys.executable, "-c", _ECHO, str(PLAIN_PORT))
        self.start(self.far, None, authority.server.cert, authority.server.key, "--tunnel",
                   f"inbound,listen=198.18.1.2:{MESH_PORT},target=127.0.0.1:{PLAIN_PORT},"
                   f"peer={authority.client.spiffe_id}")
        lab.wait_until(lambda: self._answers(MESH_PORT) and self._answers(PLAIN_PORT), 20,
                       "the server's side")

    def _answers(self, port):
        with contextlib.suppress(OSError), contextlib.closing(
                self.far.connect("198.18.1.2", port)):
            return True
        return False

    def start(self, space, uid, svid, key, *words):
        """A proxy in a namespace."""
        return self.lab.start(space, self.bench.postern.program, "--svid", svid, "--svid-key", key,
                              "--bundle", self.bench.authority.root, "--access-log", "off",
                              "--log-level", "warn", "--resumption", "false", *words, uid=uid)

    @contextlib.contextmanager
    def proxy(self, count):
        """A running proxy with interception and `count` destinations."""
        path = self.bench.workshop.write(f"destinations-{count}.yaml", "".join(
            "---\napiVersion: postern.dev/v1\nkind: Destination\nmetadata: "
            f"{{name: d{start}}}\nspec: {{addresses: "
            f"[{', '.join(listed(number) for number in range(start, start + OF_ONE))}], "
            f"ports: [80], spiffeIds: [\"{self.bench.authority.server.spiffe_id}\"], "
            f"connectTo: \"198.18.1.2:{MESH_PORT}\"}}\n" for start in range(0, count, OF_ONE)))
        process = self.start(self.near, PROXY_UID, self.bench.authority.client.cert, self.near_key,
                             "--intercept", "redirect", "--destinations", path)
        with self._ready_and_stopped(process):
            yield process

    @contextlib.contextmanager
    def asking_proxy(self):
        """A running proxy with interception that asks an issuer in the far namespace."""
        issuer = Issuer(self.bench)
        serving = self.lab.start(self.far, *issuer.command("198.18.1.2:15012", 15014))
        try:
            lab.wait_until(lambda: serving.poll() is None and self._answers(15012), 20, "the issuer")
            state, token = issuer.state + ".proxy", issuer.state + ".token"
            os.mkdir(state, 0o700)
            text = issuer.postern("token", "create", "--spiffe-id",
                                  f"spiffe://{pki.TRUST_DOMAIN}/asks")
            with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
                out.write(text)
            for path in (state, token):
                os.chown(path, PROXY_UID, PROXY_UID)
            process = self.lab.start(
                self.near, self.bench.postern.program, "--issuer", "198.18.1.2:15012",
                "--issuer-pin", issuer.postern("bundle", "show", "--output", "pin").split()[0],
                "--trust-domain", pki.TRUST_DOMAIN, "--join-token-file", token, "--state-dir", state,
                "--access-log", "off", "--log-level", "warn", "--intercept", "redirect",
                uid=PROXY_UID)
            with self._ready_and_stopped(process):
                yield process
        finally:
            self.lab.stop(serving, how=signal.SIGKILL)

    @contextlib.contextmanager
    def _ready_and_stopped(self, process):
        try:
            lab.wait_until(lambda: process.poll() is not None or self._ready(), 60, "the proxy")
            if process.poll() is not None:
                raise SystemExit(f"the proxy ended with {process.returncode}")
            yield
        finally:
            self.lab.stop(process, how=signal.SIGKILL)

    def _ready(self):
        with contextlib.suppress(OSError), contextlib.closing(
                self.near.connect("127.0.0.1", 15020)) as sock:
            sock.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            return b" 200 " in sock.recv(64)
        return False

    def dial(self, address, port):
        """A connection of the application's, with a byte there and back."""
        with contextlib.closing(self.near.connect(address, port)) as sock:
            sock.sendall(b"x")
            if sock.recv(1) != b"x":
                raise SystemExit(f"{address}:{port} carried nothing")


_ECHO = """import asyncio, sys
async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()
async def serve():
    server = await asyncio.start_server(echo, "0.0.0.0", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()
asyncio.run(serve())
"""


def endpoints(bench, roads, count):
    """A proxy's start with `count` destinations, and what new connections cost it."""
    dials = min(bench.amounts["dials"], count)
    # Spread over the file: the last is as good as the first.
    chosen = [listed(step * count // dials) for step in range(dials)]
    with roads.proxy(count) as program:
        found = bench.start_cost(program)
        for _ in range(5):
            roads.dial("198.18.1.2", PLAIN_PORT)

        def all_of_them():
            for address in chosen:
                roads.dial(address, 80)
        found["first_ms"] = bench.cpu_ms(program, dials, all_of_them)
        found["again_ms"] = bench.cpu_ms(program, dials, all_of_them)
        others = bench.amounts["dials"]
        found["other_ms"] = bench.cpu_ms(program, others, lambda: [
            roads.dial("198.18.1.2", PLAIN_PORT) for _ in range(others)])
    return found


def learnt(bench, roads, count):
    """A proxy's CPU for destinations that it asks the issuer about, and what it keeps of them."""
    again = min(bench.amounts["dials"], count)
    with roads.asking_proxy() as program:
        roads.dial("198.18.1.2", PLAIN_PORT)
        before = accounting.idle_anonymous_kib([program.pid])
        found = {"ask_ms": bench.cpu_ms(program, count, lambda: [
            roads.dial(listed(number), PLAIN_PORT) for number in range(count)])}
        found["learnt_mib"] = (accounting.idle_anonymous_kib([program.pid]) - before) / 1024
        found["known_ms"] = bench.cpu_ms(program, again, lambda: [
            roads.dial(listed(number * count // again), PLAIN_PORT) for number in range(again)])
    return found


class WithPolicy(Postern):
    """Postern whose server side has a policy file."""

    def __init__(self, build, policy):
        super().__init__(build)
        self._policy = policy

    def command(self, workshop, side):
        words, options = super().command(workshop, side)
        return words if side.is_client else [*words, "--policy", self._policy], options


def rules(bench, count):
    """The server side's start with `count` rules, the last of which lets our client in."""
    own = bench.authority.client.spiffe_id
    names = [f"spiffe://{pki.TRUST_DOMAIN}/caller/{number}" for number in range(count - 1)] + [own]
    policy = bench.workshop.write(f"policy-{count}.yaml", "".join(
        f"---\napiVersion: postern.dev/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{start}}}\n"
        "spec:\n  action: ALLOW\n  rules:\n"
        + "".join(f"  - from: [{{spiffeIds: [\"{name}\"]}}]\n" for name in names[start:start + 500])
        for start in range(0, count, 500)))
    new = bench.amounts["new"]
    with backends.echo(bench.workshop) as target, \
            WithPolicy(bench.postern.build, policy).start(bench.workshop, bench.authority,
                                                          Plan(target)) as pair:
        found = bench.start_cost(pair.server)
        open_and_close(pair.port, 20)
        found["new_ms"] = bench.cpu_ms(pair.server, new, lambda: open_and_close(pair.port, new))
        pair.check_running()
    return found


def measure(bench, stack, what, counts, rounds):
    """{size: {key: samples}}; sizes take turns, except where entries only ever become more."""
    found = {count: {} for count in counts}

    def add(count, sample):
        for key, value in sample.items():
            found[count].setdefault(key, []).append(value)
        print(f"{what} {count}: " + ", ".join(f"{key} {value:.3f}" for key, value in sample.items()),
              file=sys.stderr)
    if what == "workloads":
        issuer = Issuer(bench)
        for count in counts:
            for _ in range(rounds):
                add(count, workloads(bench, issuer, count))
        return found
    kinds, roads = {"connections": connections, "rules": rules}, None
    if what in ("endpoints", "learnt"):
        roads = Roads(bench, stack)
        kinds = {"endpoints": lambda bench, count: endpoints(bench, roads, count),
                 "learnt": lambda bench, count: learnt(bench, roads, count)}
    for _ in range(rounds):
        for count in counts:
            add(count, kinds[what](bench, count))
    if roads is not None:
        roads.lab.close()
    return found


def show(what, found):
    """A table: the median, and in brackets the smallest and the largest."""
    counts = list(found)
    print(f"\n| {what} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for key in found[counts[0]]:
        cells = []
        for count in counts:
            samples = found[count][key]
            cells.append(f"{statistics.median(samples):.3g} ({min(samples):.3g} to {max(samples):.3g})")
        print(f"| {TITLES[key]} | " + " | ".join(cells) + " |")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it work?")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--what", default="connections,workloads,endpoints,learnt,rules")
    words = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    end_on_signals()
    most = (raise_descriptor_limit() - SPARE_FILES) // 2
    rounds = words.rounds or (1 if words.quick else 3)
    everything = {}
    with Workshop() as workshop, contextlib.ExitStack() as stack:
        bench = Bench(workshop, words.build, words.quick)
        heading = machine.heading([bench.postern])
        for what in words.what.split(","):
            counts = (QUICK if words.quick else SIZES)[what]
            if what == "connections":
                counts = sorted({min(count, most) for count in counts})
            everything[what] = measure(bench, stack, what, counts, rounds)
    for key, value in heading.items():
        print(f"{key}: {value}")
    for what, found in everything.items():
        show(what, found)
    if words.json:
        with open(words.json, "w", encoding="utf-8") as out:
            json.dump({"heading": heading, **everything}, out, indent=1)
            out.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
