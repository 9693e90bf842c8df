# SPDX-License-Identifier: Apache-2.0
"""`postern intercept` against a real kernel: what is caught, what is left alone, what stays."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import unittest

import lab

POSTERN = os.path.join(os.environ.get("POSTERN_BUILD_DIR", "build/release"), "bin", "postern")
PROXY_UID, APP_UID, OTHER_PROXY_UID, OTHER_APP_UID = 64901, 64902, 64903, 64904
SO_ORIGINAL_DST = 80
CLIENT4, SERVER4 = "198.18.1.1", "198.18.1.2"
CLIENT6, SERVER6 = "fd00:5b:1::1", "fd00:5b:1::2"


def original_destination(sock):
    if sock.family == socket.AF_INET6:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]


class InterceptTest(unittest.TestCase):
    """Each test has a fresh client and server namespace, joined by a wire."""

    def setUp(self):
        self.lab = lab.Lab()
        self.addCleanup(self.lab.close)
        self.client = self.lab.namespace("client")
        self.server = self.lab.namespace("server")
        self.lab.join(self.client, self.server, 1)
        self.client.run("ip", "route", "add", "default", "via", SERVER4)

    def up(self, space, *flags, check=True):
        return space.run(POSTERN, "intercept", "up", *flags, check=check)

    def listen(self, space, address, port):
        sock = space.listen(address, port)
        sock.settimeout(5)
        self.addCleanup(sock.close)
        return sock

    def assert_caught(self, listener, connect):
        """The connection arrives at `listener`; returns its original destination."""
        with contextlib.closing(connect()):
            accepted, _ = listener.accept()
            with contextlib.closing(accepted):
                return original_destination(accepted)

    def connect_as(self, space, uid, address, port, gid=None):
        """Connects in another process as `uid` and keeps the connection until it is told to end."""
        code = ("import socket,sys\n"
                f"s=socket.create_connection(({address!r},{port}),5)\n"
                "print('connected',flush=True)\nsys.stdin.read()\n")
        words = space.prefix() + ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}",
                                  "--clear-groups", "python3", "-c", code]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)

        class Connection:
            @staticmethod
            def close():
                process.communicate()

        line = process.stdout.readline()
        if line.strip() != b"connected":
            raise AssertionError(process.communicate()[1].decode())
        return Connection

    def packets(self, space, rule, *flags):
        state = json.loads(space.run(POSTERN, "intercept", "show", "--output", "json", *flags).stdout)
        return sum(r.get("packets", 0) for r in state["rules"] if r["rule"] == rule)

    def test_catches_what_the_application_opens_in_both_families(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID))
        for proxy, target in (("127.0.0.1", SERVER4), ("::1", SERVER6)):
            listener = self.listen(self.client, proxy, 15001)
            found = self.assert_caught(listener, lambda to=target: self.client.connect(to, 8080))
            self.assertEqual(found, (target, 8080))
        self.assertEqual(self.packets(self.client, "outbound: to the proxy"), 2)

    def test_catches_what_comes_from_outside_in_both_families(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        for any_address, target in (("0.0.0.0", SERVER4), ("::", SERVER6)):
            listener = self.listen(self.server, any_address, 15006)
            found = self.assert_caught(listener, lambda to=target: self.client.connect(to, 8080))
            self.assertEqual(found, (target, 8080))

    def test_lets_the_proxy_through_by_uid(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID))
        outside = self.listen(self.server, SERVER4, 8080)
        with contextlib.closing(self.connect_as(self.client, PROXY_UID, SERVER4, 8080)):
            accepted, _ = outside.accept()
            accepted.close()

    def test_lets_the_proxy_through_by_mark_and_catches_the_same_user_without_it(self):
        self.up(self.client, "--proxy-mark", "0x505")
        outside = self.listen(self.server, SERVER4, 8080)
        proxy = self.listen(self.client, "127.0.0.1", 15001)
        with contextlib.closing(self.client.connect(SERVER4, 8080, mark=0x505)):
            accepted, _ = outside.accept()
            accepted.close()
        self.assertEqual(self.assert_caught(proxy, lambda: self.client.connect(SERVER4, 8080)),
                         (SERVER4, 8080))

    def assert_left_alone(self, connect, listener):
        with contextlib.closing(connect()):
            accepted, _ = listener.accept()
            accepted.close()

    def test_leaves_out_what_is_excluded(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID), "--exclude-outbound-port", "8100-8101",
                "--exclude-cidr", f"{SERVER6}/128", "--exclude-uid", str(APP_UID),
                "--exclude-gid", "64999")
        port = self.listen(self.server, SERVER4, 8101)
        self.assert_left_alone(lambda: self.client.connect(SERVER4, 8101), port)
        cidr = self.listen(self.server, SERVER6, 8200)
        self.assert_left_alone(lambda: self.client.connect(SERVER6, 8200), cidr)
        user = self.listen(self.server, SERVER4, 8200)
        self.assert_left_alone(lambda: self.connect_as(self.client, APP_UID, SERVER4, 8200), user)
        self.assert_left_alone(
            lambda: self.connect_as(self.client, 64905, SERVER4, 8200, gid=64999), user)
        proxy = self.listen(self.client, "127.0.0.1", 15001)
        self.assert_caught(proxy, lambda: self.client.connect(SERVER4, 8102))

    def test_leaves_out_inbound_ports_sources_and_interfaces(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID), "--exclude-inbound-port", "22",
                "--exclude-source-cidr", f"{CLIENT6}/128")
        ssh = self.listen(self.server, SERVER4, 22)
        self.assert_left_alone(lambda: self.client.connect(SERVER4, 22), ssh)
        app = self.listen(self.server, SERVER6, 8080)
        self.assert_left_alone(lambda: self.client.connect(SERVER6, 8080), app)
        self.up(self.server, "--proxy-uid", str(PROXY_UID), "--exclude-interface", "pstn1b")
        four = self.listen(self.server, SERVER4, 8080)
        self.assert_left_alone(lambda: self.client.connect(SERVER4, 8080), four)

    def test_takes_only_what_is_included(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID), "--include-outbound-port", "5432",
                "--include-cidr", "198.18.0.0/15", "--no-inbound")
        proxy = self.listen(self.client, "127.0.0.1", 15001)
        self.assert_caught(proxy, lambda: self.client.connect(SERVER4, 5432))
        other = self.listen(self.server, SERVER4, 8080)
        self.assert_left_alone(lambda: self.client.connect(SERVER4, 8080), other)
        six = self.listen(self.server, SERVER6, 5432)
        self.assert_left_alone(lambda: self.client.connect(SERVER6, 5432), six)

    def test_never_takes_admin_metrics_and_loopback(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID))
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        for port in (15000, 15020):
            there = self.listen(self.server, SERVER4, port)
            self.assert_left_alone(lambda p=port: self.client.connect(SERVER4, p), there)
        for loopback in ("127.0.0.1", "127.0.0.53", "::1"):
            app = self.listen(self.client, loopback, 8080)
            self.assert_left_alone(lambda to=loopback: self.client.connect(to, 8080), app)

    def test_does_not_send_a_direct_call_to_the_intercept_port_round_again(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        listener = self.listen(self.server, "0.0.0.0", 15006)
        found = self.assert_caught(listener, lambda: self.client.connect(SERVER4, 15006))
        self.assertEqual(found, (SERVER4, 15006))  # not translated: the proxy refuses it

    def test_the_application_calls_itself_by_its_own_address(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        for own in (SERVER4, SERVER6):
            app = self.listen(self.server, own, 8080)
            self.assert_left_alone(lambda to=own: self.server.connect(to, 8080), app)

    def test_the_proxy_reaches_its_own_application_at_its_own_address(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        app = self.listen(self.server, SERVER4, 8080)
        self.assert_left_alone(lambda: self.connect_as(self.server, PROXY_UID, SERVER4, 8080), app)

    def two_workloads(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID), "--app-uid", str(APP_UID),
                "--include-inbound-port", "8080")
        self.up(self.server, "--name", "db", "--proxy-uid", str(OTHER_PROXY_UID),
                "--app-uid", str(OTHER_APP_UID), "--include-inbound-port", "5432",
                "--inbound-port", "16006", "--outbound-port", "16001", "--own-port", "16020")

    def test_catches_a_proxys_connection_to_another_workload_on_the_same_host(self):
        self.two_workloads()
        outbound = self.listen(self.server, "127.0.0.1", 15001)
        inbound = self.listen(self.server, "0.0.0.0", 16006)
        found = self.assert_caught(
            outbound, lambda: self.connect_as(self.server, APP_UID, SERVER4, 5432))
        self.assertEqual(found, (SERVER4, 5432))  # its own proxy first, whoever came up last
        found = self.assert_caught(
            inbound, lambda: self.connect_as(self.server, PROXY_UID, SERVER4, 5432))
        self.assertEqual(found, (SERVER4, 5432))
        outsider = self.assert_caught(
            inbound, lambda: self.connect_as(self.server, 64999, SERVER4, 5432))
        self.assertEqual(outsider, (SERVER4, 5432))
        own = self.listen(self.server, SERVER4, 5432)
        self.assert_left_alone(
            lambda: self.connect_as(self.server, OTHER_PROXY_UID, SERVER4, 5432), own)
        self.assert_left_alone(
            lambda: self.connect_as(self.server, OTHER_APP_UID, SERVER4, 5432), own)

    def test_removing_one_workloads_rules_keeps_the_others(self):
        self.two_workloads()
        self.server.run(POSTERN, "intercept", "down")
        self.assertEqual(self.server.run(POSTERN, "intercept", "show", check=False).returncode, 1)
        self.assertIn("postern_db", self.server.run(POSTERN, "intercept", "show", "--name", "db").stdout)

    def test_connections_from_before_go_on(self):
        app = self.listen(self.server, SERVER4, 8080)
        old = self.client.connect(SERVER4, 8080)
        self.addCleanup(old.close)
        accepted, _ = app.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(5)
        said = self.up(self.client, "--proxy-uid", str(PROXY_UID)).stderr
        self.assertIn("1 connection to other hosts were open before", said)
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        for _ in range(3):
            old.sendall(b"still here")
            self.assertEqual(accepted.recv(100), b"still here")
            accepted.sendall(b"me too")
            self.assertEqual(old.recv(100), b"me too")

    def open_pair(self, listener, connect):
        """Both ends of a connection that is told to end with the test."""
        ours = connect()
        self.addCleanup(ours.close)
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(5)
        return ours, accepted

    def kill_existing(self, space, *flags):
        """What `up --kill-existing` said; skips the test where the kernel cannot."""
        done = self.up(space, "--proxy-uid", str(PROXY_UID), "--kill-existing", *flags, check=False)
        if "CONFIG_INET_DIAG_DESTROY" in done.stderr:
            self.assertEqual(done.returncode, 1)
            self.assertIn("The rules are in force", done.stderr)
            self.assertIn("outbound", space.run(POSTERN, "intercept", "show").stdout)
            self.skipTest("this kernel cannot end connections of others")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def assert_stands(self, ours, accepted):
        ours.sendall(b"still here")
        self.assertEqual(accepted.recv(100), b"still here")

    def test_kill_existing_ends_what_the_rules_would_take_and_nothing_else(self):
        ended, kept = [], []
        for address in (SERVER4, SERVER6):
            app, ssh = self.listen(self.server, address, 8080), self.listen(self.server, address, 22)
            for which, listener, port in ((ended, app, 8080), (kept, ssh, 22)):
                which.append(self.open_pair(
                    listener, lambda to=address, at=port: self.client.connect(to, at)))
        app = self.listen(self.server, SERVER4, 8081)
        kept.append(self.open_pair(app, lambda: self.client.connect(SERVER4, 8081, mark=0x505)))
        inside = self.listen(self.client, "127.0.0.1", 9000)
        kept.append(self.open_pair(inside, lambda: self.client.connect("127.0.0.1", 9000)))
        proxys = self.connect_as(self.client, PROXY_UID, SERVER4, 8081)
        self.addCleanup(proxys.close)
        of_proxy, _ = app.accept()
        self.addCleanup(of_proxy.close)
        said = self.kill_existing(self.client, "--proxy-mark", "0x505", "--exclude-outbound-port", "22")
        self.assertIn("2 connections from before were ended", said)
        for ours, accepted in ended:
            with self.assertRaises(ConnectionAbortedError):
                ours.recv(1)
            with self.assertRaises(ConnectionResetError):
                accepted.recv(1)
        for ours, accepted in kept:
            self.assert_stands(ours, accepted)
        of_proxy.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            of_proxy.recv(1)

    def test_kill_existing_ends_inbound_connections_but_for_excluded_ports(self):
        app, ssh = self.listen(self.server, SERVER4, 8080), self.listen(self.server, SERVER4, 22)
        old = self.open_pair(app, lambda: self.client.connect(SERVER4, 8080))
        kept = self.open_pair(ssh, lambda: self.client.connect(SERVER4, 22))
        said = self.kill_existing(self.server, "--exclude-inbound-port", "22")
        self.assertIn("1 connection from before was ended", said)
        with self.assertRaises(ConnectionAbortedError):
            old[1].recv(1)
        self.assert_stands(*kept)

    def test_kill_existing_a_second_time_leaves_what_the_proxy_carries(self):
        self.kill_existing(self.client)
        proxy = self.listen(self.client, "127.0.0.1", 15001)
        carried = self.open_pair(proxy, lambda: self.client.connect(SERVER4, 8080))
        self.assertIn("0 connections from before were ended", self.kill_existing(self.client))
        self.assert_stands(*carried)

    def test_up_twice_and_down_twice_are_as_good_as_once(self):
        for _ in range(2):
            self.up(self.client, "--proxy-uid", str(PROXY_UID))
        once = self.client.run(POSTERN, "intercept", "show").stdout
        self.assertEqual(once.count("loop guard, by uid\n"), 2)  # outbound and the UDP count
        for _ in range(2):
            self.client.run(POSTERN, "intercept", "down")
        self.assertEqual(self.client.run("nft", "list", "ruleset").stdout, "")

    def test_leaves_rules_of_others_alone(self):
        self.client.run("nft", "add table inet mine")
        self.up(self.client, "--proxy-uid", str(PROXY_UID))
        self.client.run(POSTERN, "intercept", "down")
        self.assertEqual(self.client.run("nft", "list", "tables").stdout, "table inet mine\n")

    def test_the_probe_proves_that_connections_are_caught(self):
        done = self.up(self.client, "--proxy-uid", "0", "--probe")
        self.assertIn("was caught", done.stderr)
        done = self.up(self.client, "--proxy-uid", "0", "--probe", "--exclude-cidr", "192.0.2.0/24",
                       check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("was not caught", done.stderr)
        done = self.up(self.server, "--proxy-uid", "0", "--probe")
        self.assertIn("nothing is proved", done.stderr)  # no default route there

    def test_says_how_to_become_allowed(self):
        done = self.client.run(POSTERN, "intercept", "up", "--proxy-uid", "1", uid=APP_UID, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("run this as root", done.stderr)

    def test_drops_segments_that_conntrack_cannot_translate(self):
        self.up(self.server, "--proxy-uid", str(PROXY_UID))
        listener = self.listen(self.server, "0.0.0.0", 15006)
        sock = self.client.connect(SERVER4, 8080)
        self.addCleanup(sock.close)
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        sock.sendall(b"a")
        self.assertEqual(accepted.recv(1), b"a")
        self.send_far_outside_the_window(sock.getsockname()[1])
        lab.wait_until(lambda: self.packets(self.server, "not translatable") > 0, what="drop")
        sock.sendall(b"b")  # no reset came: the connection lives
        accepted.settimeout(5)
        self.assertEqual(accepted.recv(1), b"b")

    def send_far_outside_the_window(self, source_port):
        def checksum(data):
            total = sum(struct.unpack(f"!{len(data) // 2}H", data))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            return ~total & 0xFFFF

        source, target = socket.inet_aton(CLIENT4), socket.inet_aton(SERVER4)
        with self.client.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        with contextlib.closing(raw):
            for quarter in range(4):  # the window is unknown: one of these lies far above it
                head = struct.pack("!HHIIBBHHH", source_port, 8080, quarter << 30, 0, 5 << 4, 0x10,
                                   1024, 0, 0)
                pseudo = source + target + struct.pack("!BBH", 0, 6, len(head))
                head = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
                raw.sendto(head, (SERVER4, 0))

    def test_counts_udp_that_it_does_not_carry(self):
        self.up(self.client, "--proxy-uid", str(PROXY_UID))
        with self.client.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.closing(sock):
            sock.sendto(b"x", (SERVER4, 5353))
        self.assertEqual(self.packets(self.client, "outbound UDP: counted, not carried"), 1)


if __name__ == "__main__":
    unittest.main()
