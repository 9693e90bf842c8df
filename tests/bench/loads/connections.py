# SPDX-License-Identifier: Apache-2.0
"""New connections: connect, send a byte, get it back, close. With full and with resumed handshakes."""

import asyncio
import contextlib
import socket
import time

import backends
from loads.base import Load, Meter
from peers.base import Plan
from processes import StartFailed

AT_ONCE = 4


async def _one(port, timeout):
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), timeout)
    try:
        writer.write(b"x")
        if await asyncio.wait_for(reader.read(1), timeout) != b"x":
            raise StartFailed("a new connection carried nothing")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _many(port, count, timeout):
    left = iter(range(count))

    async def some():
        for _ in left:
            await _one(port, timeout)
    await asyncio.gather(*[some() for _ in range(AT_ONCE)])


def open_and_close(port, count, timeout=10.0):
    """`count` connections, four at a time; StartFailed when one does not get its byte back."""
    try:
        asyncio.run(_many(port, count, timeout))
    except (OSError, asyncio.TimeoutError) as error:
        raise StartFailed(f"new connections: {type(error).__name__} {error}") from error


class NewConnections(Load):
    """CPU of one connection's whole life with nearly nothing in it."""

    def __init__(self, resumption):
        self._resumption = resumption
        self.name = "resumed" if resumption else "full"
        self.keys = ("resumed_cpu_ms",) if resumption else ("full_cpu_ms",)

    def run(self, scene, peer):
        count = scene.amounts["connections"]
        with backends.echo(scene.workshop) as target, \
                peer.start(scene.workshop, scene.authority,
                           Plan(target, resumption=self._resumption)) as pair:
            open_and_close(pair.port, max(20, count // 10))  # warm, and a session to resume
            with Meter(pair).running() as meter:
                open_and_close(pair.port, count)
            return {self.keys[0]: meter.seconds / count * 1e3}


class Start(Load):
    """From the start of the client's side, its certificate in files, to the first byte it carried."""

    name = "start"
    keys = ("start_ms",)

    def run(self, scene, peer):
        with backends.echo(scene.workshop) as target:
            client_side, server_side = peer.sides(scene.workshop, scene.authority, Plan(target))
            server = peer.launch(scene.workshop, server_side)
            client = None
            try:
                server.wait_listening(peer.ready_port(server_side))
                begin = time.perf_counter()
                client = peer.launch(scene.workshop, client_side)
                deadline = begin + 20
                while not carries(client_side.listen):
                    client.check_running()
                    if time.perf_counter() > deadline:
                        raise StartFailed(f"{peer.name} carried nothing for 20 s")
                    time.sleep(0.0005)
                return {"start_ms": (time.perf_counter() - begin) * 1e3}
            finally:
                scene.workshop.stop(*[one for one in (client, server) if one])


def carries(port):
    """Whether a byte comes back from the echo behind this port."""
    with contextlib.closing(socket.socket()) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"x")
            return sock.recv(1) == b"x"
        except OSError:
            return False
