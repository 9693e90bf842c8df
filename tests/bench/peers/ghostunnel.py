# SPDX-License-Identifier: Apache-2.0
"""ghostunnel on one processor. GHOSTUNNEL_BIN names the program."""

import os

from peers.base import Peer, Unsupported, named_by, offers_post_quantum, output_of


class Ghostunnel(Peer):
    """The program that GHOSTUNNEL_BIN names."""

    name = "ghostunnel"

    def __init__(self):
        self.program, self._missing = named_by("GHOSTUNNEL_BIN")

    def missing(self):
        return self._missing

    def version(self):
        return f"{output_of(self.program, '--version').strip()}, Go's crypto/tls"

    def command(self, workshop, side):
        if side.plan.resumption:
            raise Unsupported("its client keeps no sessions")
        words = [self.program, "client" if side.is_client else "server",
                 "--listen", f"127.0.0.1:{side.listen}", "--target", f"127.0.0.1:{side.dial}",
                 "--cert", side.own.cert, "--key", side.own.key, "--cacert", side.root]
        if side.is_client:
            words += ["--override-server-name", side.other.host,
                      "--verify-uri", side.other.spiffe_id]
        else:
            words += ["--allow-uri", side.other.spiffe_id]
        # One processor is its nearest to one worker; the group is what the others offer first.
        debug = "" if offers_post_quantum() else "tlsmlkem=0"
        return words, {"env": dict(os.environ, GOMAXPROCS="1", GODEBUG=debug)}
