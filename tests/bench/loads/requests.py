# SPDX-License-Identifier: Apache-2.0
"""Small HTTP requests over 16 kept connections: as fast as they go (wrk) and at a fixed rate (h2load)."""

import os
import re
import subprocess

import backends
from loads.base import Load, Meter, percentile
from peers.base import Plan
from processes import StartFailed

CONNECTIONS = 16
# wrk hands its summary to this; times are in microseconds.
REPORT = """done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def run_tool(command, timeout):
    """Output of a tool of the load; StartFailed with its words when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-300:].strip()
        raise StartFailed(f"{command[0]}: exit {done.returncode}: {said}")
    return done.stdout


class Requests(Load):
    """CPU per request of a closed loop, and its latency."""

    name = "requests"
    keys = ("request_cpu_us", "request_rate", "request_p50_us", "request_p99_us")
    with_direct = True

    def _wrk(self, scene, port, seconds):
        report = scene.workshop.write("report.lua", REPORT)
        text = run_tool([backends.need("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
                         "-s", report, f"http://127.0.0.1:{port}/"], seconds + 30)
        found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.MULTILINE)
        if not found:
            raise StartFailed(f"wrk: {text[-300:].strip()}")
        count, duration, p50, p99, errors = (int(word) for word in found.groups())
        if errors or not count:
            raise StartFailed(f"wrk: {count} requests, {errors} errors")
        return count, duration / 1e6, p50, p99

    def run(self, scene, peer):
        with backends.http(scene.workshop) as target, \
                peer.start(scene.workshop, scene.authority, Plan(target)) as pair:
            self._wrk(scene, pair.port, 1)  # warm
            with Meter(pair).running() as meter:
                count, seconds, p50, p99 = self._wrk(scene, pair.port, scene.amounts["seconds"])
            values = {"request_rate": count / seconds, "request_p50_us": p50, "request_p99_us": p99}
            if peer.has_proxies:
                values["request_cpu_us"] = meter.seconds / count * 1e6
            return values


def h2load(workshop, port, connections, rate, count, opening, skip=0.1):
    """Sends `count` requests at `rate` a second over all connections; (latencies in us sorted, rate).

    `opening` is (how many, milliseconds): so many connections are opened in each such period. Opened at
    once they would keep step, and each tick of h2load's timer would be a burst of all of them. The first
    `skip` of the requests (0..1) are left out: connections are opened meanwhile.
    """
    log = workshop.path("h2load.log")
    if os.path.exists(log):
        os.remove(log)
    text = run_tool([backends.need("h2load"), "--h1", "-t1", f"-c{connections}", f"-n{count}",
                     f"--rps={rate / connections:g}", f"--log-file={log}", f"-r{opening[0]}",
                     f"--rate-period={opening[1]}ms", f"http://127.0.0.1:{port}/"],
                    count / rate * 3 + 60)
    with open(log, encoding="ascii") as handle:
        rows = sorted(tuple(int(word) for word in line.split("\t")) for line in handle)
    bad = sum(1 for _, status, _ in rows if status != 200)
    if bad or len(rows) < count:
        raise StartFailed(f"h2load: {len(rows)} of {count} answers, {bad} not 200: {text[-200:]}")
    rows = rows[int(skip * len(rows)):]
    return sorted(row[2] for row in rows), len(rows) / (rows[-1][0] - rows[0][0]) * 1e6


class FixedRate(Load):
    """At 5,000 requests a second: CPU, and latency less that of no proxy at all in the same round.

    Here every peer does the same work in the same time, where a closed loop lets each take what it can.
    """

    name = "latency"
    keys = ("paced_cpu_us", "added_p50_us", "added_p99_us", "latency_rate")
    with_direct = True
    RATE = 5000
    # Sixteen connections send every 3.2 ms each; this spreads them over that time.
    OPENING = (1, 3)

    def run(self, scene, peer):
        count = int(self.RATE * scene.amounts["seconds"])
        with backends.http(scene.workshop) as target, \
                peer.start(scene.workshop, scene.authority, Plan(target)) as pair:
            spent = []
            warming = self.RATE // 5
            for requests in (warming, count):
                with Meter(pair).running() as meter:
                    times, rate = h2load(scene.workshop, pair.port, CONNECTIONS, self.RATE, requests,
                                         self.OPENING)
                spent.append(meter.seconds)
        values = {"added_p50_us": percentile(times, 0.5), "added_p99_us": percentile(times, 0.99),
                  "latency_rate": rate}
        if peer.has_proxies:
            # The handshakes are in both runs, so the difference is requests alone.
            values["paced_cpu_us"] = (spent[1] - spent[0]) / (count - warming) * 1e6
        return values

    def settle(self, samples_by_peer):
        """What a proxy adds is its time less the time without; that column keeps its own."""
        base = samples_by_peer.get("none")
        for name, values in samples_by_peer.items():
            for key in ("added_p50_us", "added_p99_us"):
                if name == "none" or key not in values:
                    continue
                if base is None or key not in base:
                    del values[key]
                else:
                    values[key] -= base[key]
