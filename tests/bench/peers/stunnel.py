# SPDX-License-Identifier: Apache-2.0
"""stunnel, which has no workers: a thread for each connection."""

import shutil

from peers.base import Peer, found_in, output_of

CONFIG = """foreground = quiet
pid =
syslog = no
debug = err
[tunnel]
client = {client}
accept = 127.0.0.1:{listen}
connect = 127.0.0.1:{dial}
cert = {cert}
key = {key}
CAfile = {root}
verifyChain = yes
checkHost = {other}
sslVersionMin = TLSv1.3
sessionResume = {resume}
TIMEOUTidle = 3600
"""


class Stunnel(Peer):
    """The stunnel4 of the distribution."""

    name = "stunnel"
    no_scale = "a thread for each connection"

    def __init__(self):
        self.program = shutil.which("stunnel4") or shutil.which("stunnel")

    def missing(self):
        return "" if self.program else "package stunnel4 is not installed"

    def version(self):
        text = output_of(self.program, "-version")
        library = found_in(text, r"Running\s+with (OpenSSL \S+)",
                           found_in(text, r"Compiled/running with (OpenSSL \S+)"))
        return ", ".join([found_in(text, r"stunnel (\S+) on"), library])

    def command(self, workshop, side):
        path = workshop.write(f"stunnel-{side.listen}.conf", CONFIG.format(
            client="yes" if side.is_client else "no", listen=side.listen, dial=side.dial,
            cert=side.own.cert, key=side.own.key, root=side.root, other=side.other.host,
            resume="yes" if side.plan.resumption else "no"))
        return [self.program, path], {}
