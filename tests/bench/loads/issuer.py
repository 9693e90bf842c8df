# SPDX-License-Identifier: Apache-2.0
"""Memory of one postern-proxy that gets its identity from postern-identity over the open stream."""

import http.client
import os
import re
import shutil
import tempfile

import accounting
from loads.base import Load
from loads.requests import run_tool
from peers.base import output_of
from processes import wait_until


class IssuerStream(Load):
    """PSS of a proxy as on a host where nothing else uses its libraries, the C library excepted.

    Issuer and proxy run with copies of theirs: else the issuer, which is elsewhere in earnest, and
    whatever else the machine does would take a share of the pages upon them.
    """

    name = "issuer"
    keys = ("issuer_pss_mib",)
    only_postern = True

    def run(self, scene, peer):
        workshop = scene.workshop
        issuer, words = _start_issuer(workshop, peer)
        proxy = None
        try:
            metrics = workshop.free_port()
            proxy = workshop.start("postern-with-issuer", [
                peer.program, *words, "--access-log", "off", "--log-level", "warn",
                "--admin", f"127.0.0.1:{workshop.free_port()}", "--admin-socket", "off",
                "--metrics", f"127.0.0.1:{metrics}", "--tunnel",
                f"inbound,listen=127.0.0.1:{workshop.free_port()},target=127.0.0.1:9,"
                "peer=spiffe://bench.test/other"], env=_own_libraries(workshop, peer.program))
            wait_until(lambda: proxy.check_running() or _is_ready(metrics), 20,
                       lambda: f"ready: {proxy.last_words()}")
            return {"issuer_pss_mib": accounting.idle_pss_kib([proxy.pid]) / 1024}
        finally:
            workshop.stop(*[one for one in (proxy, issuer) if one])


def _own_libraries(workshop, program):
    """An environment in which a program loads copies of its libraries."""
    place = tempfile.mkdtemp(prefix="lib-", dir=workshop.directory)
    for library in re.findall(r"=> (/\S+)", output_of("ldd", program)):
        if not os.path.basename(library).startswith(("libc.so", "libm.so")):
            shutil.copy(library, place)
    return dict(os.environ, LD_LIBRARY_PATH=place)


def _start_issuer(workshop, peer):
    """The running issuer, and the flags of a proxy that is to get its identity there."""
    port, admin = workshop.free_port(), workshop.free_port()
    place = workshop.path(f"issuer-{port}")
    for folder in ("", "state", "proxy"):
        os.makedirs(os.path.join(place, folder), mode=0o700)
    socket_path = os.path.join(place, "identity.sock")
    program = peer.tool("postern-identity")
    issuer = workshop.start("postern-identity", [
        program, "--trust-domain", "bench.test", "--state-dir", os.path.join(place, "state"),
        "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--socket", socket_path,
        "--log-level", "warn"], env=_own_libraries(workshop, program))
    try:
        wait_until(lambda: issuer.check_running() or _is_ready(admin), 20,
                   lambda: f"issuer ready: {issuer.last_words()}")
        postern = peer.tool("postern")
        pin = run_tool([postern, "bundle", "show", "--output", "pin", "--socket", socket_path], 20)
        token = run_tool([postern, "token", "create", "--spiffe-id", "spiffe://bench.test/server",
                          "--socket", socket_path], 20)
    except BaseException:
        workshop.stop(issuer)
        raise
    token_file = os.path.join(place, "token")
    with open(os.open(token_file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as handle:
        handle.write(token)
    return issuer, ["--issuer", f"127.0.0.1:{port}", "--issuer-pin", pin.split()[0],
                    "--trust-domain", "bench.test", "--join-token-file", token_file,
                    "--state-dir", os.path.join(place, "proxy")]


def _is_ready(port):
    """Whether /ready answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
