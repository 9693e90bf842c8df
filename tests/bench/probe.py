# SPDX-License-Identifier: Apache-2.0
"""Looks whether a pair does what is compared: TLS 1.3, full or resumed as asked, and names checked.

Between the two proxies stands a relay that reads the ServerHello, which is in the clear: its
extensions tell the version, the key exchange and whether a session was resumed.
"""

import contextlib
import socket
import struct
import threading

import backends
from loads.connections import carries, open_and_close
from peers.base import Plan
from processes import StartFailed

# How many connections are looked at, and the least share of them that must be resumed.
CONNECTIONS, RESUMED_AT_LEAST = 40, 0.8
EXTENSION_PSK, EXTENSION_VERSIONS, EXTENSION_KEY_SHARE = 41, 43, 51
GROUPS = {23: "P-256", 24: "P-384", 29: "X25519", 4588: "X25519MLKEM768"}
CIPHERS = {0x1301: "AES-128-GCM", 0x1302: "AES-256-GCM", 0x1303: "ChaCha20-Poly1305"}


class Hello:
    """What one ServerHello says."""

    def __init__(self, content):
        session = content[34]
        at = 35 + session
        self.cipher, = struct.unpack_from(">H", content, at)
        size, = struct.unpack_from(">H", content, at + 3)
        at += 5
        end = at + size
        extensions = {}
        while at + 4 <= end:
            kind, length = struct.unpack_from(">HH", content, at)
            extensions[kind] = content[at + 4:at + 4 + length]
            at += 4 + length
        self.is_tls13 = extensions.get(EXTENSION_VERSIONS) == b"\x03\x04"
        self.resumed = EXTENSION_PSK in extensions
        share = extensions.get(EXTENSION_KEY_SHARE, b"")
        self.group = struct.unpack(">H", share[:2])[0] if len(share) > 1 else None

    def words(self):
        """Version, group and cipher."""
        return (f"{'TLS 1.3' if self.is_tls13 else 'not TLS 1.3'}, "
                f"{GROUPS.get(self.group, self.group)}, {CIPHERS.get(self.cipher, self.cipher)}")


# The random value that marks a ServerHello as a HelloRetryRequest (RFC 8446, 4.1.3).
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def find_hello(stream):
    """The ServerHello in the first bytes of a server, or None as long as it is not complete."""
    at = 0
    while at + 5 <= len(stream):
        kind, _, length = struct.unpack_from(">BHH", stream, at)
        record = stream[at + 5:at + 5 + length]
        if len(record) < length:
            return None
        if kind == 22 and record[0] == 2 and record[6:38] != RETRY:
            return Hello(record[4:])
        at += 5 + length
    return None


class Relay:
    """Passes bytes on between a client side and a server side, and collects the ServerHellos."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._target = None
        self._lock = threading.Lock()
        self.hellos = []

    def between(self, port):
        """For Plan.between: relays to `port` from now on, returns where to dial."""
        self._target = port
        threading.Thread(target=self._accept, daemon=True).start()
        return self._listener.getsockname()[1]

    def close(self):
        """Ends accepting; what is open ends with its proxies."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for source, sink, watch in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, watch),
                                 daemon=True).start()

    def _pass_on(self, source, sink, watch):
        seen = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if watch:
                    seen += data
                    hello = find_hello(seen)
                    if hello:
                        watch = False
                        with self._lock:
                            self.hellos.append(hello)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def look_at_handshakes(workshop, authority, peer, resumption):
    """Words on the handshakes; StartFailed when they are not what the numbers claim.

    Connections are opened as the loads do it: with several at once, a peer that keeps one session may
    find none.
    """
    relay = Relay()
    try:
        with backends.echo(workshop) as target, \
                peer.start(workshop, authority, Plan(target, resumption=resumption,
                                                     between=relay.between)) as pair:
            if not carries(pair.port):
                raise StartFailed(f"carries nothing: {pair.client.last_words()}")
            open_and_close(pair.port, CONNECTIONS)
    finally:
        relay.close()
    if not relay.hellos or not all(hello.is_tls13 for hello in relay.hellos):
        raise StartFailed("does not speak TLS 1.3")
    resumed = [hello.resumed for hello in relay.hellos]
    if not resumption and any(resumed):
        raise StartFailed("resumes sessions that are to be full handshakes")
    if resumption and sum(resumed) < RESUMED_AT_LEAST * len(resumed):
        raise StartFailed(f"resumed {sum(resumed)} of {len(resumed)} connections")
    if resumption:
        return f"resumes {sum(resumed)} of {len(resumed)}"
    return relay.hellos[-1].words()


def look_at_names(workshop, authority, peer):
    """StartFailed when one of the sides lets a wrong name pass that the same root has signed."""
    for side, leaf in (("server", {"client_leaf": authority.intruder}),
                       ("client", {"server_leaf": authority.intruder})):
        with backends.echo(workshop) as target, \
                peer.start(workshop, authority, Plan(target, **leaf)) as pair:
            if carries(pair.port):
                raise StartFailed(f"its {side} side does not check the other's name")
