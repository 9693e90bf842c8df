# SPDX-License-Identifier: Apache-2.0
"""No proxy at all: the client speaks with the application. What the others add is counted from here."""

from peers.base import Pair, Peer


class Direct(Peer):
    """The column "none"."""

    name = "none"
    has_proxies = False

    def missing(self):
        return ""

    def version(self):
        return "the client dials the application"

    def command(self, workshop, side):
        raise NotImplementedError("there is nothing to start")

    def start(self, workshop, authority, plan):
        return Pair(workshop, plan.target, None, None)
