# SPDX-License-Identifier: Apache-2.0
"""Every close reason is produced by a test: its enumerator or its token stands in one.

A name in a test is not yet a proof, but a reason that no test names is surely one that no test
produces. Tests that walk over the whole list do not count.
"""

import re
import unittest

import _source
import docs_in_sync

FOLDERS = ("tests/unit/", "tests/integration/", "tests/netns/", "tests/e2e/")
# The list's own tests, and those of what prints it.
WALKERS = re.compile(r"tests/unit/(common/base|proxy/telemetry|proxy/admin)/")


def named_in(name, text):
    """What a test names: CloseReason::kX in C++, the quoted token in Python or in a metric's label."""
    enumerators = set(re.findall(r"CloseReason::(k\w+)", text))
    tokens = set(re.findall(r'reason=\\?"([a-z_]+)', text))
    if name.endswith(".py"):
        tokens |= set(re.findall(r"""["']([a-z]+(?:_[a-z]+)*)["']""", text))
    return enumerators, tokens


class CloseReasonsTest(unittest.TestCase):
    def test_every_close_reason_is_named_by_a_test_that_produces_it(self):
        enumerators, tokens = set(), set()
        for name in _source.tracked_files():
            if name.startswith(FOLDERS) and not WALKERS.match(name) and name.endswith((".cc", ".py")):
                found = named_in(name, _source.read(name))
                enumerators |= found[0]
                tokens |= found[1]
        reasons = docs_in_sync.close_reasons(_source.read("common/base/close_reason.h"))
        self.assertGreater(len(reasons), 0)
        missing = [token for enumerator, token, _, _ in reasons
                   if enumerator not in enumerators and token not in tokens]
        self.assertEqual(missing, [], "\nno test names: " + ", ".join(missing))

    def test_reads_enumerators_and_quoted_tokens(self):
        text = 'EXPECT_EQ(x, CloseReason::kOk); "peer_dead"; {reason=\\"reset\\"}'
        self.assertEqual(named_in("a_test.cc", text), ({"kOk"}, {"reset"}))
        self.assertEqual(named_in("a_test.py", text), ({"kOk"}, {"peer_dead", "reset"}))


if __name__ == "__main__":
    unittest.main()
