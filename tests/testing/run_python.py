#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one unittest file and writes what happened to each case as JSON.

  run_python.py FILE OUT.json

The file is rewritten after every case, so that a run that is cut short still says what it knew.
SIGTERM is turned into SystemExit, so that clean-ups (namespaces, processes) run.
"""

import importlib.util
import json
import os
import signal
import sys
import time
import unittest


class Recorder(unittest.TestResult):
    """Prints a line for each case and keeps its outcome."""

    def __init__(self, out):
        super().__init__()
        self._out = out
        self._started = 0.0
        self._bad = None
        self.cases = []
        self.write(False)

    def write(self, complete):
        temporary = self._out + ".new"
        with open(temporary, "w", encoding="utf-8") as handle:
            json.dump({"complete": complete, "cases": self.cases}, handle)
        os.replace(temporary, self._out)

    def _record(self, test, outcome, reason=""):
        name = test.id()
        words = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[outcome]
        spent = time.monotonic() - self._started if self._started else 0.0
        tail = f": {reason}" if outcome == "skipped" else f" ({spent:.1f} s)"
        print(f"   {words} {name}{tail}", flush=True)
        if outcome == "failed":
            print(reason, flush=True)
        self.cases.append({"name": name, "outcome": outcome, "reason": reason})
        self.write(False)

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()
        self._bad = None

    def stopTest(self, test):
        if self._bad is not None:
            self._record(test, "failed", self._bad)
        super().stopTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._record(test, "passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._record(test, "skipped", reason)

    def _fail(self, test, error):
        text = self._exc_info_to_string(error, test)
        if self._started and isinstance(test, unittest.TestCase):
            self._bad = text if self._bad is None else self._bad + text
        else:  # setUpClass or setUpModule
            self._record(test, "failed", text)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._fail(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            text = f"{subtest.id()}\n" + self._exc_info_to_string(err, test)
            self._bad = text if self._bad is None else self._bad + text

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._record(test, "failed", "expectedFailure is not used here: mend the test or drop it")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._record(test, "failed", "expectedFailure is not used here: mend the test or drop it")


def load(path):
    directory = os.path.dirname(os.path.abspath(path))
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # Helpers beside the file (with a leading underscore), and those in tests/testing.
    sys.path[:0] = [directory, os.path.join(root, "testing")]
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    path, out = sys.argv[1:]
    recorder = Recorder(out)
    suite = load(path)
    if suite.countTestCases() == 0:
        print(f"   {path} has no test case", flush=True)
        return 1
    suite.run(recorder)
    recorder.write(True)
    return 0 if recorder.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
