# SPDX-License-Identifier: Apache-2.0
"""No silent plaintext: what is required to be mTLS, or was once in the mesh, is refused otherwise, until
an operator says that it has left; and every plaintext connection is counted with its reason."""

import contextlib
import json
import unittest

import harness
from harness import SERVER, SERVER_ID
from lab import run, wait_until

PORT = 7000


def destinations(address):
    return ("apiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: server}\n"
            f"spec: {{addresses: [{address}], spiffeIds: [\"{SERVER_ID}\"]}}\n")


class NoPlaintextTest(harness.MeshTest):
    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        # No address of the server's is published: only the client's own file says where it is.
        mesh.add_workload("server", mesh.server, "198.18.3.2", "--peer-mode", "permissive")
        cls.file = mesh.owned_file("destinations.yaml", destinations(SERVER[4]))
        mesh.add_workload("client", mesh.client, "198.18.2.2", "--destinations", cls.file,
                          "--require-mtls", f"{SERVER[6]}", "--admin", f"unix:{cls.socket_in(mesh)}")
        mesh.proxies["server"].wait_ready()
        mesh.proxies["client"].wait_ready()
        mesh.serve("echo", PORT)
        return mesh

    @staticmethod
    def socket_in(mesh):
        return mesh.private_directory("admin") + "/admin.sock"

    def echo(self, address):
        """Whether an echo comes back to the client's application."""
        with contextlib.suppress(OSError), \
                contextlib.closing(self.mesh.client.connect(address, PORT)) as sock:
            sock.settimeout(10)
            sock.sendall(b"hello")
            return sock.recv(5) == b"hello"
        return False

    def closed(self, reason):
        return self.proxy("client").metric("postern_connections_closed_total", reason=reason)

    def plaintext(self):
        return self.proxy("client").metric("postern_plaintext_connections_total")

    def test_a_destination_that_must_be_mutual_tls_and_is_not_in_the_mesh_is_refused(self):
        before = self.closed("mtls_required"), self.plaintext()
        self.assertFalse(self.echo(SERVER[6]))
        wait_until(lambda: self.closed("mtls_required") == before[0] + 1, what="mtls_required")
        self.assertEqual(self.plaintext(), before[1])

    def test_a_destination_that_left_the_file_does_not_fall_back_until_it_is_forgotten(self):
        self.assertTrue(self.echo(SERVER[4]))
        wait_until(lambda: self.proxy("client").metric("postern_connections_secured_total",
                                                       security="mutual_tls") >= 1, what="mTLS")
        before = self.closed("mesh_downgrade"), self.plaintext()
        self.mesh.owned_file("destinations.yaml", destinations("198.18.9.9"))
        wait_until(lambda: not self.echo(SERVER[4]) and self.closed("mesh_downgrade") > before[0], 30,
                   "the file to be read again")
        self.assertEqual(self.plaintext(), before[1], "not one connection in plaintext")
        socket = self.socket_in(self.mesh)
        seen = json.loads(run(["curl", "-sS", "--unix-socket", socket, "http://x/seen"]).stdout)
        self.assertIn(f"{SERVER[4]}:{PORT}", seen["destinations"])
        run([self.mesh.tool("postern"), "seen", "forget", f"{SERVER[4]}:{PORT}", "--admin-socket",
             socket])
        self.assertTrue(self.echo(SERVER[4]))
        self.assertEqual(self.proxy("client").metric("postern_plaintext_connections_total",
                                                     reason="not_in_mesh"), before[1] + 1)
        again = run([self.mesh.tool("postern"), "seen", "forget", f"{SERVER[4]}:{PORT}",
                     "--admin-socket", socket], check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("was not seen in the mesh", again.stderr)


if __name__ == "__main__":
    unittest.main()
