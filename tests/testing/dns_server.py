# SPDX-License-Identifier: Apache-2.0
"""A name server of a test's own: says what the test tells it, over UDP, in a thread."""

import socket
import struct
import threading

A, AAAA = 1, 28
SERVER_FAILURE, NO_SUCH_NAME = 2, 3


def _read_name(message):
    """The question's name in text and where it ends."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode("ascii", "replace").lower())
        at += 1 + message[at]
    return ".".join(labels), at + 1


class DnsServer:
    """`names` holds {name: (addresses, ttl)}; other names do not exist. `mood`: "answers", "fails"
    (SERVFAIL) or "silent"."""

    def __init__(self, case, address="127.0.0.1", port=0):
        self.names, self.mood, self.asked = {}, "answers", []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self._socket.bind((address, port))
        self.address, self.port = self._socket.getsockname()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                message, client = self._socket.recvfrom(1500)
                reply = self._reply(message)
                if reply:
                    self._socket.sendto(reply, client)
            except OSError:  # closed
                return

    def _reply(self, message):
        name, end = _read_name(message)
        kind, = struct.unpack(">H", message[end:end + 2])
        self.asked.append((name, kind))
        if self.mood == "silent":
            return None
        answers, code = [], 0
        if self.mood == "fails":
            code = SERVER_FAILURE
        elif name not in self.names:
            code = NO_SUCH_NAME
        else:
            addresses, ttl = self.names[name]
            for text in addresses:
                family = socket.AF_INET6 if ":" in text else socket.AF_INET
                if kind == (AAAA if ":" in text else A):
                    raw = socket.inet_pton(family, text)
                    answers.append(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(raw)) + raw)
        return (message[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(answers), 0, 0)
                + message[12:end + 4] + b"".join(answers))
