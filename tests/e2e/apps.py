#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small applications with known manners, run inside namespaces by the tests.

Servers (apps.py KIND PORT) listen on 0.0.0.0 and [::], print "listening" and serve until killed:
  echo        sends back what comes, and ends when the client ends
  smtp        speaks first, then answers line by line
  sum         reads to the end, then answers with how many bytes came, then ends
  reset       reads one byte, then resets
  flood       sends without end; prints how much the kernel took, once a second
Clients (apps.py KIND ADDRESS PORT ...) print one JSON line and exit 0 when all held:
  hold N            opens N connections, echoes on each, prints, waits for a line, echoes again, ends
  churn N [JOBS]    opens, echoes and ends N connections one after another, in JOBS threads
  load              echoes on short and on long connections until standard input ends
  leaf CHAIN KEY    mutual TLS with these files, one echo, an orderly end; prints the peer's leaf
  carry N [PORTS]   N long connections, spread over PORTS ports from PORT on, that echo five times a
                    second each, and short ones beside them, until standard input ends
"""

import contextlib
import json
import resource
import selectors
import socket
import ssl
import struct
import sys
import threading
import time

LINGER_RESET = struct.pack("ii", 1, 0)


def listeners(port):
    found = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(4096)
        found.append(sock)
    return found


def serve_each(port, handle):
    """One thread for each connection."""
    def accept_all(listener):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=guarded, args=(handle, sock), daemon=True).start()

    def guarded(function, sock):
        with contextlib.suppress(OSError), contextlib.closing(sock):
            function(sock)

    threads = [threading.Thread(target=accept_all, args=(s,), daemon=True) for s in listeners(port)]
    for thread in threads:
        thread.start()
    print("listening", flush=True)
    for thread in threads:
        thread.join()


def echo(port):
    """Thousands of connections at a time: one thread, readiness."""
    chooser = selectors.DefaultSelector()
    for listener in listeners(port):
        listener.setblocking(False)
        chooser.register(listener, selectors.EVENT_READ, True)
    print("listening", flush=True)
    while True:
        for key, _ in chooser.select():
            sock = key.fileobj
            if key.data:
                with contextlib.suppress(OSError):
                    accepted, _ = sock.accept()
                    accepted.setblocking(True)
                    chooser.register(accepted, selectors.EVENT_READ, False)
                continue
            try:
                data = sock.recv(65536)
                if data:
                    sock.sendall(data)
            except OSError:
                data = b""
            if not data:
                chooser.unregister(sock)
                sock.close()


def smtp(sock):
    sock.sendall(b"220 mail.example ESMTP\r\n")
    for line in sock.makefile("rb"):
        if line.startswith(b"QUIT"):
            sock.sendall(b"221 bye\r\n")
            return
        sock.sendall(b"250 " + line)


def total(sock):
    count = 0
    while data := sock.recv(65536):
        count += len(data)
    sock.sendall(b"%d" % count)


def reset(sock):
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)


def flood(sock):
    block, sent, last = b"\xa5" * 65536, 0, time.monotonic()
    sock.settimeout(0.5)
    while True:
        with contextlib.suppress(socket.timeout):
            sent += sock.send(block)
        if time.monotonic() - last > 1:
            last = time.monotonic()
            print(sent, flush=True)


def connect(address, port, timeout=30.0):
    sock = socket.create_connection((address, port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def expect_echo(sock, data):
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"ended after {len(got)} of {len(data)} bytes")
        got += more
    if got != data:
        raise ConnectionError("not what was sent")


def hold(address, port, count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 100)), hard))
    socks = []
    while len(socks) < count:
        # Not all at once: this is about many that are open, not about a burst of handshakes.
        batch = [connect(address, port) for _ in range(min(50, count - len(socks)))]
        for i, sock in enumerate(batch):
            expect_echo(sock, b"first %d" % i)
        socks += batch
    print(json.dumps({"open": len(socks)}), flush=True)
    sys.stdin.readline()
    for i, sock in enumerate(socks):
        expect_echo(sock, b"second %d" % i)
        sock.close()
    print(json.dumps({"done": len(socks)}), flush=True)


def churn(address, port, count, jobs=1):
    errors = []

    def work(share):
        for i in range(share):
            try:
                with contextlib.closing(connect(address, port)) as sock:
                    expect_echo(sock, b"churn %d" % i)
            except OSError as error:
                errors.append(str(error))
                return

    started = time.monotonic()
    threads = [threading.Thread(target=work, args=(count // jobs,)) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"done": count, "errors": errors, "seconds": time.monotonic() - started}),
          flush=True)
    return 1 if errors else 0


def load(address, port):
    """Any trouble is counted; a well-behaved mesh gives none."""
    stop, lock = threading.Event(), threading.Lock()
    counts = {"short": 0, "long_echoes": 0, "slowest": 0.0, "errors": []}

    def note(key, started):
        with lock:
            counts[key] += 1
            counts["slowest"] = max(counts["slowest"], time.monotonic() - started)

    def short():
        while not stop.is_set():
            started = time.monotonic()
            try:
                with contextlib.closing(connect(address, port)) as sock:
                    expect_echo(sock, b"short")
                note("short", started)
            except OSError as error:
                with lock:
                    counts["errors"].append(f"short: {error}")
            time.sleep(0.02)

    def long():
        try:
            with contextlib.closing(connect(address, port)) as sock:
                while not stop.is_set():
                    started = time.monotonic()
                    expect_echo(sock, b"x" * 20000)
                    note("long_echoes", started)
                    time.sleep(0.05)
        except OSError as error:
            with lock:
                counts["errors"].append(f"long: {error}")

    threads = [threading.Thread(target=short) for _ in range(2)]
    threads += [threading.Thread(target=long) for _ in range(8)]
    for thread in threads:
        thread.start()
    print("running", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(counts), flush=True)
    return 1 if counts["errors"] else 0


def leaf(address, port, chain, key):
    """Who the peer is, is not checked: its certificate is what is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postern/1"])
    limit = time.monotonic() + 10
    while True:
        # A proxy renames one file after the other; what is read in between does not fit together.
        try:
            context.load_cert_chain(chain, key)
            break
        except ssl.SSLError as error:
            if error.reason != "KEY_VALUES_MISMATCH" or time.monotonic() > limit:
                raise
        time.sleep(0.01)
    with context.wrap_socket(connect(address, port)) as sock:
        expect_echo(sock, b"whose")
        print(json.dumps({"leaf": ssl.DER_cert_to_PEM_cert(sock.getpeercert(True))}), flush=True)
        sock.unwrap().close()
    return 0


