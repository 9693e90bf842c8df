# SPDX-License-Identifier: Apache-2.0
"""Not a proxy to choose: one recv, the arithmetic of the records and one send, and nothing else."""

import os

from peers.base import Peer


class Floor(Peer):
    """tests/bench/floor of the same build directory."""

    works = ("requests", "latency", "bulk1", "bulk8")

    def __init__(self, build, way="epoll"):
        self.name = "floor" if way == "epoll" else f"floor_{way}"
        self._way = way
        self.program = os.path.join(os.path.abspath(build), "bin", "postern-bench-floor")

    def missing(self):
        if os.access(self.program, os.X_OK):
            return ""
        return f"{self.program} is not built (cmake --build ... --target postern-bench-floor)"

    def version(self):
        return "one recv, AES-128-GCM of 16 KiB records, one send; no handshake, no names"

    def command(self, workshop, side):
        return [self.program, self._way, str(side.listen), str(side.dial)], {}
