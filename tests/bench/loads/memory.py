# SPDX-License-Identifier: Apache-2.0
"""Memory: of an idle pair, and of each idle TLS connection."""

import contextlib
import socket

import accounting
import backends
from loads.base import Load
from peers.base import Plan
from processes import StartFailed

FIRST = 20


@contextlib.contextmanager
def held_connections(port, count, request=b"x", expect=b"x"):
    """`count` connections through a pair, each of which has carried one exchange and then rests."""
    held = []
    try:
        try:
            while len(held) < count:
                _open_some(port, min(50, count - len(held)), held, request, expect)
        except OSError as error:
            raise StartFailed(f"connection {len(held)} of {count}: {error}") from error
        yield held
    finally:
        for sock in held:
            sock.close()


def _open_some(port, count, held, request, expect):
    fresh = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        held.append(sock)
        fresh.append(sock)
        sock.sendall(request)
    for sock in fresh:
        if not sock.recv(4096).startswith(expect):
            raise StartFailed("a connection that is to rest carried nothing")


class Memory(Load):
    """PSS of a pair before and after connections were opened that then rest."""

    name = "memory"
    keys = ("idle_pss_mib", "connection_kib")

    def run(self, scene, peer):
        count = scene.amounts["idle"]
        with backends.echo(scene.workshop) as target, \
                peer.start(scene.workshop, scene.authority,
                           Plan(target, connections=count + 2 * FIRST)) as pair:
            idle = accounting.idle_pss_kib(pair.pids)
            # The first ones bring in code and buffers that all share.
            with held_connections(pair.port, FIRST):
                before = accounting.settled_pss_kib(pair.pids)
                with held_connections(pair.port, count):
                    after = accounting.settled_pss_kib(pair.pids)
            pair.check_running()
        return {"idle_pss_mib": idle / 2 / 1024, "connection_kib": (after - before) / count / 2}
