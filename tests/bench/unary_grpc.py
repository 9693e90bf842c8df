# SPDX-License-Identifier: Apache-2.0
"""Unary gRPC calls over a unix socket, as far as the issuer's own services need them.

One connection, one call at a time. Messages are bytes that the caller has encoded (field, number).
A call has succeeded when a message came back: a refusal is trailers alone.
"""

import contextlib
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WIDEST = 2**31 - 1


class CallFailed(Exception):
    """The call was refused; the message has the trailers as they came."""


def number(value):
    """A varint of protobuf."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(index, content):
    """A length-delimited field of protobuf: text, bytes or a message."""
    content = content.encode() if isinstance(content, str) else content
    return number(index << 3 | 2) + number(len(content)) + content


def _literal(name, value):
    """A header that no table keeps; `name` is a text or an index of HPACK's static table."""
    words = [value] if isinstance(name, int) else [name, value]
    head = bytes([name]) if isinstance(name, int) else b"\0"
    return head + b"".join(bytes([len(word)]) + word.encode() for word in words)


class Channel:
    """A connection to the socket at `path`."""

    def __init__(self, path, timeout=30.0):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(path)
        self._stream, self._received = -1, b""
        self._socket.sendall(
            PREFACE + self._frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WIDEST))
            + self._frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDEST - 65535)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._socket.close()

    @staticmethod
    def _frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def _read(self):
        """The next frame: kind, flags, stream, payload."""
        while True:
            if len(self._received) >= 9:
                size = int.from_bytes(self._received[:3], "big")
                if len(self._received) >= 9 + size:
                    kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
                    payload = self._received[9:9 + size]
                    self._received = self._received[9 + size:]
                    return kind, flags, stream, payload
            more = self._socket.recv(65536)
            if not more:
                raise CallFailed("the connection was closed")
            self._received += more

    def call(self, method, message):
        """The reply's bytes; `method` is "/package.Service/Method"."""
        self._stream += 2
        headers = (b"\x83\x86" + _literal(4, method) + _literal(1, "localhost")
                   + _literal("te", "trailers") + _literal("content-type", "application/grpc"))
        self._socket.sendall(
            self._frame(HEADERS, END_HEADERS, self._stream, headers)
            + self._frame(DATA, END_STREAM, self._stream,
                          b"\0" + struct.pack(">I", len(message)) + message))
        reply, said = b"", b""
        while True:
            kind, flags, stream, payload = self._read()
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._socket.sendall(
                    self._frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                raise CallFailed(f"{method}: {payload[8:]!r}")
            elif stream == self._stream:
                reply += payload if kind == DATA else b""
                said += payload if kind == HEADERS else b""
                if kind not in (DATA, HEADERS, WINDOW_UPDATE):
                    raise CallFailed(f"{method}: frame {kind}")
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    break
        if len(reply) < 5:
            raise CallFailed(f"{method}: {said!r}")
        return reply[5:]
