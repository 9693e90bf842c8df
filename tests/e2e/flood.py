#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client with bad manners, run inside a namespace by the tests.

  flood.py KIND ADDRESS PORT COUNT AGAIN
keeps COUNT connections open and opens those that end again, at most AGAIN of them in a second (0: none).
KIND is what each says: half (the beginning of a ClientHello), idle (nothing), plain (an HTTP request).
Each line on standard input is answered with one of JSON; it ends with standard input. "hello": all that are
open say the beginning of a ClientHello.
"""

import contextlib
import json
import resource
import selectors
import socket
import sys
import time

SAYS = {"half": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "idle": b"",
        "plain": b"GET / HTTP/1.0\r\n\r\n"}
STEP = 200  # connections between two looks at what has come


class Flood:
    def __init__(self, says, address, port, count, again):
        self.says, self.where, self.count, self.again = says, (address, port), count, again
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.chooser = selectors.DefaultSelector()
        self.chooser.register(sys.stdin, selectors.EVENT_READ)
        self.pending, self.open, self.opened, self.ended = 0, 0, 0, 0
        self.began = time.monotonic()

    def may_open(self):
        allowed = self.count + self.again * (time.monotonic() - self.began)
        return min(STEP, self.count - self.open - self.pending,
                   int(allowed) - self.opened - self.pending)

    def start_one(self):
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex(self.where)
        self.chooser.register(sock, selectors.EVENT_WRITE)
        self.pending += 1

    def connected(self, sock):
        self.pending -= 1
        self.opened += 1
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0:
            self.open += 1
            with contextlib.suppress(OSError):
                sock.sendall(self.says)
            self.chooser.modify(sock, selectors.EVENT_READ)
        else:
            self.drop(sock)

    def readable(self, sock):
        with contextlib.suppress(OSError):
            if sock.recv(65536):
                return
        self.open -= 1
        self.drop(sock)

    def say_all(self, what):
        for key in list(self.chooser.get_map().values()):
            if key.fileobj is not sys.stdin and key.events == selectors.EVENT_READ:
                with contextlib.suppress(OSError):
                    key.fileobj.sendall(what)

    def drop(self, sock):
        self.ended += 1
        self.chooser.unregister(sock)
        sock.close()

    def run(self):
        while True:
            for _ in range(max(self.may_open(), 0)):
                self.start_one()
            for key, events in self.chooser.select(0.02):
                if key.fileobj is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    if line == "hello\n":
                        self.say_all(SAYS["half"])
                    print(json.dumps({"open": self.open, "opened": self.opened,
                                      "ended": self.ended}), flush=True)
                elif events & selectors.EVENT_WRITE:
                    self.connected(key.fileobj)
                else:
                    self.readable(key.fileobj)


def main():
    kind, address, port, count, again = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, int(count) + 100)), hard))
    Flood(SAYS[kind], address, int(port), int(count), int(again)).run()


if __name__ == "__main__":
    main()
