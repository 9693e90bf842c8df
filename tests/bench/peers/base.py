# SPDX-License-Identifier: Apache-2.0
"""What every peer has in common: how a pair is described, started and stopped."""

import contextlib
import os
import re
import subprocess

from processes import StartFailed


class Unsupported(Exception):
    """This peer cannot do this; the message is what the table's gap says."""


class Plan:
    """What one pair is to be.

    target       port on 127.0.0.1 of the application
    resumption   whether TLS sessions may be resumed
    connections  how many will be open at most
    workers      worker threads of each proxy (postern alone heeds other values than 1)
    between      None, or called with the server side's port; returns the port that the client side
                 is to dial instead: something that listens in
    client_leaf  who the client side is, where it is not the client
    server_leaf  the same of the server side
    """

    def __init__(self, target, resumption=False, connections=2000, workers=1, between=None,
                 client_leaf=None, server_leaf=None):
        self.target, self.resumption = target, resumption
        self.connections, self.workers, self.between = connections, workers, between
        self.client_leaf, self.server_leaf = client_leaf, server_leaf


class Side:
    """One proxy of a pair, as a peer's `command` gets it: where it listens and dials, and who it is."""

    def __init__(self, role, listen, dial, own, other, root, plan):
        self.role, self.listen, self.dial = role, listen, dial
        self.own, self.other, self.root, self.plan = own, other, root, plan
        self.is_client = role == "client"


class Pair:
    """Two running proxies. `port` is where plaintext goes in; `pids` are the proxies."""

    def __init__(self, workshop, port, client, server):
        self._workshop, self.port = workshop, port
        self.client, self.server = client, server
        self.programs = [program for program in (client, server) if program is not None]
        self.pids = [program.pid for program in self.programs]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def check_running(self):
        """StartFailed when one of the two has ended."""
        for program in self.programs:
            program.check_running()

    def stop(self):
        """Ends both."""
        self._workshop.stop(*self.programs)


class Peer:
    """A kind of proxy. A peer's file says how it is found and what one side's command line is."""

    name = ""
    # Whether there is anything to account: not for the column without a proxy.
    has_proxies = True
    # The kinds of work that it can do, where it is not all; it speaks no TLS then.
    works = None
    # Why many thousand connections are not tried, or nothing.
    no_scale = ""

    def missing(self):
        """Why it cannot be run here, or nothing."""
        raise NotImplementedError

    def version(self):
        """Its version and TLS library, for the heading."""
        raise NotImplementedError

    def command(self, workshop, side):
        """(command, Popen options) of one side; Unsupported when the plan asks for too much."""
        raise NotImplementedError

    def ready_port(self, side):
        """The port that is listened on once this side works."""
        return side.listen

    def sides(self, workshop, authority, plan):
        """(client side, server side) with their ports chosen, `between` included."""
        inner, outer = workshop.free_port(), workshop.free_port()
        dial = plan.between(inner) if plan.between else inner
        return (Side("client", outer, dial, plan.client_leaf or authority.client, authority.server,
                     authority.root, plan),
                Side("server", inner, plan.target, plan.server_leaf or authority.server,
                     authority.client, authority.root, plan))

    def launch(self, workshop, side):
        """Starts one side without waiting for it."""
        command, options = self.command(workshop, side)
        return workshop.start(f"{self.name}-{side.role}", command, **options)

    def start(self, workshop, authority, plan):
        """Starts both sides; returns the Pair when both listen."""
        client_side, server_side = self.sides(workshop, authority, plan)
        server = self.launch(workshop, server_side)
        client = None
        try:
            server.wait_listening(self.ready_port(server_side))
            client = self.launch(workshop, client_side)
            client.wait_listening(self.ready_port(client_side))
        except BaseException:
            workshop.stop(*[one for one in (client, server) if one])
            raise
        return Pair(workshop, client_side.listen, client, server)


def output_of(*command):
    """What a program prints when asked for its version; empty when it cannot be run."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=20, check=False).stdout
    return ""


def offers_post_quantum():
    """Whether the system's OpenSSL has X25519MLKEM768, which it then offers first for postern, haproxy,
    nginx and stunnel."""
    return "X25519MLKEM768" in output_of("openssl", "list", "-kem-algorithms")


def found_in(text, pattern, otherwise="?"):
    """The first group of a pattern in a text."""
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1) if match else otherwise


def named_by(variable):
    """(path, why it is missing) of a program that an environment variable names."""
    path = os.environ.get(variable, "")
    if not path:
        return None, f"{variable} is not set"
    if not os.access(path, os.X_OK):
        return None, f"{variable}={path} cannot be run"
    return path, ""


__all__ = ["Pair", "Peer", "Plan", "Side", "StartFailed", "Unsupported", "found_in", "named_by",
           "offers_post_quantum", "output_of"]
