# SPDX-License-Identifier: Apache-2.0
"""Revocation with the real programs: a download that is cut, a restart while the issuer is away, an
entry that is deleted, and the way back."""

import json
import os
import re
import threading
import time
import unittest

import harness
from harness import CLIENT_ID, SERVER
from lab import wait_until

PORT = 7000


class RevocationTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        mesh.serve("echo", PORT)
        return mesh

    def setUp(self):
        wait_until(self.visit, 30, lambda: "the client is let in: " + str(
            self.proxy("server").failures()[:1]))

    def connect(self):
        connection = self.mesh.client.connect(SERVER[4], PORT)
        connection.settimeout(10)
        return connection

    def visit(self):
        """Whether a fresh connection reaches the application."""
        try:
            with self.connect() as connection:
                connection.sendall(b"ping")
                return connection.recv(4) == b"ping"
        except OSError:
            return False

    def closed(self, name, reason):
        return self.proxy(name).metric("postern_connections_closed_total", reason=reason)

    def revoke(self, *words):
        made = self.mesh.postern("revoke", *words, "--reason", "laptop stolen", "--output", "json")
        return json.loads(made.stdout)

    def listed(self):
        """How many revocations the server's proxy knows of."""
        return self.proxy("server").metric("postern_revocations", source="issuer")

    def lift(self, number):
        self.mesh.postern("revoke", "lift", str(number))
        wait_until(lambda: self.proxy("client").metric("postern_issuer_connected") == 1, 30,
                   "the client's stream stands again")

    def test_a_long_download_is_cut_and_the_workload_is_out_until_it_is_lifted(self):
        stop, cut = threading.Event(), []

        def download():
            """Echoes as fast as it can until the connection ends; the time of the end."""
            with self.connect() as connection:
                block, moved = b"x" * 16384, 0
                try:
                    while not stop.is_set():
                        connection.sendall(block)
                        got = 0
                        while got < len(block):
                            data = connection.recv(65536)
                            if not data:
                                raise ConnectionResetError
                            got += len(data)
                        moved += got
                except OSError:
                    cut.append((time.monotonic(), moved))

        thread = threading.Thread(target=download)
        thread.start()
        self.addCleanup(thread.join, 15)
        self.addCleanup(stop.set)
        wait_until(lambda: self.proxy("server").metric("postern_bytes_total") > 10_000_000, 30,
                   "a download under way")
        before = self.closed("server", "peer_revoked")
        made = self.revoke("--spiffe-id", CLIENT_ID)
        returned = time.monotonic()
        self.addCleanup(self.mesh.postern, "revoke", "lift", str(made["number"]), check=False)
        wait_until(lambda: cut, 5, "the cut")
        print(f"a download of {cut[0][1] >> 20} MiB was cut {1000 * (cut[0][0] - returned):+.1f} ms "
              f"from the command's return")
        self.assertLess(cut[0][0] - returned, 1.0)
        self.assertEqual(made["certificates"], 1)
        wait_until(lambda: self.closed("server", "peer_revoked") == before + 1, 5, "the count")
        self.assertFalse(self.visit())
        wait_until(lambda: "laptop stolen" in json.dumps(self.proxy("server").failures()[0]), 5,
                   "the reason among the failures")
        self.assertEqual(self.listed(), 1)
        # Its renewal is refused: the stream is gone, and stays so.
        wait_until(lambda: self.proxy("client").metric("postern_issuer_connected") == 0, 10,
                   "the end of its stream")
        with open(self.proxy("client").log_path, encoding="utf-8") as log:
            wait_until(lambda: "laptop stolen" in log.read(), 15, "the reason in its own log")
        # Nor is its certificate renewed: it tries that between its token, which is used up.
        wait_until(lambda: re.search("refused reason=revoked evidence=existing_certificate .*laptop stolen",
                                     self.issuer_log()), 30, self.issuer_log)
        wait_until(lambda: self.mesh.issuer_metric("postern_issuer_refused_total",
                                                   reason="revoked") > 0, what="the count")
        listed = json.loads(self.mesh.postern("revoke", "list", "--output", "json").stdout)
        self.assertEqual([r["spiffe_id"] for r in listed["revocations"]], [CLIENT_ID])
        self.lift(made["number"])
        wait_until(self.visit, 10, "the server's proxy has heard of it too")

    def issuer_log(self):
        with open(self.mesh.path("issuer.log"), encoding="utf-8") as log:
            return log.read()

    def test_after_a_restart_without_the_issuer_the_list_still_counts(self):
        server, listed = self.proxy("server"), self.listed()
        made = self.revoke("--spiffe-id", CLIENT_ID)
        wait_until(lambda: self.listed() > listed, 5, "the list at the server's proxy")
        server.stop()
        self.mesh.stop_issuer()
        server.start()
        server.wait_ready()
        self.assertFalse(self.visit())
        wait_until(lambda: self.closed("server", "peer_revoked") > 0, 5, "the refusal")
        self.assertEqual(server.metric("postern_issuer_connected"), 0)
        self.mesh.start_issuer()
        self.lift(made["number"])
        wait_until(self.visit, 30, "the client is let in again")

    @staticmethod
    def leaves(proxy):
        """The serial of the certificate that it shows."""
        return [one["serial"] for one in proxy.page("/certs")["certificates"] if one["kind"] == "leaf"]

    def test_a_proxy_whose_certificate_was_revoked_takes_a_new_token_at_once(self):
        client = self.proxy("client")
        serials = self.leaves(client)
        self.mesh.new_token("client")  # for a new entry, as after a machine was cleaned
        with open(client.log_path, encoding="utf-8") as log:
            log.read()
            self.revoke("--serial", serials[0])
            began = time.monotonic()
            # First: until it has heard of it, it still gets in with what it has.
            wait_until(lambda: "another one is asked for at once" in log.read(), 20,
                       lambda: str(client.page("/status")["identity"]))
        wait_until(lambda: serials != self.leaves(client) and self.visit(), 20,
                   lambda: str(client.page("/status")["identity"]))
        # Its next renewal would have been half an hour away.
        print(f"a revoked proxy was back with its token after {time.monotonic() - began:.1f} s")

    def start_anew(self, proxy, token):
        """Restarts a proxy without the certificate that it had: it needs the token."""
        proxy.stop()
        for name in ("svid.pem", "key.pem"):
            os.unlink(os.path.join(self.mesh.path(f"{proxy.name}.state"), name))
        self.mesh.owned_file(f"{proxy.name}.token", token)
        proxy.start()

    def test_an_entry_that_is_deleted_takes_its_connections_along(self):
        token = json.loads(self.mesh.postern(
            "token", "create", "--spiffe-id", CLIENT_ID, "--output", "json").stdout)
        client = self.proxy("client")
        self.start_anew(client, token["token"])
        client.wait_ready()
        wait_until(self.visit, 20, "the way to the server, which the issuer tells")
        with self.connect() as connection:
            connection.sendall(b"ping")
            self.assertEqual(connection.recv(4), b"ping")
            self.mesh.postern("entry", "delete", token["entry"]["id"])
            returned = time.monotonic()
            with self.assertRaises(ConnectionResetError):
                while connection.recv(1):
                    pass
                raise ConnectionResetError  # an end is an end as well
            self.assertLess(time.monotonic() - returned, 1.0)
        self.assertFalse(self.visit())
        # The way back is a new entry: the old certificates stay out, new ones are let in. The proxy
        # finds the token by itself.
        self.mesh.new_token("client")
        wait_until(self.visit, 60, "the client of the new entry")


if __name__ == "__main__":
    unittest.main()
