# SPDX-License-Identifier: Apache-2.0
"""A permissive port whose server speaks first, with clients of and outside the mesh on it. Whether each real
program works there, and when its greeting comes, is shown by matrix_test.py."""

import contextlib
import unittest

import harness
from harness import CLIENT, SERVER, SERVER_BACK
from lab import wait_until

SMTP = 2525


class PermissiveTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_workload("server", mesh.server, "198.18.3.2", "--peer-mode", "permissive",
                          entry=["--address", SERVER[4], "--address", SERVER[6]])
        mesh.add_workload("client", mesh.client, "198.18.2.2",
                          entry=["--address", CLIENT[4], "--address", CLIENT[6]])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        mesh.serve("smtp", SMTP)
        return mesh

    def greeting(self, space, address):
        """The first byte that the server says."""
        with contextlib.closing(space.connect(address, SMTP, timeout=20)) as sock:
            return sock.recv(1)

    def test_mesh_and_plaintext_clients_mix_on_one_port(self):
        for _ in range(10):
            for space, address in ((self.mesh.client, SERVER[4]), (self.mesh.back, SERVER_BACK)):
                self.assertEqual(self.greeting(space, address), b"2")
        self.assertEqual(self.proxy("server").metric("postern_connections_closed_total",
                                                     reason="late_client_hello"), 0)

    def test_a_known_member_is_never_answered_in_plaintext(self):
        """The client's proxy's own user speaks past that proxy, from an address of the mesh."""
        self.greeting(self.mesh.client, SERVER[4])  # the server's proxy learns the address
        records = self.proxy("server").count_records()
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


if __name__ == "__main__":
    unittest.main()
