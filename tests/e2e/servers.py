# SPDX-License-Identifier: Apache-2.0
"""Servers of Debian's packages in the server's namespace of a mesh."""

import contextlib
import os
import shutil
import subprocess

import harness
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
        handle.write(f"""daemon off; master_process off; pid {mesh.path('nginx.pid')};
error_log {mesh.path('nginx.log')}; events {{ worker_connections 4096; }}
http {{ client_body_temp_path {mesh.path('t1')}; proxy_temp_path {mesh.path('t2')};
  fastcgi_temp_path {mesh.path('t3')}; uwsgi_temp_path {mesh.path('t4')};
  scgi_temp_path {mesh.path('t5')};
  {http} }}
""")
    mesh.lab.start(mesh.server, shutil.which("nginx") or "/usr/sbin/nginx", "-c",
                   mesh.path("nginx.conf"), "-e", mesh.path("nginx.log"), stdin=subprocess.DEVNULL)
    await_port(mesh, port)


def start_postgresql(mesh, port=5432, tls=False):
    """PostgreSQL on `port` of both families, with `tls` for TLS alone; trusts everybody as the user
    postgres."""
    versions = sorted(os.listdir("/usr/lib/postgresql")) if os.path.isdir(
        "/usr/lib/postgresql") else []
    if not versions:
        raise AssertionError("PostgreSQL is not installed; tests/run.sh installs it")
    tools = f"/usr/lib/postgresql/{versions[-1]}/bin"
    data = mesh.path(f"pg{port}")
    os.makedirs(data, mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env",
                   "HOME=/", "LC_ALL=C"]
    mesh.server.run(*as_postgres, f"{tools}/initdb", "-D", data, "-A", "trust", "-U", "postgres",
                    "--no-sync", cwd="/")
    with open(os.path.join(data, "pg_hba.conf"), "w", encoding="ascii") as handle:
        kind = "hostssl" if tls else "host"
        handle.write(f"{kind} all all 0.0.0.0/0 trust\n{kind} all all ::/0 trust\n")
    if tls:
        _make_server_certificate(data)
    mesh.lab.start(mesh.server, *as_postgres, f"{tools}/postgres", "-D", data, "-p", str(port),
                   "-c", "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "fsync=off",
                   "-c", f"ssl={'on' if tls else 'off'}",
                   cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    wait_until(lambda: mesh.server.run("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
                                       "-c", "select 1", check=False).returncode == 0, 30,
               "postgresql")


def _make_server_certificate(data):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=db.example", "-keyout",
                    f"{data}/server.key", "-out", f"{data}/server.crt"], check=True,
                   stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name in ("server.key", "server.crt"):
        os.chmod(f"{data}/{name}", 0o600)
        shutil.chown(f"{data}/{name}", "postgres", "postgres")
