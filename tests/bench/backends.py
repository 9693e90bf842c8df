# SPDX-License-Identifier: Apache-2.0
"""The applications behind the proxies: HTTP from memory, an echo, a sink for bulk data."""

import contextlib
import os
import shutil
import sys

from peers import nginx
from processes import StartFailed

HERE = os.path.dirname(os.path.abspath(__file__))
BODY = "postern-" * 16  # 128 bytes
HTTP = """http {{
  access_log off;
  keepalive_requests 2000000000;
  keepalive_timeout 3600s;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "{body}"; }} }}
}}
"""


def need(program):
    """Path of a tool of the load; StartFailed when it is not installed."""
    path = shutil.which(program)
    if not path:
        raise StartFailed(f"{program} is not installed")
    return path


@contextlib.contextmanager
def http(workshop, connections=2000):
    """Port of an nginx with one worker that answers 128 bytes from memory."""
    program = nginx.find_program()
    if not program:
        raise StartFailed("package nginx is not installed")
    port = workshop.free_port()
    path = workshop.write(f"http-{port}.conf", nginx.head(workshop, port, connections)
                          + HTTP.format(directory=workshop.directory, port=port, body=BODY))
    running = workshop.start("http", nginx.words(program, workshop, path))
    try:
        running.wait_listening(port)
        yield port
    finally:
        workshop.stop(running)


@contextlib.contextmanager
def echo(workshop):
    """Port of a server that sends back what it gets, in a process of its own."""
    port = workshop.free_port()
    running = workshop.start("echo", [sys.executable, os.path.join(HERE, "echo.py"), str(port)])
    try:
        running.wait_listening(port)
        yield port
    finally:
        workshop.stop(running)


@contextlib.contextmanager
def sink(workshop):
    """Port of an iperf3 server."""
    port = workshop.free_port()
    running = workshop.start("iperf3", [need("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(port)])
    try:
        running.wait_listening(port)
        yield port
    finally:
        workshop.stop(running)
