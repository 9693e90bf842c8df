# SPDX-License-Identifier: Apache-2.0
"""Network namespaces for the tests, and a promise that nothing is left of them.

A Lab owns namespaces named pstn-<pid>-<name>, the veth pairs between them and every process it
started. close() ends and removes all of it; it also runs at exit and on SIGTERM and SIGINT.
Addresses come from 198.18.0.0/15 and fd00:5b::/32, which belong to nobody.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
import unittest

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def require_root(case_or_class=None):
    """Raises SkipTest unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root: makes network namespaces")


def run(command, check=True, **options):
    """subprocess.run with text and captured output; a failure shows what was said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


# In a mount namespace of one's own: nobody else sees what is mounted from then on. By the namespace,
# which has the root of all mounts: a chroot into a plain directory has not.
PRIVATE_MOUNTS = ("nsenter", "--mount=/proc/self/ns/mnt", "mount", "--make-rprivate", "/")


def wait_until(condition, timeout=10.0, what="condition", interval=0.02):
    """Polls until `condition()` is true and returns its value; AssertionError after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


class Namespace:
    """One network namespace, by its name in /run/netns."""

    def __init__(self, name):
        self.name = name
        self.path = f"/run/netns/{name}"

    def prefix(self, uid=None, capabilities=()):
        """The words that run a command inside, as `uid` when given, which keeps these capabilities
        ("net_admin"). `ip netns exec` and `ip -n` would remount /, which a chroot into a plain
        directory does not allow."""
        words = ["nsenter", f"--net={self.path}"]
        if uid:
            words += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        if capabilities:
            kept = ",".join(f"+{name}" for name in capabilities)
            words += [f"--inh-caps={kept}", f"--ambient-caps={kept}"]
        return words

    def run(self, *command, uid=None, check=True, **options):
        return run(self.prefix(uid) + list(command), check=check, **options)

    @contextlib.contextmanager
    def entered(self):
        """Sockets that this thread makes inside belong to the namespace for life."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(self.path, "rb") as there:
            _set_namespace(there.fileno())
            try:
                yield self
            finally:
                _set_namespace(home.fileno())

    def connect(self, address, port, timeout=5.0, mark=0):
        """A TCP connection from inside."""
        with self.entered():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout)
                if mark:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                sock.connect((address, port))
            except OSError:
                sock.close()
                raise
            return sock

    def listen(self, address, port, backlog=128):
        with self.entered():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
            sock.listen(backlog)
            return sock


def _set_namespace(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Lab:
    """See above. Use as a context manager, or close() it in a clean-up."""

    def __init__(self):
        require_root()
        self._prefix = f"pstn-{os.getpid()}"
        self._namespaces = {}
        self._processes = []
        self._closed = False
        self._lock = threading.RLock()
        _watch(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def namespace(self, name):
        """Makes one, with lo up."""
        space = Namespace(f"{self._prefix}-{name}")
        run(["ip", "netns", "add", space.name])
        self._namespaces[name] = space
        space.run("ip", "link", "set", "lo", "up")
        # Addresses can be used at once; duplicates do not exist here.
        for key in ("all", "default"):
            space.run("sysctl", "-q", "-w", f"net.ipv6.conf.{key}.accept_dad=0", check=False)
        # A proxied connection takes two ports of one address and keeps them a minute after its end:
        # the system's 28,000 are used up by 14,000 connections in that time.
        # What tests listen at above 16000 is nobody's source port: a connection that had it would be in
        # the way of the program that binds it.
        space.run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=16000 65000",
                  "net.ipv4.ip_local_reserved_ports=16000-16499,17000-17099,20000-22099",
                  "net.ipv4.tcp_tw_reuse=1")
        return space

    def join(self, left, right, number):
        """A veth pair between two namespaces: 198.18.N.1 and .2, fd00:5b:N::1 and ::2."""
        a, b = f"pstn{number}a", f"pstn{number}b"
        run(["ip", "link", "add", a, "netns", left.name, "type", "veth",
             "peer", "name", b, "netns", right.name])
        for space, device, host in ((left, a, 1), (right, b, 2)):
            space.run("ip", "addr", "add", f"198.18.{number}.{host}/24", "dev", device)
            space.run("ip", "addr", "add", f"fd00:5b:{number}::{host}/64", "dev", device, "nodad")
            space.run("ip", "link", "set", device, "up")
        return a, b

    def start(self, space, *command, uid=None, capabilities=(), **options):
        """Starts a process in a namespace (None: in this one); it ends with the lab."""
        words = (space.prefix(uid, capabilities) if space else []) + list(command)
        process = subprocess.Popen(words, **options)
        with self._lock:
            self._processes.append(process)
        return process

    def stop(self, process, timeout=5.0, how=signal.SIGTERM):
        """Ends a process and returns its exit status."""
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def close(self):
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for process in reversed(self._processes):
            self.stop(process)
        for space in self._namespaces.values():
            # What a stopped process left behind inside (a daemon of its own, say).
            inside = run(["ip", "netns", "pids", space.name], check=False).stdout.split()
            for pid in inside:
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(pid), signal.SIGKILL)
            run(["ip", "netns", "del", space.name], check=False)


_open_labs = []
_handlers = {}


def _close_all():
    for lab in list(_open_labs):
        lab.close()


def _on_signal(number, frame):
    _close_all()
    before = _handlers.get(number)
    if callable(before):
        before(number, frame)
    raise SystemExit(128 + number)


def _watch(lab):
    _open_labs.append(lab)
    if not _handlers and threading.current_thread() is threading.main_thread():
        atexit.register(_close_all)
        for number in (signal.SIGTERM, signal.SIGINT):
            _handlers[number] = signal.signal(number, _on_signal)
