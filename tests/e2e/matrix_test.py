# SPDX-License-Identifier: Apache-2.0
"""Every program of programs.py through every way into and out of the mesh, on strict and on permissive
ports, over IPv4 and IPv6. For each of these cells: the right content came, and by the record of the
server's proxy it came as mutual TLS from the client's SPIFFE ID. A client outside the mesh is served in
plaintext and counted where the port is permissive, without a stall, and gets no byte where it is strict.

    client ---1--- server ---3--- issuer         client: intercepted, and has the tunnels
       +------2----------------------+           server: intercepted, and has the tunnels' ends
    other ---4--- server                         other:  no rules; clients under `postern run`
    other ---5--- runner ---7--- issuer          runner: no rules; servers under `postern run`
       +------6----------------------+           issuer: clients outside the mesh

All servers of a namespace go on through all of it; in the runner they start anew with another mode,
because their proxy's flags are those of the `postern run` that they run under.
"""

import contextlib
import dataclasses
import json
import os
import pwd
import shutil
import subprocess
import time
import unittest

import harness
import programs
from harness import CLIENT, CLIENT_ID, PROXY_UID, SERVER, SERVER_BACK, SERVER_ID, url_host
from lab import wait_until

MODES = ("strict", "permissive")
FAMILIES = (4, 6)
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}
SERVER_OUTSIDE = {4: SERVER_BACK, 6: "fd00:5b:3::1"}    # as the issuer's namespace sees it
SERVER_OTHER = {4: "198.18.4.2", 6: "fd00:5b:4::2"}     # as those under `postern run` see it
OTHER = ("198.18.4.1", "fd00:5b:4::1", "198.18.5.1", "fd00:5b:5::1")
RUNNER = {4: "198.18.5.2", 6: "fd00:5b:5::2"}
RUNNER_OUTSIDE = {4: "198.18.7.1", 6: "fd00:5b:7::1"}
RUNNER_ID = f"spiffe://{harness.TRUST_DOMAIN}/runner"
NAMES = list(programs.PROGRAMS)
# To a tunnel's end at the server's proxy, and to a port that is intercepted there.
TUNNELS, TUNNELS_TO_PORTS = 9100, 9200
RULES = ("--exclude-outbound-port", "15012", "--exclude-inbound-port", f"{TUNNELS}-{TUNNELS + 99}")
STALL_LIMIT = 0.1  # seconds that a greeting may come later than without a proxy


@dataclasses.dataclass(frozen=True)
class Way:
    """One way from a client to a server."""

    name: str
    start: str            # namespace of the client
    under_run: bool       # whether that is started by `postern run`
    interception: str     # of the server's namespace; "" where the server runs under `postern run`
    addresses: dict       # that the client dials
    wire: tuple           # where the two meet: namespace, device
    base: int = 0         # first port of the tunnels that the client dials; 0: the programs' own
    outside: dict = None  # where clients outside the mesh try; None where another way shows it

    @property
    def proxy(self):
        return "server" if self.interception else "runner"

    def port(self, program):
        return self.base + NAMES.index(program.name) if self.base else program.port

    def serves_plaintext(self, mode):
        """Tunnels are for the mesh alone, whatever the ports' mode is."""
        return mode == "permissive" and self.base != TUNNELS


WAYS = (
    Way("redirect", "client", False, "redirect", SERVER, ("server", "pstn1b"), 0, SERVER_OUTSIDE),
    Way("run", "other", True, "redirect", SERVER_OTHER, ("server", "pstn4b")),
    Way("run both", "other", True, "", RUNNER, ("runner", "pstn5b"), 0, RUNNER_OUTSIDE),
    Way("tunnel", "client", False, "redirect", LOOPBACK, ("server", "pstn1b"), TUNNELS, SERVER_OUTSIDE),
    Way("tunnel to port", "client", False, "redirect", LOOPBACK, ("server", "pstn1b"), TUNNELS_TO_PORTS),
    Way("tproxy", "client", False, "tproxy", SERVER, ("server", "pstn1b"), 0, SERVER_OUTSIDE),
)


