# SPDX-License-Identifier: Apache-2.0
"""Ten thousand connections through one pair, a thousand of them active: memory and latency.

Fewer where the limit of descriptors does not let a proxy hold so many; the table says how many.
"""

import accounting
import backends
from loads.base import Load, percentile
from loads.memory import held_connections
from loads.requests import h2load
from peers.base import Plan, Unsupported
from processes import raise_descriptor_limit

EVERY, ACTIVE = 10000, 1000
# Descriptors that a proxy may need besides two for each connection.
SPARE = 500
# Requests a second of the active ones together, and how many: enough that the later half comes after
# the storm of handshakes at the beginning.
RATE, COUNT = 2000, 24000
# Each sends every 500 ms; this spreads them over that time.
OPENING = (8, 17)
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


class Scale(Load):
    """The active connections' latency alone and then among the idle ones, and what the idle ones cost."""

    name = "scale"
    keys = ("scale_connections", "scale_connection_kib", "scale_alone_p50_us", "scale_alone_p99_us",
            "scale_among_p50_us", "scale_among_p99_us")
    once = True
    modes = ()

    def run(self, scene, peer):
        if peer.no_scale:
            raise Unsupported(peer.no_scale)
        every = min(EVERY, (raise_descriptor_limit() - SPARE) // 2)
        idle = every - ACTIVE
        with backends.http(scene.workshop, every) as target:
            plan = Plan(target, connections=every)
            with peer.start(scene.workshop, scene.authority, plan) as pair:
                alone = self._load(scene, pair.port)
                pair.check_running()
            with peer.start(scene.workshop, scene.authority, plan) as pair:
                before = accounting.idle_pss_kib(pair.pids)
                with held_connections(pair.port, idle, REQUEST, b"HTTP/1.1 200"):
                    after = accounting.settled_pss_kib(pair.pids)
                    among = self._load(scene, pair.port)
                pair.check_running()
        return {"scale_connections": every,
                "scale_connection_kib": (after - before) / idle / 2,
                "scale_alone_p50_us": percentile(alone, 0.5),
                "scale_alone_p99_us": percentile(alone, 0.99),
                "scale_among_p50_us": percentile(among, 0.5),
                "scale_among_p99_us": percentile(among, 0.99)}

    @staticmethod
    def _load(scene, port):
        times, _ = h2load(scene.workshop, port, ACTIVE, RATE, COUNT, OPENING,
                          skip=0.5)
        return times
