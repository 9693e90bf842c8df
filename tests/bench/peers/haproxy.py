# SPDX-License-Identifier: Apache-2.0
"""HAProxy in TCP mode, one thread."""

import shutil

from peers.base import Peer, found_in, output_of

CONFIG = """global
  nbthread 1
  maxconn {connections}
  tune.ssl.cachesize {cache}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{listen} {bind}
{rules}  default_backend out
backend out
  server next 127.0.0.1:{dial} {server}
"""


class Haproxy(Peer):
    """The haproxy of the distribution."""

    name = "haproxy"

    def __init__(self):
        self.program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

    def missing(self):
        return "" if self.program else "package haproxy is not installed"

    def version(self):
        text = output_of(self.program, "-vv")
        return ", ".join([found_in(text, r"^HAProxy version (\S+)"),
                          found_in(text, r"^Running on OpenSSL version : (OpenSSL \S+)")])

    def command(self, workshop, side):
        resume = side.plan.resumption
        tls = f"ssl crt {side.own.both} ca-file {side.root} verify required ssl-min-ver TLSv1.3"
        bind = server = rules = ""
        if side.is_client:
            server = (f"{tls} verifyhost {side.other.host} sni str({side.other.host})"
                      + ("" if resume else " no-ssl-reuse"))
        else:
            bind = tls + ("" if resume else " no-tls-tickets")
            rules = f"  tcp-request session reject unless {{ ssl_c_s_dn(cn) -m str {side.other.host} }}\n"
        path = workshop.write(f"haproxy-{side.listen}.cfg", CONFIG.format(
            connections=side.plan.connections + 100, cache=20000 if resume else 0,
            listen=side.listen, dial=side.dial, bind=bind, server=server, rules=rules))
        return [self.program, "-db", "-f", path], {}
