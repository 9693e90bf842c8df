# SPDX-License-Identifier: Apache-2.0
"""Servers of Debian's packages in the server's namespace of a mesh."""

import os
import shutil
import subprocess

from lab import wait_until


def start_postgresql(mesh):
    """PostgreSQL on port 5432 of both families; trusts everybody as the user postgres."""
    versions = sorted(os.listdir("/usr/lib/postgresql")) if os.path.isdir(
        "/usr/lib/postgresql") else []
    if not versions:
        raise AssertionError("PostgreSQL is not installed; tests/run.sh installs it")
    tools = f"/usr/lib/postgresql/{versions[-1]}/bin"
    data = mesh.path("pg")
    os.makedirs(data, mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env",
                   "HOME=/", "LC_ALL=C"]
    mesh.server.run(*as_postgres, f"{tools}/initdb", "-D", data, "-A", "trust", "-U", "postgres",
                    "--no-sync", cwd="/")
    with open(os.path.join(data, "pg_hba.conf"), "w", encoding="ascii") as handle:
        handle.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    mesh.lab.start(mesh.server, *as_postgres, f"{tools}/postgres", "-D", data, "-p", "5432",
                   "-c", "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "fsync=off",
                   cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    wait_until(lambda: mesh.server.run("psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "select 1",
                                       check=False).returncode == 0, 30, "postgresql")
