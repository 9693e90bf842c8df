# SPDX-License-Identifier: Apache-2.0
"""Bulk data from client to server over one stream and over eight (iperf3)."""

import json

import backends
from loads.base import Load, Meter
from loads.requests import run_tool
from peers.base import Plan
from processes import StartFailed


class Bulk(Load):
    """CPU seconds per GB (1e9 bytes that arrived) and throughput."""

    with_direct = True

    def __init__(self, streams):
        self._streams = streams
        self.name = f"bulk{streams}"
        self.keys = (f"bulk{streams}_cpu_s_per_gb", f"bulk{streams}_gbit_s")

    def run(self, scene, peer):
        seconds = scene.amounts["seconds"]
        with backends.sink(scene.workshop) as target, \
                peer.start(scene.workshop, scene.authority, Plan(target)) as pair:
            with Meter(pair).running() as meter:
                text = run_tool([backends.need("iperf3"), "-c", "127.0.0.1", "-p", str(pair.port),
                                 "-t", str(seconds), "-P", str(self._streams), "-J"], seconds + 30)
            report = json.loads(text)
            received = report.get("end", {}).get("sum_received", {"bytes": 0})
            if received["bytes"] <= 0:
                raise StartFailed(f"iperf3: nothing arrived: {report.get('error', 'no error')}")
            values = {self.keys[1]: received["bits_per_second"] / 1e9}
            if peer.has_proxies:
                values[self.keys[0]] = meter.seconds / received["bytes"] * 1e9
            return values
