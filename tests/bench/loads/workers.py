# SPDX-License-Identifier: Apache-2.0
"""Instructions per request with one worker and with two, counted by callgrind.

Few percent do not show in CPU time on a machine that does other things; instructions do. Start and
handshakes are in the count of a short run and of a long one alike, so the difference is requests alone.
"""

import re
import signal
import subprocess

import backends
from loads.base import Load
from loads.requests import CONNECTIONS, run_tool
from peers.base import Plan
from processes import StartFailed

FEW, MANY = 400, 2400


class Workers(Load):
    """Thousands of instructions of both proxies per request, for one worker and for two."""

    name = "workers"
    keys = ("instructions_1", "instructions_2")
    only_postern = True
    once = True
    modes = ("full",)

    def run(self, scene, peer):
        values = {}
        for workers, key in ((1, "instructions_1"), (2, "instructions_2")):
            few, many = (self._instructions(scene, peer, workers, count) for count in (FEW, MANY))
            values[key] = (many - few) / (MANY - FEW) / 1e3
        return values

    def _instructions(self, scene, peer, workers, count):
        """All instructions of both proxies over a run with `count` requests."""
        with backends.http(scene.workshop) as target:
            plan = Plan(target, workers=workers)
            client_side, server_side = peer.sides(scene.workshop, scene.authority, plan)
            running = []
            try:
                for side in (server_side, client_side):
                    running.append(self._launch(scene.workshop, peer, side))
                run_tool([backends.need("h2load"), "--h1", "-t1", f"-c{CONNECTIONS}", f"-n{count}",
                          f"http://127.0.0.1:{client_side.listen}/"], 120)
                return sum(_end_and_count(program, out) for program, out in reversed(running))
            finally:
                scene.workshop.stop(*[program for program, _ in running])

    @staticmethod
    def _launch(workshop, peer, side):
        """One side under callgrind; (program, file of the counts)."""
        command, options = peer.command(workshop, side)
        out = workshop.path(f"callgrind-{side.listen}")
        program = workshop.start(f"callgrind-{side.role}", [
            backends.need("valgrind"), "--tool=callgrind", "--fair-sched=yes",
            f"--callgrind-out-file={out}", *command, "--drain-delay", "1ms",
            "--handshake-timeout", "60s"], **options)
        program.wait_listening(side.listen, timeout=60)
        return program, out


def _end_and_count(program, out):
    """Ends a proxy in good order, since callgrind writes at the end; its instructions."""
    program.process.send_signal(signal.SIGTERM)
    try:
        program.process.wait(60)
    except subprocess.TimeoutExpired as error:
        raise StartFailed(f"did not end under callgrind: {program.last_words()}") from error
    try:
        with open(out, encoding="ascii", errors="replace") as handle:
            found = re.search(r"^(?:totals|summary): (\d+)", handle.read(), re.MULTILINE)
    except OSError as error:
        raise StartFailed(f"callgrind wrote nothing: {program.last_words()}") from error
    if not found:
        raise StartFailed(f"callgrind counted nothing: {program.last_words()}")
    return int(found.group(1))
