# SPDX-License-Identifier: Apache-2.0
"""Where and when a run took place, for its heading."""

import datetime
import os
import platform

from peers.base import found_in, output_of

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def commit():
    """The tree's commit, with + when files have changed since."""
    name = output_of("git", "-C", ROOT, "rev-parse", "--short=12", "HEAD").strip()
    if not name or " " in name:
        return "?"
    changed = output_of("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no").strip()
    return name + ("+" if changed else "")


def load_average():
    """One, five and fifteen minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def heading(peers):
    """{what: text}; `peers` are those that were chosen."""
    memory = int(found_in(_read("/proc/meminfo"), r"MemTotal:\s+(\d+)", "0"))
    model = found_in(_read("/proc/cpuinfo"), r"^model name\s*: (.+)")
    system = found_in(_read("/etc/os-release"), r"^PRETTY_NAME=.(.+?).$")
    lines = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": f"{model}, {os.cpu_count()} cores, {memory / 1048576:.0f} GiB",
        "system": f"{system}, kernel {platform.release()}",
        "load average": load_average(),
    }
    for peer in peers:
        lines[peer.name] = peer.missing() or peer.version()
    return lines
