# SPDX-License-Identifier: Apache-2.0
"""The test runner itself: what it counts, and that it cannot count a failure away."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import run_tests

CASES = '''
import unittest
class T(unittest.TestCase):
    def test_good(self): pass
    def test_bad(self): self.fail("no")
    def test_skipped(self): self.skipTest("no such kernel")
    def test_sub(self):
        for i in range(3):
            with self.subTest(i=i): self.assertLess(i, 1)
class Setup(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise RuntimeError("broken")
    def test_never(self): pass
'''
GTEST = '''<testsuites><testsuite name="S">
<testcase name="A" classname="S" status="run" result="completed"/>
<testcase name="B" classname="S" status="run" result="completed"><failure message="x"/></testcase>
<testcase name="C" classname="S" status="run" result="skipped"><skipped message="why"/></testcase>
<testcase name="D" classname="S" status="notrun" result="suppressed"/>
</testsuite></testsuites>'''


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="postern-runner-")
        self.addCleanup(shutil.rmtree, self.folder)
        os.makedirs(os.path.join(self.folder, "test-results"))

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
        return path

    def run_file(self, text, label="unit", environment=None):
        counts = run_tests.Counts()
        with mock.patch.dict(os.environ, environment or {}):
            if not environment:
                os.environ.pop("POSTERN_REQUIRE_NETNS", None)
            with mock.patch.object(run_tests, "print", create=True):
                run_tests.run_python_file(self.write("made_test.py", text), label, self.folder, counts,
                                          stdout=subprocess.DEVNULL)
        return counts

    def test_counts_each_python_case_once_whatever_happens_to_it(self):
        counts = self.run_file(CASES)
        self.assertEqual(counts.passed, 1)
        self.assertEqual(len(counts.failed), 3)  # test_bad, test_sub, setUpClass
        self.assertEqual([s["reason"] for s in counts.skipped], ["no such kernel"])

    def test_counts_a_file_that_dies_or_cannot_be_loaded_as_failed(self):
        dies = "import os, unittest\nclass T(unittest.TestCase):\n def test_a(self): os._exit(0)\n"
        self.assertEqual(len(self.run_file(dies).failed), 1)
        self.assertEqual(len(self.run_file("import nothing_of_this_name").failed), 1)
        self.assertEqual(len(self.run_file("# no test here").failed), 1)

    def test_refuses_a_skip_where_namespaces_are_required_but_for_what_may_be_skipped(self):
        text = ("import unittest\nclass T(unittest.TestCase):\n"
                " def test_a(self): self.skipTest('{}')\n")
        required = {"POSTERN_REQUIRE_NETNS": "1"}
        self.assertEqual(len(self.run_file(text.format("not root"), "e2e", required).failed), 1)
        for reason in ("soak: long", "distribution: too old"):
            self.assertEqual(len(self.run_file(text.format(reason), "e2e", required).skipped), 1)
        self.assertEqual(len(self.run_file(text.format("not root"), "unit", required).skipped), 1)

    def test_reads_each_case_of_a_gtest_result_file(self):
        counts = run_tests.Counts()
        named = run_tests.read_gtest_xml(self.write("r.xml", GTEST), "binary", "unit", counts)
        self.assertEqual((named, counts.passed, len(counts.failed)), (1, 1, 1))
        self.assertEqual([s["reason"] for s in counts.skipped], ["why", "disabled"])

    def total(self, *summaries):
        paths = [self.write(f"s{i}.json", json.dumps(s)) for i, s in enumerate(summaries)]
        result = subprocess.run([sys.executable, run_tests.__file__, "total", *paths],
                                stdout=subprocess.PIPE, text=True, check=False)
        return result.returncode, result.stdout.splitlines()[-1]

    def test_closes_with_one_line_of_counts_over_all_builds(self):
        good = {"preset": "release", "passed": 3, "failed": [], "skipped": []}
        bad = {"preset": "asan", "passed": 1, "failed": [{"name": "a", "reason": "b"}],
               "skipped": [{"name": "c", "reason": "d"}]}
        self.assertEqual(self.total(good), (0, "3 passed, 0 failed, 0 skipped"))
        self.assertEqual(self.total(good, bad), (1, "4 passed, 1 failed, 1 skipped"))
        self.assertEqual(self.total(dict(good, passed=0)), (1, "0 passed, 0 failed, 0 skipped"))


if __name__ == "__main__":
    unittest.main()
