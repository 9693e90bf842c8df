# SPDX-License-Identifier: Apache-2.0
"""nginx's stream module, one worker. It knows no SAN of a client, so the name is the DN's."""

import glob
import os
import shutil

from peers.base import Peer, found_in, output_of

HEAD = """{module}daemon off;
worker_processes 1;
worker_rlimit_nofile 60000;
pid {directory}/nginx-{listen}.pid;
error_log stderr crit;
{user}events {{ worker_connections {connections}; }}
"""
CLIENT = """stream {{ server {{
  listen 127.0.0.1:{listen};
  proxy_pass 127.0.0.1:{dial};
  proxy_timeout 1h;
  proxy_ssl on;
  proxy_ssl_protocols TLSv1.3;
  proxy_ssl_certificate {cert};
  proxy_ssl_certificate_key {key};
  proxy_ssl_trusted_certificate {root};
  proxy_ssl_verify on;
  proxy_ssl_verify_depth 2;
  proxy_ssl_server_name on;
  proxy_ssl_name {other};
  proxy_ssl_session_reuse {resume};
}} }}
"""
SERVER = """stream {{
  map $ssl_client_s_dn $next {{ default ""; "CN={other}" 127.0.0.1:{dial}; }}
  server {{
    listen 127.0.0.1:{listen} ssl;
    proxy_pass $next;
    proxy_timeout 1h;
    ssl_protocols TLSv1.3;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_client_certificate {root};
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_session_tickets {resume};
    ssl_session_cache {cache};
  }}
}}
"""
SEARCHED = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/usr/local/nginx/sbin"


def find_program():
    """Path of nginx, or None."""
    return shutil.which("nginx", path=SEARCHED)


def head(workshop, listen, connections, module=""):
    """The part of a configuration that the peer and the application of the test share."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    return HEAD.format(module=f"load_module {module};\n" if module else "", user=user,
                       directory=workshop.directory, listen=listen,
                       connections=2 * connections + 512)


def words(program, workshop, path):
    """The command line for one configuration file."""
    return [program, "-p", workshop.directory, "-e", "stderr", "-c", path]


class Nginx(Peer):
    """The nginx of the distribution with libnginx-mod-stream."""

    name = "nginx"

    def __init__(self):
        self.program = find_program()
        self._text = output_of(self.program, "-V") if self.program else ""
        self._module = next(iter(glob.glob("/usr/lib/nginx/modules/ngx_stream_module.so")), "")

    def missing(self):
        if not self.program:
            return "package nginx is not installed"
        if "--with-stream=dynamic" in self._text and not self._module:
            return "package libnginx-mod-stream is not installed"
        return "" if "--with-stream" in self._text else "nginx was built without stream"

    def version(self):
        library = found_in(self._text, r"running with (OpenSSL \S+)",
                           found_in(self._text, r"built with (OpenSSL \S+)"))
        return ", ".join([found_in(self._text, r"nginx/(\S+)"), library.rstrip(")")])

    def command(self, workshop, side):
        resume = side.plan.resumption
        module = self._module if "--with-stream=dynamic" in self._text else ""
        body = (CLIENT if side.is_client else SERVER).format(
            listen=side.listen, dial=side.dial, cert=side.own.cert, key=side.own.key, root=side.root,
            other=side.other.host, resume="on" if resume else "off",
            cache="shared:bench:8m" if resume else "off")
        path = workshop.write(f"nginx-{side.listen}.conf",
                              head(workshop, side.listen, side.plan.connections, module) + body)
        return words(self.program, workshop, path), {}
