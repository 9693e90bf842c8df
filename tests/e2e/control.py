# SPDX-License-Identifier: Apache-2.0
"""A proxy's control socket (--admin-socket)."""

import contextlib
import http.client
import json
import socket


class Control:
    """Requests to the control socket at `path`, each over a connection of its own."""

    def __init__(self, path):
        self._path = path

    def request(self, method, target):
        """(status, text)"""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(10)
            connection.sock.connect(self._path)
            connection.request(method, target)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def page(self, target):
        status, text = self.request("GET", target)
        if status != 200:
            raise AssertionError(f"{target}: {status} {text}")
        return json.loads(text)

    def identity(self):
        return self.page("/status")["identity"]

    def leaf_serial(self):
        """Of the certificate in use; None before the first."""
        for one in self.page("/certs")["certificates"]:
            if one["kind"] == "leaf":
                return one["serial"]
        return None

    def renew(self):
        """Asks for a new certificate; does not wait for it."""
        status, text = self.request("POST", "/renew")
        if status != 200:
            raise AssertionError(f"/renew: {status} {text}")
