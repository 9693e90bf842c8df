#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares postern with other proxies that carry TCP over mutual TLS 1.3, in pairs on one machine.

  tests/bench/compare.py --quick          under 3 minutes: good enough to see a factor
  tests/bench/compare.py --full           about 25 minutes: for numbers that are quoted
  tests/bench/compare.py --full --scale   also 10,000 connections
  tests/bench/compare.py --smoke          seconds: only whether there are numbers

Prints the table on standard output, progress on standard error. tests/bench/README.md says what is
measured and how. Exit status: 0 done, 1 nothing could be measured, 2 usage.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import goals
import machine
import peers
import probe
import table
from loads import all_loads
from loads.base import Scene
from peers.base import Unsupported
from pki import Authority
from processes import StartFailed, Workshop, end_on_signals, raise_descriptor_limit
from results import Results

# How much of each: seconds of a closed loop, new connections, connections at rest.
MODES = {
    "smoke": {"rounds": 1, "seconds": 1, "connections": 60, "idle": 50},
    "quick": {"rounds": 2, "seconds": 1, "connections": 250, "idle": 300,
              "once": ("memory", "issuer")},
    "full": {"rounds": 5, "seconds": 5, "connections": 2000, "idle": 1000},
}
SMOKE_PEERS = ("postern", "haproxy")
SMOKE_LOADS = ("requests", "full", "bulk1", "memory", "start")


def say(text):
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def parse_arguments():
    """The command line; exits with 2 on a mistake."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    for name in MODES:
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name)
    known = [load.name for load in all_loads()]
    parser.add_argument("--rounds", type=int, help="rounds instead of the mode's")
    parser.add_argument("--peers", help=f"some of {','.join(peers.KNOWN)}")
    parser.add_argument("--work", help=f"some of {','.join(known)}")
    parser.add_argument("--scale", action="store_true", help="also 10,000 connections")
    parser.add_argument("--json", metavar="FILE", help="all samples, also")
    parser.add_argument("--build", metavar="DIR", help="build directory of postern",
                        default=os.path.join(machine.ROOT, "build/release"))
    arguments = parser.parse_args()
    arguments.mode = arguments.mode or "quick"
    arguments.rounds = arguments.rounds or MODES[arguments.mode]["rounds"]
    smoke = arguments.mode == "smoke"
    arguments.peers = _chosen(parser, arguments.peers, peers.KNOWN,
                              SMOKE_PEERS if smoke else peers.NAMES)
    usual = [load.name for load in all_loads() if arguments.mode in load.modes]
    arguments.work = _chosen(parser, arguments.work, known, SMOKE_LOADS if smoke else usual)
    if arguments.scale and "scale" not in arguments.work:
        arguments.work.append("scale")
    return arguments


def _chosen(parser, text, known, usual):
    if text is None:
        return list(usual)
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in known:
            parser.error(f"'{word}' is none of {','.join(known)}")
    return words


class Comparison:
    """One run: which peers can be measured, the rounds, and what came of them."""

    def __init__(self, scene, chosen, loads):
        self._scene, self._peers, self._loads = scene, chosen, loads
        self.results = Results([peer.name for peer in chosen])
        self.handshakes = {}
        # (load's name, peer's name) that need not be tried again.
        self._given_up = set()

    def _give_up(self, peer, loads, reason):
        say(f"{peer.name}: {reason}")
        for load in loads:
            self._given_up.add((load.name, peer.name))
            self.results.add_gap(peer.name, load.keys, reason)

    def look(self):
        """Finds out which peers are there and do what is compared."""
        for load in self._loads:
            for peer in self._peers:
                if (peer.name == "none" and not load.with_direct
                        or load.only_postern and peer.name != "postern"
                        or peer.works is not None and load.name not in peer.works):
                    self._given_up.add((load.name, peer.name))
        for peer in self._peers:
            if peer.missing():
                self._give_up(peer, self._loads, peer.missing())
            elif peer.has_proxies and peer.works is None:
                self._look_at(peer)

    def _look_at(self, peer):
        resumed = [load for load in self._loads if load.name == "resumed"]
        for resumption, loads in ((False, self._loads), (True, resumed)):
            if not loads or all((load.name, peer.name) in self._given_up for load in loads):
                continue
            try:
                words = probe.look_at_handshakes(self._scene.workshop, self._scene.authority, peer,
                                                 resumption)
                if not resumption:
                    probe.look_at_names(self._scene.workshop, self._scene.authority, peer)
                self.handshakes[peer.name] = (f"{self.handshakes[peer.name]}, {words}"
                                              if peer.name in self.handshakes else words)
            except (StartFailed, Unsupported, OSError) as error:
                self._give_up(peer, loads, str(error))

    def run(self, rounds):
        """All rounds; peers take turns within each kind of work."""
        for number in range(1, rounds + 1):
            for load in self._loads:
                if number > 1 and (load.once or load.name in self._scene.amounts.get("once", ())):
                    continue
                samples = {}
                for peer in self._peers:
                    if (load.name, peer.name) not in self._given_up:
                        self._run_one(load, peer, samples)
                load.settle(samples)
                for name, values in samples.items():
                    self.results.add(name, values)
                told = "; ".join(f"{name} {' '.join(f'{v:.4g}' for v in values.values())}"
                                 for name, values in samples.items())
                say(f"round {number} of {rounds}: {load.name}: {told}")

    def _run_one(self, load, peer, samples):
        try:
            samples[peer.name] = load.run(self._scene, peer)
        except Unsupported as error:
            self._give_up(peer, [load], str(error))
        except (StartFailed, OSError, subprocess.TimeoutExpired) as error:
            say(f"{peer.name}: {load.name}: {error}")
            self.results.add_gap(peer.name, load.keys, str(error))


def write_json(path, heading, arguments, comparison, verdicts):
    """Everything, for programs."""
    content = {"heading": heading, "mode": arguments.mode, "rounds": arguments.rounds,
               "amounts": MODES[arguments.mode], "handshakes": comparison.handshakes,
               "results": comparison.results.as_json(),
               "goals": [verdict.as_json() for verdict in verdicts]}
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1)
        handle.write("\n")


def main():
    """See the head of the file."""
    arguments = parse_arguments()
    end_on_signals()
    raise_descriptor_limit()
    chosen = [peer for peer in peers.all_peers(arguments.build) if peer.name in arguments.peers]
    loads = [load for load in all_loads() if load.name in arguments.work]
    began = time.monotonic()
    heading = machine.heading(chosen)
    with Workshop() as workshop:
        scene = Scene(workshop, Authority(workshop.directory), MODES[arguments.mode])
        comparison = Comparison(scene, chosen, loads)
        comparison.look()
        comparison.run(arguments.rounds)
    for name, words in comparison.handshakes.items():
        heading[name] += f"; {words}"
    heading["load average"] += f" before, {machine.load_average()} after"
    heading["run"] = (f"{arguments.mode}, {arguments.rounds} rounds, "
                      f"{time.monotonic() - began:.0f} s")
    verdicts = goals.judge(comparison.results)
    print(table.render(heading, comparison.results, verdicts))
    if arguments.json:
        write_json(arguments.json, heading, arguments, comparison, verdicts)
    return 0 if comparison.results.has_numbers() else 1


if __name__ == "__main__":
    sys.exit(main())
