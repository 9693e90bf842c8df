# SPDX-License-Identifier: Apache-2.0
"""What splice(2) would save where both ends of a relay are plaintext, without the proxy.

One source, one relay and one sink, each a process, joined by TCP: on loopback, or (--veth, root)
in three namespaces. The relay carries the bytes as the proxy does (recv and send over one buffer)
or through a pipe. Work `stream` sends as fast as it goes, `turnsN` sends N KiB when the last have
arrived. Printed are medians of CPU, user and system, in ms for each GB (1e9 bytes):
of the relay, of all three, and the range of the relay's.
"""

import argparse
import contextlib
import errno
import fcntl
import os
import select
import socket
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "testing"))

import lab  # noqa: E402

KIB = 1024
# (way, bytes of a buffer or a pipe)
WAYS = [("copy", 96 * KIB), ("copy", 256 * KIB), ("copy", 1024 * KIB),
        ("splice", 64 * KIB), ("splice", 256 * KIB), ("splice", 1024 * KIB)]
# Bytes that are asked for at a time; 0: the source never waits.
WORKS = {"stream": 0, "turns16": 16 * KIB, "turns64": 64 * KIB, "turns256": 256 * KIB}
PORT_IN, PORT_OUT = 20180, 20181
LIMIT_SECONDS = 60


def until_ready(sock, event):
    poll = select.poll()
    poll.register(sock, event)
    if not poll.poll(LIMIT_SECONDS * 1000):
        raise TimeoutError("nothing moves")


def patiently(sock, event, call):
    """What `call` returns, once it does not fail with EAGAIN."""
    while True:
        try:
            return call()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        until_ready(sock, event)


def relay_by_copy(source, sink, size):
    buffer = memoryview(bytearray(size))
    while True:
        until_ready(source, select.POLLIN)
        got = patiently(source, select.POLLIN, lambda: source.recv_into(buffer))
        if got == 0:
            return
        at = 0
        while at < got:
            rest = buffer[at:got]
            at += patiently(sink, select.POLLOUT, lambda rest=rest: sink.send(rest))


def relay_by_splice(source, sink, size):
    flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
    out_of, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, size)
    while True:
        until_ready(source, select.POLLIN)
        left = patiently(source, select.POLLIN,
                         lambda: os.splice(source.fileno(), into, size, flags=flags))
        if left == 0:
            return
        while left > 0:
            left -= patiently(sink, select.POLLOUT,
                              lambda left=left: os.splice(out_of, sink.fileno(), left, flags=flags))


def send_all(sock, total, turn, told):
    block = b"x" * (turn or 128 * KIB)
    for _ in range(total // len(block)):
        sock.sendall(block)
        if turn:
            os.read(told, 1)
    sock.shutdown(socket.SHUT_WR)


def take_all(sock, turn, tell):
    buffer = bytearray(1024 * KIB)
    waiting = 0
    while True:
        got = sock.recv_into(buffer)
        if got == 0:
            return
        waiting += got
        while turn and waiting >= turn:
            waiting -= turn
            os.write(tell, b".")


def in_child(work):
    """Runs `work` in a process of its own; returns its process ID."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def cpu_of(pid):
    """Waits for a child; its processor time in seconds."""
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RuntimeError("a process of the measurement failed")
    return usage.ru_utime + usage.ru_stime


def joined(place, address, port, of, to):
    """A TCP connection between two places (namespaces; None: this one): (end of `of`, of `to`)."""
    if place is None:
        listener = socket.create_server((address, port))
        near = socket.create_connection((address, port))
    else:
        listener, near = to.listen(address, port), of.connect(address, port)
    with contextlib.closing(listener):
        far, _ = listener.accept()
    near.settimeout(None)
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def measure(places, way, size, turn, total):
    """(relay, all) in ms of CPU for each GB."""
    a, b, c = places or (None, None, None)
    at = ("198.18.1.2", "198.18.2.2") if places else ("127.0.0.1", "127.0.0.1")
    source, inward = joined(places, at[0], PORT_IN, a, b)
    outward, sink = joined(places, at[1], PORT_OUT, b, c)
    inward.setblocking(False)
    outward.setblocking(False)
    told, tell = os.pipe()
    ends = [source, inward, outward, sink]

    def alone(end, do):
        def run():
            for other in ends:
                if other not in end:
                    other.close()
            do()
        return in_child(run)

    carry = relay_by_copy if way == "copy" else relay_by_splice
    children = [alone([inward, outward], lambda: carry(inward, outward, size)),
                alone([source], lambda: send_all(source, total, turn, told)),
                alone([sink], lambda: take_all(sink, turn, tell))]
    for end in ends:
        end.close()
    for end in (told, tell):
        os.close(end)
    times = [cpu_of(child) * 1e12 / total for child in children]
    return times[0], sum(times)


@contextlib.contextmanager
def namespaces(wanted):
    if not wanted:
        yield None
        return
    with lab.Lab() as spaces:
        a, b, c = (spaces.namespace(name) for name in ("source", "relay", "sink"))
        spaces.join(a, b, 1)
        spaces.join(b, c, 2)
        yield a, b, c


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=256, help="carried by each measurement")
    parser.add_argument("--veth", action="store_true", help="three namespaces in place of loopback")
    options = parser.parse_args()
    samples = {}
    began = time.monotonic()
    with namespaces(options.veth) as places:
        for _ in range(options.rounds):
            for work, turn in WORKS.items():
                for way, size in WAYS:
                    samples.setdefault((work, way, size), []).append(
                        measure(places, way, size, turn, options.mib * KIB * KIB))
    print("work     way     KiB   relay   all three   relay, range")
    for (work, way, size), taken in samples.items():
        relay, whole = zip(*taken)
        print(f"{work:8} {way:7} {size // KIB:4} {statistics.median(relay):7.0f} "
              f"{statistics.median(whole):11.0f}   {min(relay):.0f} to {max(relay):.0f}")
    print(f"{options.rounds} rounds of {options.mib} MiB in {time.monotonic() - began:.0f} s, "
          f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
