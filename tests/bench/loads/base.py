# SPDX-License-Identifier: Apache-2.0
"""What the kinds of load share: the scene they run in and how they are described."""

import contextlib

import accounting


class Scene:
    """Where a load runs: the workshop, the certificates, and how much work is asked for.

    amounts  seconds and counts by name; see compare.py's table of modes
    """

    def __init__(self, workshop, authority, amounts):
        self.workshop, self.authority, self.amounts = workshop, authority, amounts


class Load:
    """One kind of work. `run` returns {metric's key: value} of one round of one peer."""

    name = ""
    keys = ()
    # Whether the column without a proxy has numbers too.
    with_direct = False
    # Whether only postern has these numbers.
    only_postern = False
    # Once is enough: what it counts does not vary.
    once = False
    # The modes that run it without being asked.
    modes = ("quick", "full")

    def run(self, scene, peer):
        raise NotImplementedError

    def settle(self, samples_by_peer):
        """Called with {peer: {key: value}} after each round: numbers that need another column's."""


class Meter:
    """CPU seconds of a pair's proxies during a `with` block, in `.seconds`."""

    def __init__(self, pair):
        self._pids, self.seconds = pair.pids, None

    @contextlib.contextmanager
    def running(self):
        """The block is the measured time."""
        before = accounting.cpu_seconds(self._pids)
        yield self
        self.seconds = accounting.settled_cpu_seconds(self._pids) - before


def percentile(ordered, share):
    """The value at `share` (0..1) of a sorted list, by the nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
