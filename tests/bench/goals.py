# SPDX-License-Identifier: Apache-2.0
"""The goals that Postern has set itself, judged with the numbers of a run."""

from metrics import BY_KEY

REACHED, MISSED, UNKNOWN = "reached", "not reached", "not measured"


class Verdict:
    """A goal in words, its outcome, and the numbers that decided it."""

    def __init__(self, goal, outcome, numbers=""):
        self.goal, self.outcome, self.numbers = goal, outcome, numbers

    def as_json(self):
        """The same as a plain object."""
        return {"goal": self.goal, "outcome": self.outcome, "numbers": self.numbers}


def _number(key, value):
    metric = BY_KEY[key]
    return f"{value:.{metric.digits}f} {metric.unit}"


def _at_most(results, goal, key, limit):
    own = results.median(key, "postern")
    if own is None:
        return Verdict(goal, UNKNOWN, results.gap(key, "postern"))
    if own <= 0:
        return Verdict(goal, UNKNOWN, f"{_number(key, own)} cannot be")
    return Verdict(goal, REACHED if own <= limit else MISSED, _number(key, own))


def _share(results, goal, key, share, other, other_key=None):
    """postern's number is at most `share` of that of one other peer."""
    other_key = other_key or key
    own, theirs = results.median(key, "postern"), results.median(other_key, other)
    if own is None or theirs is None:
        reason = results.gap(key, "postern") if own is None else results.gap(other_key, other)
        return Verdict(goal, UNKNOWN, reason)
    return Verdict(goal, REACHED if own <= share * theirs else MISSED,
                   f"{own / theirs:.2f} ({_number(key, own)} / {other} {_number(other_key, theirs)})")


def _share_of_best(results, goal, key, share):
    """The same against the best of all but Envoy."""
    name, _ = results.best_other(BY_KEY[key], but=("envoy",))
    if name is None:
        return Verdict(goal, UNKNOWN, "no other peer")
    return _share(results, goal, key, share, name)


def _lowest(results, goal, key):
    name, theirs = results.best_other(BY_KEY[key])
    own = results.median(key, "postern")
    if own is None or name is None:
        return Verdict(goal, UNKNOWN, results.gap(key, "postern") or "no other peer")
    if min(own, theirs) < 0:  # what is added to a latency cannot be less than nothing
        return Verdict(goal, UNKNOWN, "the machine's noise is greater than the number")
    return Verdict(goal, REACHED if own <= theirs else MISSED,
                   f"{_number(key, own)}; lowest other: {name} {_number(key, theirs)}")


def _unchanged(results, goal, before_key, after_key, tolerance):
    """The second number exceeds the first by at most `tolerance`."""
    before, after = (results.median(key, "postern") for key in (before_key, after_key))
    if not before or after is None:
        return Verdict(goal, UNKNOWN, results.gap(before_key, "postern"))
    return Verdict(goal, REACHED if after <= before * (1 + tolerance) else MISSED,
                   f"{(after / before - 1) * 100:+.1f} % ({_number(before_key, before)} to "
                   f"{_number(after_key, after)})")


def judge(results):
    """Every goal's verdict, in the order of the goals' table."""
    return [
        _share(results, "small request: CPU <= 0.50 of Envoy", "request_cpu_us", 0.50, "envoy"),
        _share_of_best(results, "small request: CPU <= 0.75 of the best other", "request_cpu_us", 0.75),
        _share(results, "bulk, 1 stream: CPU <= 0.60 of Envoy", "bulk1_cpu_s_per_gb", 0.60, "envoy"),
        _share_of_best(results, "bulk, 1 stream: CPU <= 0.80 of the best other",
                       "bulk1_cpu_s_per_gb", 0.80),
        _share(results, "full handshake: CPU <= 1.00 of Envoy", "full_cpu_ms", 1.00, "envoy"),
        _share(results, "full handshake: CPU <= 0.55 of haproxy", "full_cpu_ms", 0.55, "haproxy"),
        _share(results, "full handshake: CPU <= 0.55 of nginx", "full_cpu_ms", 0.55, "nginx"),
        _share(results, "resumed: CPU <= 0.50 of Envoy's full", "resumed_cpu_ms", 0.50, "envoy",
               "full_cpu_ms"),
        _lowest(results, "latency added at 5,000/s: p50 lowest of all", "added_p50_us"),
        _lowest(results, "latency added at 5,000/s: p99 lowest of all", "added_p99_us"),
        _at_most(results, "PSS idle with an issuer stream <= 15 MiB", "issuer_pss_mib", 15),
        _at_most(results, "idle connection and proxy <= 20 KiB", "connection_kib", 20),
        _lowest(results, "idle connection and proxy: lowest of all", "connection_kib"),
        _at_most(results, "start to ready, certificate from files <= 50 ms", "start_ms", 50),
        _unchanged(results, "1 to 2 workers: instructions per request within 5 %",
                   "instructions_1", "instructions_2", 0.05),
        _unchanged(results, "1,000 active among 10,000 idle: p50 within 20 %",
                   "scale_alone_p50_us", "scale_among_p50_us", 0.20),
        _unchanged(results, "1,000 active among 10,000 idle: p99 within 20 %",
                   "scale_alone_p99_us", "scale_among_p99_us", 0.20),
    ]
