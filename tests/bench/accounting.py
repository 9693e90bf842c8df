# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of programs with their children, from the kernel.

CPU is user plus system time. It is read from the process's CPU clock, which counts nanoseconds and
keeps what ended threads used; /proc/PID/stat has the same sum in steps of 10 ms.
"""

import contextlib
import os
import re
import time


def tree(pid):
    """The process and all its living descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as handle:
                for child in handle.read().split():
                    found += tree(int(child))
    return found


def _clock(pid):
    """clock_getcpuclockid(3) for another process, as the kernel's ABI encodes it."""
    return (~pid << 3) | 2


def cpu_seconds(pids):
    """User plus system seconds that these processes and their descendants used so far."""
    return sum(time.clock_gettime(_clock(one)) for pid in pids for one in tree(pid))


def settled_cpu_seconds(pids, timeout=2.0):
    """The same once it stands still: the closing of connections goes on after the load has ended."""
    deadline = time.monotonic() + timeout
    before = cpu_seconds(pids)
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = cpu_seconds(pids)
        if now - before < 0.0005:
            return now
        before = now
    return before


def _rollup_kib(pids, name):
    total = 0
    for pid in pids:
        for one in tree(pid):
            with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as handle:
                total += int(re.search(rf"^{name}:\s+(\d+) kB", handle.read(), re.MULTILINE).group(1))
    return total


def pss_kib(pids):
    """Proportional set size of the processes and their descendants, KiB."""
    return _rollup_kib(pids, "Pss")


def anonymous_kib(pids):
    """The anonymous part of it: what they have written, no pages of programs and libraries."""
    return _rollup_kib(pids, "Pss_Anon")


def settled_pss_kib(pids, quiet=0.2, timeout=10.0, size_of=pss_kib):
    """PSS once it has stood still for `quiet` seconds: allocators give back late."""
    deadline = time.monotonic() + timeout
    before, since = size_of(pids), time.monotonic()
    while (now := time.monotonic()) < deadline and now - since < quiet:
        time.sleep(0.1)
        size = size_of(pids)
        if abs(size - before) > 16:
            before, since = size, time.monotonic()
    return before


def idle_pss_kib(pids):
    """PSS after two quiet seconds: a program may give back what only its start has needed."""
    return settled_pss_kib(pids, quiet=2.0)


def idle_anonymous_kib(pids):
    """The anonymous part after two quiet seconds."""
    return settled_pss_kib(pids, quiet=2.0, size_of=anonymous_kib)
