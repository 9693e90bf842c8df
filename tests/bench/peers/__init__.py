# SPDX-License-Identifier: Apache-2.0
"""The proxies that are compared, one file each."""

from peers.direct import Direct
from peers.envoy import Envoy
from peers.floor import Floor
from peers.ghostunnel import Ghostunnel
from peers.haproxy import Haproxy
from peers.nginx import Nginx
from peers.postern import Postern
from peers.stunnel import Stunnel

# Compared only when asked for: the floor on other loops.
SPECIAL = ("floor_uv_poll", "floor_uv_tcp")
NAMES = ("none", "floor", "postern", "haproxy", "nginx", "stunnel", "envoy", "ghostunnel")
KNOWN = NAMES + SPECIAL


def all_peers(build):
    """Every peer in the table's order; `build` is the build directory of postern."""
    floors = [Floor(build), Floor(build, "uv_poll"), Floor(build, "uv_tcp")]
    return [Direct(), *floors, Postern(build), Haproxy(), Nginx(), Stunnel(), Envoy(), Ghostunnel()]