class Field:
    """The namespaces, proxies and servers of the matrix."""

    def __init__(self, mesh, user, names):
        self.mesh, self.user, self.names = mesh, user, names
        self.program = shutil.copy(programs.__file__, mesh.path("programs.py"))
        os.chmod(self.program, 0o644)
        other, runner = mesh.lab.namespace("other"), mesh.lab.namespace("runner")
        for left, right, number in ((other, mesh.server, 4), (other, runner, 5), (other, mesh.back, 6),
                                    (runner, mesh.back, 7)):
            mesh.lab.join(left, right, number)
        self.spaces = {"client": mesh.client, "server": mesh.server, "other": other, "runner": runner}
        self.modes = {"server": ("redirect", MODES[0]), "runner": None}
        self.homes = {name: mesh.private_directory(f"{name}.home", user.pw_uid)
                      for name in ("server", "runner")}
        self.runs = 0
        self._start_server()
        mesh.add_workload("client", mesh.client, "198.18.2.2", *self._outbound_tunnels(), intercept=RULES,
                          entry=["--address", CLIENT[4], "--address", CLIENT[6]])
        self._await_serving("server", self.servers)
        for proxy in mesh.proxies.values():
            proxy.wait_ready()

    def _python(self, verb, home, *names):
        return [programs.PYTHON, self.program, verb, self.homes[home], *names]

    def _start_server(self):
        mesh = self.mesh
        with open(mesh.path("servers.log"), "ab") as log:
            self.servers = mesh.lab.start(
                mesh.server, *self._python("serve", "server", *self.names), uid=self.user.pw_uid,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        entry = []
        for address in (*SERVER.values(), *SERVER_OTHER.values()):
            entry += ["--address", address]
        tunnels = []
        for number, program in enumerate(programs.PROGRAMS.values()):
            for family in FAMILIES:
                tunnels += ["--tunnel", f"inbound,listen={url_host(ANY[family])}:{TUNNELS + number},"
                            f"target={url_host(LOOPBACK[family])}:{program.port},peer={CLIENT_ID}"]
        mesh.add_workload("server", mesh.server, "198.18.3.2", "--peer-mode", MODES[0], *tunnels,
                          entry=entry, intercept=RULES, capabilities=["net_admin"])

    @staticmethod
    def _outbound_tunnels():
        words = []
        for number, program in enumerate(programs.PROGRAMS.values()):
            for base, port in ((TUNNELS, TUNNELS + number), (TUNNELS_TO_PORTS, program.port)):
                for family in FAMILIES:
                    words += ["--tunnel", f"outbound,listen={url_host(LOOPBACK[family])}:{base + number},"
                              f"target={url_host(SERVER[family])}:{port},peer={SERVER_ID}"]
        return words

    def _await_serving(self, name, process):
        def serving():
            if process.poll() is not None:
                raise AssertionError(f"the servers of {name} ended\n{logs()}")
            return os.path.exists(f"{self.homes[name]}/serving")

        def logs():
            return "".join(harness.tail(self.mesh.path(log)) for log in ("servers.log", "runner.log"))
        wait_until(serving, 90, lambda: f"the servers of {name}\n{logs()}")

    def configure(self, way, mode):
        """Puts the server's proxy of this way into this mode of ports, and of interception."""
        if way.interception and self.modes["server"] != (way.interception, mode):
            server = self.mesh.proxies["server"]
            server.kill()
            self.mesh.intercept_up(self.mesh.server, "--mode", way.interception, *RULES)
            for flag, value in (("--intercept", way.interception), ("--peer-mode", mode)):
                server.command[server.command.index(flag) + 1] = value
            server.start()
            server.wait_ready()
            self.modes["server"] = (way.interception, mode)
        if not way.interception and self.modes["runner"] != mode:
            self._start_runner(mode)
            self.modes["runner"] = mode

    def _start_runner(self, mode):
        runner = self.mesh.proxies.get("runner")
        if runner is None:
            entry = [word for address in RUNNER.values() for word in ("--address", address)]
            words = self.mesh.run_words("runner", "198.18.7.2", "runner", "--peer-mode", mode, "--admin",
                                        "127.0.0.1:15000", "--metrics", "127.0.0.1:15020", "--proxy-log",
                                        "-", entry=entry, uid=self.user.pw_uid)
            runner = harness.Proxy(self.mesh, "runner", self.spaces["runner"], words, self.user.pw_uid,
                                   last=["--", *self._python("serve", "runner", *self.names)])
            self.mesh.proxies["runner"] = runner
        else:
            runner.stop()
            os.remove(f"{self.homes['runner']}/serving")
            runner.command[runner.command.index("--peer-mode") + 1] = mode
            runner.start()
        runner.wait_ready()
        self._await_serving("runner", runner.process)

    def exchanges(self, cells, space, proxy, under_run=False):
        """Makes these exchanges (program, address, port) from a namespace, with the servers of `proxy`;
        returns what programs.py says of each."""
        words = self._python("exchange", proxy)
        if under_run:
            self.runs += 1
            entry = [word for address in OTHER for word in ("--address", address)]
            log = self.mesh.owned_file(f"run{self.runs}.log", "", self.user.pw_uid)
            words = [*self.mesh.run_words("client", "198.18.6.2", f"run{self.runs}", "--access-log", "off",
                                          "--proxy-log", log, entry=entry, uid=self.user.pw_uid),
                     "--", *words]
        done = space.run(*words, uid=self.user.pw_uid, timeout=120, check=False, input=json.dumps(cells))
        said = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode != 0 or len(said) != len(cells):
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return said


class MatrixTest(harness.MeshTest):
    table = {}  # (program, way, mode, family): "+" as it should be, "-" not, "s" skipped

    @classmethod
    def make_mesh(cls):
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise unittest.SkipTest("no user postgres, whose package is not installed") from None
        names = [program.name for program in programs.PROGRAMS.values() if not program.missing()]
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        cls.field = Field(mesh, user, names)
        return mesh

    # One way in one mode.

    def walk(self, way, mode):
        self.field.configure(way, mode)
        for program in programs.PROGRAMS.values():
            if program.missing():
                for family in FAMILIES:
                    self.table[program.name, way.name, mode, family] = "s"
                with self.subTest(program=program.name):
                    self.skipTest(f"not installed: {', '.join(program.missing())}")
        for cell, complaint in self.through_the_mesh(way).items():
            self.note(cell, way, mode, complaint)
        if way.outside is None:
            return
        if way.serves_plaintext(mode):
            for cell, complaint in self.served_outside(way).items():
                self.note(cell, way, mode, complaint)
            self.assert_no_stall(way)
        else:
            for cell, complaint in self.refused_outside(way).items():
                self.note(cell, way, mode, complaint)

    def note(self, cell, way, mode, complaint):
        """A cell of the table; whichever part of it went wrong is its failure."""
        key = (cell[0], way.name, mode, cell[1])
        self.table[key] = "-" if complaint else self.table.get(key, "+")
        with self.subTest(program=cell[0], way=way.name, mode=mode, family=cell[1]):
            self.assertIsNone(complaint)

    def cells(self, way, addresses, outside=False):
        """[[name, address, port]] of every program and family."""
        return [[name, addresses[family], self.port_of(way, name, outside)]
                for family in FAMILIES for name in self.field.names]

    @staticmethod
    def port_of(way, name, outside=False):
        program = programs.PROGRAMS[name]
        return program.port if outside and way.base != TUNNELS else way.port(program)

    def records(self, way, since):
        """{(program, family): its records} of the server's proxy after the first `since`."""
        server = self.proxy(way.proxy)
        server.wait_recorded()
        names = {program.port: program.name for program in programs.PROGRAMS.values()}

        def read():
            found = {}
            for record in server.access_log()[since:]:
                if record["reason"] == "self_loop":
                    continue  # iperf3 under `postern run` does not listen for a moment after a measurement
                port = int(record["destination"].rpartition(":")[2])
                family = 6 if record["downstream"].startswith("[") else 4
                found.setdefault((names[port], family), []).append(record)
            return found if len(found) >= len(FAMILIES) * len(self.field.names) else None
        with contextlib.suppress(AssertionError):
            return wait_until(read, 5, what="records")
        return read() or {}

    def through_the_mesh(self, way):
        """{(program, family): None, or what was wrong}"""
        server, field = self.proxy(way.proxy), self.field
        since, plain = len(server.access_log()), server.metric("postern_plaintext_connections_total")
        wire = self.mesh.capture(field.spaces[way.wire[0]], way.wire[1])
        said = field.exchanges(self.cells(way, way.addresses), field.spaces[way.start], way.proxy,
                               way.under_run)
        seen = wire.stop()
        self.assertNotIn(programs.MARK.encode(), seen)
        self.assertIn(b"\x17\x03\x03", seen)  # TLS application data
        records = self.records(way, since)
        self.assertEqual(server.metric("postern_plaintext_connections_total"), plain)
        own = SERVER_ID if way.interception else RUNNER_ID
        return self.judge(way, said, records, way.addresses,
                          {"security": "mutual_tls", "tls_version": "TLSv1.3", "local_id": own,
                           "peer_id": CLIENT_ID})

    @staticmethod
    def judge(way, said, records, addresses, wanted):
        """What is wrong with each cell, by what its client says and by its records."""
        wrong = {}
        for answer in said:
            family = 6 if ":" in answer["address"] else 4
            cell, complaint = (answer["program"], family), answer["error"]
            for record in records.get(cell, []):
                got = {key: record.get(key) for key in wanted}
                if got != wanted and complaint is None:
                    complaint = f"{wanted} is not what is recorded: {record}"
            if not records.get(cell) and complaint is None:
                complaint = f"no record of it at the {way.proxy}'s proxy"
            wrong[cell] = complaint
        return wrong

    # Clients outside the mesh.

    def served_outside(self, way):
        server = self.proxy(way.proxy)
        since, plain = len(server.access_log()), server.metric("postern_plaintext_connections_total")
        said = self.field.exchanges(self.cells(way, way.outside, True), self.mesh.back, way.proxy)
        records = self.records(way, since)
        count = sum(len(of_cell) for of_cell in records.values())
        self.assertEqual(server.metric("postern_plaintext_connections_total") - plain, count)
        return self.judge(way, said, records, way.outside, {"security": "plaintext", "peer_id": None})

    def refused_outside(self, way):
        """Not one byte for them, whether they speak or wait; all at once, as those that wait have the time
        of a handshake."""
        socks, wrong = {}, {}
        since = len(self.proxy(way.proxy).access_log())
        for name, address, port in self.cells(way, way.outside, True):
            cell = (name, 6 if ":" in address else 4)
            socks[cell] = self.mesh.back.connect(address, port, timeout=20)
            self.addCleanup(socks[cell].close)
            if not programs.PROGRAMS[name].server_first:
                socks[cell].sendall(programs.PROGRAMS[name].opens_with)
        for cell, sock in socks.items():
            wrong[cell] = None
            with contextlib.suppress(ConnectionResetError):
                if (got := sock.recv(100)) != b"":
                    wrong[cell] = f"a client outside the mesh got {got}"
        for cell, records in self.records(way, since).items():
            wanted = ("handshake_timeout" if programs.PROGRAMS[cell[0]].server_first
                      else "plaintext_refused", 0, None)
            for record in records:
                got = record["reason"], record["bytes_from_upstream"], record.get("peer_id")
                if got != wanted:
                    wrong[cell] = f"{wanted} is not what is recorded: {record}"
        return wrong

    def assert_no_stall(self, way):
        for program in programs.PROGRAMS.values():
            if not program.server_first or program.name not in self.field.names:
                continue
            for family in FAMILIES:
                with self.subTest(program=program.name, way=way.name, family=family):
                    # What the server itself needs is not the proxy's; the least of some tries is what is
                    # there without another program in the way.
                    alone = min(self.greeting(self.field.spaces[way.proxy], LOOPBACK[4], program.port)
                                for _ in range(5))
                    times = [self.greeting(self.mesh.back, way.outside[family], program.port)
                             for _ in range(5)]
                    print(f"{way.name} {program.name} IPv{family}: greeting after {alone * 1000:.1f} ms "
                          "alone; through the proxy " + ", ".join(f"{t * 1000:.1f}" for t in times) + " ms")
                    self.assertLess(min(times) - alone, STALL_LIMIT)
                    self.assertLess(sorted(times)[2] - alone, STALL_LIMIT)

    def greeting(self, space, address, port):
        """Seconds from the connect to the first byte that the server says."""
        began = time.monotonic()
        with contextlib.closing(space.connect(address, port, timeout=20)) as sock:
            self.assertNotEqual(sock.recv(1), b"")
            return time.monotonic() - began

    # All of it.

    def test_z_no_cell_is_missing(self):
        """Last by its name: walks what was not walked, prints the table and looks at all of it."""
        for way in WAYS:
            for mode in MODES:
                if not any((name, way.name, mode, 4) in self.table for name in NAMES):
                    self.walk(way, mode)
        head = "".join(f"  {way.name:14}" for way in WAYS)
        print(f"\n{'':15}{head}\n{'':15}" + "  s4 s6 p4 p6   " * len(WAYS))
        missing = []
        for name in NAMES:
            line = f"{name:15}"
            for way in WAYS:
                marks = []
                for mode in MODES:
                    for family in FAMILIES:
                        marks.append(self.table.get((name, way.name, mode, family), "?"))
                        if marks[-1] not in "+s":
                            missing.append((name, way.name, mode, family))
                line += "   " + "  ".join(marks) + "   "
            print(line.rstrip())
        self.assertEqual(missing, [])


def make_case(way, mode):
    def test(self):
        self.walk(way, mode)
    return test


for _way in WAYS:
    for _mode in MODES:
        setattr(MatrixTest, f"test_{_way.name.replace(' ', '_')}_{_mode}", make_case(_way, _mode))


if __name__ == "__main__":
    unittest.main()
