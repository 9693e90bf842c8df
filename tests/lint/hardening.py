# SPDX-License-Identifier: Apache-2.0
"""What readelf says of the three programs is what hardening.json, which is committed, expects."""

import json
import os
import re
import subprocess
import unittest

import _source

EXPECTED = os.path.join(_source.ROOT, "tests", "lint", "hardening.json")


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], stdout=subprocess.PIPE, check=True, text=True,
                          env=dict(os.environ, LC_ALL="C")).stdout


def facts(path):
    """The hardening facts of one ELF file."""
    header, segments = readelf("-h", path), readelf("-l", path)
    dynamic, symbols = readelf("-d", path), readelf("--dyn-syms", path)
    stack = re.search(r"GNU_STACK.*?\s([R ][W ][E ])\s", segments)
    return {
        "pie": "DYN" in header and "PIE" in dynamic,
        "relro": "GNU_RELRO" in segments,
        "bind_now": bool(re.search(r"\(FLAGS(_1)?\).*\b(BIND_)?NOW\b", dynamic)),
        "stack_protector": "__stack_chk_fail" in symbols,
        "fortified": bool(re.search(r"\b__\w+_chk\b", symbols.replace("__stack_chk_fail", ""))),
        "executable_stack": stack is None or "E" in stack.group(1),
        "text_relocations": "TEXTREL" in dynamic,
        "run_path": bool(re.search(r"\((RPATH|RUNPATH)\)", dynamic)),
    }


class HardeningTest(unittest.TestCase):
    maxDiff = None

    def check(self, program):
        path = os.path.join(_source.BUILD, "bin", program)
        if not os.path.exists(path):
            self.skipTest(f"{program} is not part of this build")
        with open(EXPECTED, encoding="utf-8") as handle:
            self.assertEqual(facts(path), json.load(handle)[program])

    def test_the_proxy_is_hardened_as_expected(self):
        self.check("postern-proxy")

    def test_the_issuer_is_hardened_as_expected(self):
        self.check("postern-identity")

    def test_the_command_line_is_hardened_as_expected(self):
        self.check("postern")


if __name__ == "__main__":
    unittest.main()
