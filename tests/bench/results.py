# SPDX-License-Identifier: Apache-2.0
"""The samples of a run: median and spread per number and peer, and why a number is missing."""

import statistics


class Results:
    """Samples by metric's key and peer's name, and the reasons of the gaps."""

    def __init__(self, peers):
        self.peers = list(peers)
        self._samples = {}
        self._gaps = {}

    def add(self, peer, values):
        """Takes {key: value} of one round."""
        for key, value in values.items():
            self._samples.setdefault((key, peer), []).append(value)

    def add_gap(self, peer, keys, reason):
        """Says why these numbers of this peer are missing."""
        for key in keys:
            self._gaps.setdefault((key, peer), reason)

    def samples(self, key, peer):
        """What was measured, in the order of the rounds."""
        return self._samples.get((key, peer), [])

    def has_numbers(self):
        """Whether anything was measured at all."""
        return any(self._samples.values())

    def gap(self, key, peer):
        """Why there is no number, or nothing."""
        return self._gaps.get((key, peer), "")

    def median(self, key, peer):
        """The median, or None."""
        values = self.samples(key, peer)
        return statistics.median(values) if values else None

    def spread(self, key, peer):
        """Half of the way from the least to the greatest, as a share of the median."""
        values = self.samples(key, peer)
        middle = self.median(key, peer)
        return (max(values) - min(values)) / 2 / abs(middle) if values and middle else 0.0

    def others(self, key, but=()):
        """{peer: median} of the real proxies that are neither postern nor in `but`."""
        found = {}
        for peer in self.peers:
            if peer in ("none", "postern") or peer.startswith("floor") or peer in but:
                continue
            middle = self.median(key, peer)
            if middle is not None:
                found[peer] = middle
        return found

    def best_other(self, metric, but=()):
        """(peer, median) of the best among others(), or (None, None)."""
        found = self.others(metric.key, but)
        if not found:
            return None, None
        choose = max if metric.higher_is_better else min
        name = choose(found, key=found.get)
        return name, found[name]

    def as_json(self):
        """{key: {peer: {median, spread, samples} or {gap}}}"""
        out = {}
        for key, peer in sorted(set(self._samples) | set(self._gaps)):
            values = self.samples(key, peer)
            entry = {"median": self.median(key, peer), "spread": self.spread(key, peer),
                     "samples": values} if values else {}
            if self.gap(key, peer):
                entry["gap"] = self.gap(key, peer)
            out.setdefault(key, {})[peer] = entry
        return out
