# SPDX-License-Identifier: Apache-2.0
"""What may not stand in a tracked file: places of one machine, nameless promises, private keys."""

import re
import unittest

import _source

# Written in pieces, so that this file passes its own test.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.$}/-])/(" + "wo" + r"rk/|ho" + r"me/\w|root/\w)"),
    "a package registry's host": re.compile(
        "(deb" + r"|snapshot|security)\.debian\.org|pypi\.|regis" + r"try\.npmjs|proxy\.gol" + "ang"),
    "a to-do without its issue": re.compile("TO" + r"DO(?!\(#\d+\))|FIX" + r"ME|(?<!X)X" + r"XX(?!X)"),
    "a private key": re.compile("BEGIN (EC |RSA |ENCRYPTED )?PRIV" + "ATE KEY-----\n[A-Za-z0-9+/]"),
    "a left-over merge mark": re.compile(r"^(<{7} |>{7} )", re.MULTILINE),
}
FUZZ_INPUT = re.compile(r"tests/fuzz/\w+/(corpus|found)/")
BINARY = (".png", ".svg", ".ico", ".bin", ".der")


def find(text):
    """(what, line) of every forbidden thing in a text."""
    return [(what, text.count("\n", 0, match.start()) + 1)
            for what, pattern in FORBIDDEN.items() for match in pattern.finditer(text)]


class WordsTest(unittest.TestCase):
    def test_no_tracked_file_holds_a_forbidden_word(self):
        found = []
        for name in _source.tracked_files():
            if name.endswith(BINARY) or FUZZ_INPUT.match(name) or name == "LICENSE":
                continue
            try:
                text = _source.read(name)
            except UnicodeDecodeError:
                found.append(f"{name}: not UTF-8")
                continue
            found += [f"{name}:{line}: {what}" for what, line in find(text)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_finds_what_it_should_and_nothing_else(self):
        bad = ["see /wo" + "rk/main", "TO" + "DO: later", "TO" + "DO(me): later", "X" + "XX",
               "https://deb" + ".debian.org/debian"]
        for text in bad:
            self.assertEqual(len(find(text)), 1, text)
        for text in ["TO" + "DO(#12): later", "rework/this", "session", "/run/postern", "mktemp /tmp/a." + 6 * "X"]:
            self.assertEqual(find(text), [], text)


if __name__ == "__main__":
    unittest.main()
