# SPDX-License-Identifier: Apache-2.0
"""Reads what callgrind writes: instructions by function, and what lies below a set of functions.

Profiles are asked for without compressed strings and positions (FLAGS), so that reading them is plain.
Differences of two profiles are profiles too: what a longer run has more of than a shorter one.
"""

import collections
import re

FLAGS = ["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]

RECURSION = re.compile(r"'\d+$")


class Profile:
    """Self instructions by (object, function, file), and calls by (caller, callee)."""

    def __init__(self):
        self.self_cost = collections.Counter()  # (object, function, file)
        self.edges = collections.Counter()      # (caller, callee): inclusive instructions
        self.calls = collections.Counter()      # (caller, callee): how often

    @property
    def total(self):
        return sum(self.self_cost.values())

    def minus(self, other):
        """What this run has more of. Costs of other threads may differ either way."""
        result = Profile()
        for name in ("self_cost", "edges", "calls"):
            counter = collections.Counter(getattr(self, name))
            counter.subtract(getattr(other, name))
            setattr(result, name, counter)
        return result

    def plus(self, other):
        result = Profile()
        for name in ("self_cost", "edges", "calls"):
            counter = collections.Counter(getattr(self, name))
            counter.update(getattr(other, name))
            setattr(result, name, counter)
        return result

    def by_function(self):
        """{(object, function): self instructions}"""
        result = collections.Counter()
        for (binary, function, _), cost in self.self_cost.items():
            result[binary, function] += cost
        return result

    def calls_of(self):
        """{function: how often it was called}"""
        result = collections.Counter()
        for (_, callee), count in self.calls.items():
            result[callee] += count
        return result

    def leaving(self, is_member):
        """{(caller, callee): inclusive instructions} of calls from members to others."""
        return collections.Counter({(caller, callee): cost
                                    for (caller, callee), cost in self.edges.items()
                                    if is_member(caller) and not is_member(callee)})

    def below(self, is_member, is_inlined=lambda function, file: False):
        """Instructions spent in member functions and in all that they call, each once: what enters the
        set from outside, and what was inlined (by its file) into functions outside."""
        entered = sum(cost for (caller, callee), cost in self.edges.items()
                      if is_member(callee) and not is_member(caller))
        inlined = sum(cost for (_, function, file), cost in self.self_cost.items()
                      if not is_member(function) and is_inlined(function, file))
        return entered + inlined


class Reader:
    """The state of reading one file, line by line."""

    def __init__(self):
        self.profile = Profile()
        self.binary = self.function = self.file = self.callee = ""
        self.count = 0
        self.is_call = False

    def line(self, line):
        key, separator, value = line.partition("=")
        if separator and not line[0].isdigit():
            self._keyword(key, value)
        elif line and line[0].isdigit():
            cost = int(line.split()[1]) if " " in line else 0
            if self.is_call:
                self.profile.edges[self.function, self.callee] += cost
                self.profile.calls[self.function, self.callee] += self.count
                self.is_call = False
            else:
                self.profile.self_cost[self.binary, self.function, self.file] += cost

    def _keyword(self, key, value):
        if key == "ob":
            self.binary = value.rpartition("/")[2]
        elif key == "fn":
            self.function = RECURSION.sub("", value)
        elif key in ("fl", "fi", "fe"):
            self.file = value
        elif key == "cfn":
            self.callee = RECURSION.sub("", value)
        elif key == "calls":
            self.count = int(value.split()[0])
            self.is_call = True


def read(lines):
    """A Profile from the lines of a callgrind output file; ValueError unless its event is Ir."""
    reader, events = Reader(), None
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("events:"):
            events = line.split()[1:]
        reader.line(line)
    if events != ["Ir"]:
        raise ValueError(f"not a callgrind profile of instructions: events {events}")
    return reader.profile


def read_file(path):
    with open(path, encoding="utf-8", errors="replace") as handle:
        return read(handle)
