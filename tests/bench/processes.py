# SPDX-License-Identifier: Apache-2.0
"""Programs started by the benchmark, their directory and ports, and a promise that all of it goes.

A Workshop owns a temporary directory and every process started through it. close() ends and removes
all; it runs as a context manager's exit, and SIGTERM and SIGINT arrive as SystemExit, so that it runs
then too.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time


class StartFailed(Exception):
    """A program ended, or was not there in time. The message holds what it said last."""


def raise_descriptor_limit(wanted=65536):
    """Lets us and what we start open so many descriptors, or as many as may be; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError):  # only root may go above the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Ending:
    """What a signal has asked for: never between a program's start and its place in the list."""

    held, asked = False, 0


def end_on_signals():
    """Lets `finally` and context managers run on the first SIGTERM or SIGINT; later ones are idle."""
    def on_signal(number, _):
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: None)
        _Ending.asked = number
        if not _Ending.held:
            raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


@contextlib.contextmanager
def _signals_held():
    """A signal that arrives inside takes effect at the end."""
    before, _Ending.held = _Ending.asked, True
    try:
        yield
    finally:
        _Ending.held = False
    if _Ending.asked and not before:
        raise SystemExit(128 + _Ending.asked)


def _lowest_ephemeral():
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as handle:
        return int(handle.read().split()[0])


def wait_until(condition, timeout, what, interval=0.002):
    """Polls until condition() is true and returns its value; StartFailed after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise StartFailed(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


class Program:
    """One started program. `log` is the file with its standard output and error."""

    def __init__(self, process, name, log):
        self.process, self.name, self.log = process, name, log
        self.pid = process.pid

    def last_words(self):
        """The last line that it printed."""
        with contextlib.suppress(OSError), open(self.log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
            return lines[-1][:200] if lines else "(nothing)"
        return "(nothing)"

    def check_running(self):
        """StartFailed when it has ended."""
        if self.process.poll() is not None:
            raise StartFailed(f"{self.name} ended with {self.process.returncode}: "
                              f"{self.last_words()}")

    def wait_listening(self, port, timeout=15.0):
        """Returns once 127.0.0.1:port is listened on; StartFailed when the program ends."""
        def listens():
            self.check_running()
            return is_listening(port)
        wait_until(listens, timeout, lambda: f"{self.name} on port {port}: {self.last_words()}")


def is_listening(port):
    """Whether something listens on 127.0.0.1:port. Not by connecting: iperf3 would take that for a test."""
    with open("/proc/net/tcp", encoding="ascii") as handle:
        next(handle)
        for line in handle:
            fields = line.split()
            if fields[3] != "0A":  # the listening ones come first
                return False
            if fields[1] == f"0100007F:{port:04X}":
                return True
    return False


class Workshop:
    """See the head of the file."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="pstn-bench-")
        os.chmod(self.directory, 0o755)  # nginx's worker gives up root
        self._programs = []
        self._count = 0
        self._ports = set()
        self._ceiling = _lowest_ephemeral()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def path(self, name):
        """Absolute path of a file in the directory."""
        return os.path.join(self.directory, name)

    def write(self, name, text):
        """Writes a file and returns its path."""
        with open(self.path(name), "w", encoding="utf-8") as handle:
            handle.write(text)
        return self.path(name)

    def free_port(self):
        """A free port that was not given out before, below those the kernel picks for clients.

        The load opens so many connections that a port which the kernel found free a moment ago may
        be some client's when a program comes to bind it.
        """
        for _ in range(1000):
            port = random.randrange(min(16384, self._ceiling // 2), self._ceiling)
            if port in self._ports:
                continue
            with contextlib.closing(socket.socket()) as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self._ports.add(port)
            return port
        raise StartFailed("no free port")

    def start(self, name, command, **options):
        """Starts a program in a process group of its own."""
        self._count += 1
        log = self.path(f"{self._count}-{name}.log")
        with open(log, "wb") as output, _signals_held():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True, **options)
            program = Program(process, name, log)
            self._programs.append(program)
        return program

    def stop(self, *programs):
        """Ends programs with all their children. SIGKILL, since nothing of theirs is worth a drain."""
        for program in programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.process.wait()
            if program in self._programs:
                self._programs.remove(program)

    def close(self):
        """Ends everything and removes the directory."""
        self.stop(*reversed(self._programs))
        shutil.rmtree(self.directory, ignore_errors=True)
