# SPDX-License-Identifier: Apache-2.0
"""Two workloads in one network namespace, each with its user, its proxy and its ports: they talk to each
other and to the outside with their own identities, in the family that the application dials."""

import contextlib
import os
import subprocess
import unittest

import harness
import lab
from harness import CLIENT, PROXY_UID, SERVER, TRUST_DOMAIN
from lab import wait_until

POSTERN = os.path.join(harness.BUILD, "bin", "postern")
# Where version 2 is: with version 1 beside it, or alone.
CGROUPS = next((path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
                if os.path.exists(os.path.join(path, "cgroup.procs"))), "")
WEB = {"name": "web", "app": 64921, "proxy": PROXY_UID, "port": 8080, "inbound": 15006,
       "outbound": 15001, "ports": {"admin": 15000, "metrics": 15020}}
DB = {"name": "db", "app": 64922, "proxy": 64912, "port": 5432, "inbound": 16006, "outbound": 16001,
      "ports": {"admin": 16000, "metrics": 16020}}
ECHO = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.sendall(b'said'); print(s.recv(100).decode(), s.getpeername()[0])
"""


class TwoWorkloadsTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        for own, other in ((WEB, DB), (DB, WEB)):
            taken = [f for port in other["ports"].values() for f in ("--own-port", str(port))]
            mesh.add_workload(
                own["name"], mesh.server, "198.18.3.2",
                "--inbound-port", str(own["inbound"]), "--outbound-port", str(own["outbound"]),
                "--admin", f"127.0.0.1:{own['ports']['admin']}",
                "--metrics", f"0.0.0.0:{own['ports']['metrics']}",
                entry=["--address", SERVER[4], "--address", SERVER[6], "--port", str(own["port"])],
                intercept=["--name", own["name"], "--app-uid", str(own["app"]), "--fail-closed",
                           "--include-inbound-port", str(own["port"]),
                           "--inbound-port", str(own["inbound"]),
                           "--outbound-port", str(own["outbound"]),
                           "--own-port", str(own["ports"]["metrics"]), *taken],
                uid=own["proxy"], ports=own["ports"])
        mesh.add_workload("client", mesh.client, "198.18.2.2", entry=["--address", CLIENT[4]])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        for own in (WEB, DB):
            mesh.app(mesh.server, "echo", own["port"], uid=own["app"], stdout=subprocess.DEVNULL)

            def answers(port=own["port"]):
                with contextlib.suppress(OSError):
                    mesh.server.connect("127.0.0.1", port).close()
                    return True
            wait_until(answers, what=own["name"])
        return mesh

    def say(self, space, family, port, uid=None):
        out = space.run("python3", "-c", ECHO, SERVER[family], str(port), uid=uid).stdout.split()
        self.assertEqual(out, ["said", SERVER[family]])

    def assert_talked(self, source, target, run):
        """Mutual TLS between exactly these two, one connection at each, in the family of the dial."""
        counts = {name: self.proxy(name).count_records() for name in self.mesh.proxies}
        for family in (4, 6):
            run(family)
        for name, peer, direction in ((source, target, "outbound"), (target, source, "inbound")):
            records = wait_until(
                lambda n=name: (lambda r: r if len(r) >= 2 else None)(
                    self.proxy(n).access_log()[counts[n]:]), what=f"records of {name}")
            self.assertEqual(len(records), 2, records)
            for record, family in zip(records, (4, 6)):
                self.assertEqual(record["direction"], direction, record)
                self.assertEqual(record["security"], "mutual_tls", record)
                self.assertEqual(record["peer_id"], f"spiffe://{TRUST_DOMAIN}/{peer}", record)
                for key in ("destination", "upstream"):
                    self.assertEqual("[" in record[key], family == 6, record)

    def test_they_talk_to_each_other_with_their_own_identities(self):
        self.assert_talked("web", "db", lambda f: self.say(self.mesh.server, f, DB["port"], WEB["app"]))
        self.assert_talked("db", "web", lambda f: self.say(self.mesh.server, f, WEB["port"], DB["app"]))

    def test_somebody_outside_reaches_each_of_them(self):
        self.assert_talked("client", "web", lambda f: self.say(self.mesh.client, f, WEB["port"]))
        self.assert_talked("client", "db", lambda f: self.say(self.mesh.client, f, DB["port"]))

    def test_each_calls_itself_without_a_proxy(self):
        before = [self.proxy(own["name"]).count_records() for own in (WEB, DB)]
        for own in (WEB, DB):
            for family in (4, 6):
                self.say(self.mesh.server, family, own["port"], own["app"])
        self.assertEqual([len(self.proxy(own["name"]).access_log()) for own in (WEB, DB)], before)

    def test_each_proxy_sees_its_own_rules(self):
        self.mesh.server.run(self.mesh.tool("postern"), "intercept", "show", "--name", "db")
        for own in (WEB, DB):
            self.assertIs(self.proxy(own["name"]).page("/status")["intercept_ok"], True)

    def test_one_whose_proxy_is_killed_does_not_harm_the_other(self):
        self.proxy("db").kill()
        try:
            done = self.mesh.server.run("python3", "-c", ECHO, CLIENT[4], "8080", uid=DB["app"],
                                        check=False)
            self.assertIn("ConnectionRefusedError", done.stderr)
            self.say(self.mesh.client, 4, WEB["port"])
        finally:
            self.proxy("db").start()
            self.proxy("db").wait_ready()
        self.say(self.mesh.client, 4, DB["port"])


@unittest.skipUnless(CGROUPS and os.access(CGROUPS, os.W_OK), "no cgroup2 that can be written to")
class SliceTest(unittest.TestCase):
    """One slice of a host, by its control group."""

    def setUp(self):
        made = lab.Lab()
        self.addCleanup(made.close)
        self.here, there = made.namespace("here"), made.namespace("there")
        made.join(self.here, there, 1)
        self.slice = os.path.join(CGROUPS, f"pstn{os.getpid()}.slice")
        self.service = os.path.join(self.slice, "app.service")
        os.makedirs(self.service)
        for path in (self.slice, self.service):
            self.addCleanup(wait_until, lambda path=path: self.is_removed(path), 10, path)
        self.listener = there.listen(SERVER[4], 8080)
        self.addCleanup(self.listener.close)

    @staticmethod
    def is_removed(path):
        """A process that has been waited for may be in its group for a moment more."""
        with contextlib.suppress(OSError):
            os.rmdir(path)
            return True
        return False

    def up(self, flag):
        words = ["--proxy-uid", str(PROXY_UID), "--fail-closed", flag, os.path.basename(self.slice)]
        done = self.here.run(POSTERN, "intercept", "up", *words, check=False)
        if "cgroupv2" in done.stderr:
            self.skipTest(f"this kernel cannot match control groups: {done.stderr}")
        self.assertEqual(done.returncode, 0, done.stderr)
        diff = self.here.run(POSTERN, "intercept", "diff", *words, check=False)
        self.assertEqual((diff.returncode, diff.stdout), (0, ""), diff.stderr)

    def assert_taken(self, *groups):
        for group in groups:
            self.assertIn("ConnectionRefusedError", self.connect_in(group).stderr)  # there is no proxy

    def assert_left_alone(self, *groups):
        for group in groups:
            done = self.connect_in(group)
            self.assertEqual(done.returncode, 0, done.stderr)

    def connect_in(self, group):
        code = (f"open({os.path.join(group, 'cgroup.procs')!r},'w').write('0')\n"
                f"import socket\nsocket.create_connection(({SERVER[4]!r},8080),3)")
        return self.here.run("python3", "-c", code, check=False)

    def test_takes_what_is_in_the_slice_and_below_and_nothing_else(self):
        self.up("--app-cgroup")
        self.assert_taken(self.slice, self.service)
        self.assert_left_alone(CGROUPS)

    def test_leaves_alone_what_is_in_an_excluded_slice_and_nothing_else(self):
        self.up("--exclude-cgroup")
        self.assert_left_alone(self.slice, self.service)
        self.assert_taken(CGROUPS)


if __name__ == "__main__":
    unittest.main()