def carry(address, port, count, ports=1):
    """A long connection is opened once: what ends it is an error."""
    stop, lock, jobs = threading.Event(), threading.Lock(), 8
    counts = {"long": 0, "echoes": 0, "short": 0, "errors": []}

    def note(key, number=1):
        with lock:
            counts[key] += number

    def long(socks):
        while not stop.is_set() and socks:
            for i, sock in list(enumerate(socks)):
                try:
                    expect_echo(sock, b"carried %d" % i)
                    note("echoes")
                except OSError as error:
                    socks.remove(sock)
                    with lock:
                        counts["errors"].append(f"long: {error}")
            stop.wait(0.2)
        note("long", len(socks))

    def short():
        i = 0
        while not stop.is_set():
            try:
                with contextlib.closing(connect(address, port + i % ports)) as sock:
                    expect_echo(sock, b"short")
                note("short")
            except OSError as error:
                with lock:
                    counts["errors"].append(f"short: {error}")
            i += 1
            stop.wait(0.02)

    socks = [connect(address, port + i % ports) for i in range(count)]
    for sock in socks:
        expect_echo(sock, b"first")
    threads = [threading.Thread(target=long, args=(socks[i::jobs],)) for i in range(jobs)]
    threads.append(threading.Thread(target=short))
    for thread in threads:
        thread.start()
    print("running", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(counts), flush=True)
    return 1 if counts["errors"] else 0


def main():
    kind, *rest = sys.argv[1:]
    if kind == "echo":
        return echo(int(rest[0]))
    handlers = {"smtp": smtp, "sum": total, "reset": reset, "flood": flood}
    if kind in handlers:
        return serve_each(int(rest[0]), handlers[kind])
    if kind == "leaf":
        return leaf(rest[0], int(rest[1]), *rest[2:])
    clients = {"hold": hold, "churn": churn, "load": load, "carry": carry}
    return clients[kind](rest[0], *[int(word) for word in rest[1:]])


if __name__ == "__main__":
    sys.exit(main())
