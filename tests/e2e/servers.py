# SPDX-License-Identifier: Apache-2.0
"""Servers with a configuration of a test's own, in the server's namespace of a mesh; those of programs.py
bring theirs."""

import contextlib
import shutil
import subprocess

import harness
import programs
from lab import wait_until


def await_port(mesh, port):
    """Until something listens there; what nginx logged where nothing does."""
    def answers():
        with contextlib.suppress(OSError):
            mesh.server.connect("127.0.0.1", port).close()
            return True
    wait_until(answers, what=lambda: f"port {port}\n" + harness.tail(mesh.path("nginx.log")))


def start_nginx(mesh, port, http):
    """nginx whose http block holds `http`; one of its servers listens on `port`."""
    with open(mesh.path("nginx.conf"), "w", encoding="ascii") as handle:
        handle.write(programs.nginx_config(mesh.directory, http))
    mesh.lab.start(mesh.server, shutil.which("nginx") or "/usr/sbin/nginx", "-c",
                   mesh.path("nginx.conf"), "-e", mesh.path("nginx.log"), stdin=subprocess.DEVNULL)
    await_port(mesh, port)
