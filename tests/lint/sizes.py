# SPDX-License-Identifier: Apache-2.0
"""Every source file says its licence in its first lines and stays short enough to read."""

import re
import unittest

import _source

MAX_LINES = 600
SPDX = "SPDX-License-Identifier: Apache-2.0"
SOURCE = re.compile(r"(\.(h|cc|py|sh|cmake|proto)|CMakeLists\.txt|^\.ci/run)$")


def first_lines(text):
    """The line that must carry the SPDX mark: the first, or the second below a #! line."""
    lines = text.split("\n", 2)
    return lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]


class SizesTest(unittest.TestCase):
    def sources(self):
        return [name for name in _source.tracked_files() if SOURCE.search(name)]

    def test_every_source_file_begins_with_its_licence(self):
        missing = [n for n in self.sources() if SPDX not in first_lines(_source.read(n))]
        self.assertEqual(missing, [])

    def test_no_source_file_is_longer_than_600_lines(self):
        long = {n: _source.read(n).count("\n") for n in self.sources()}
        self.assertEqual({n: c for n, c in long.items() if c > MAX_LINES}, {})


if __name__ == "__main__":
    unittest.main()
