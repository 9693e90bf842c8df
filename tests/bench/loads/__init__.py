# SPDX-License-Identifier: Apache-2.0
"""The kinds of work, in the table's order."""

from loads.bulk import Bulk
from loads.connections import NewConnections, Start
from loads.issuer import IssuerStream
from loads.memory import Memory
from loads.requests import FixedRate, Requests
from loads.scale import Scale
from loads.workers import Workers


def all_loads():
    """Every kind of work."""
    return [Requests(), FixedRate(), NewConnections(False), NewConnections(True), Bulk(1), Bulk(8),
            Memory(), Start(), IssuerStream(), Workers(), Scale()]
