#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of one build directory and counts test cases.

  run_tests.py run --build build/release --labels lint,unit,integration,netns,e2e
  run_tests.py note --build build/tsan --outcome failed|skipped --reason TEXT
  run_tests.py total build/release/test-results/summary.json ...

C++ tests are what ctest knows, by label; Python tests are the unittest files tests/<label>/*_test.py
(for lint: tests/lint/*.py). `run` writes BUILD/test-results/summary.json and always exits 0 unless it
was called wrongly; `total` prints failures, skips and, as its last line, the counts, and exits 1 when
a test failed or none ran.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUN_PYTHON = os.path.join(ROOT, "tests", "testing", "run_python.py")
# Seconds that one Python file may take; a file can ask for less, not for more.
PYTHON_FILE_LIMIT = {"lint": 120, "unit": 120, "integration": 300, "threaded": 300,
                     "netns": 600, "e2e": 900}
SOAK_FILE_LIMIT = 4 * 3600
# Read by binaries built with ThreadSanitizer alone: libraries that were not are passed over.
TSAN_OPTIONS = ("ignore_noninstrumented_modules=1:suppressions="
                + os.path.join(ROOT, "tests", "testing", "tsan.supp"))
# Skipping these is refused where POSTERN_REQUIRE_NETNS is set (CI), but for reasons that begin so: it is
# not the time for a long one, or no package of this distribution's can do what it needs.
NEEDS_NAMESPACES = ("netns", "e2e")
MAY_BE_SKIPPED = ("soak:", "distribution:")


class Counts:
    """What happened to every test case of a run."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add(self, label, name, outcome, reason=""):
        if (outcome == "skipped" and label in NEEDS_NAMESPACES
                and os.environ.get("POSTERN_REQUIRE_NETNS") and not reason.startswith(MAY_BE_SKIPPED)):
            outcome, reason = "failed", f"skipped where it may not be: {reason}"
        if outcome == "passed":
            self.passed += 1
        elif outcome == "skipped":
            self.skipped.append({"name": name, "reason": reason})
        else:
            self.failed.append({"name": name, "reason": reason})


def labels_of(test):
    for prop in test.get("properties", []):
        if prop["name"] == "LABELS":
            return prop["value"]
    return []


def read_gtest_xml(path, binary, label, counts):
    """Adds the cases of one gtest result file; returns how many failures it named."""
    failures = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{binary}: {case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None:
            failures += 1
            counts.add(label, name, "failed", (case.find("failure").get("message") or "")[:500])
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            found = case.find("skipped")
            reason = found.get("message") if found is not None else ""
            counts.add(label, name, "skipped", (reason or "no reason given").strip()[:300])
        elif case.get("status") == "notrun":
            counts.add(label, name, "skipped", "disabled")
        else:
            counts.add(label, name, "passed")
    return failures


def run_ctest(build, labels, counts):
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                             stdout=subprocess.PIPE, check=True, text=True)
    tests = [(t["name"], labels_of(t)) for t in json.loads(listing.stdout)["tests"]]
    results = os.path.join(os.path.abspath(build), "test-results")
    for label in labels:
        chosen = [name for name, its in tests if label in its]
        if not chosen:
            continue
        for name in chosen:
            if os.path.exists(f"{results}/{name}.xml"):
                os.remove(f"{results}/{name}.xml")
        jobs = "1" if label in NEEDS_NAMESPACES else str(os.cpu_count() or 1)
        junit = os.path.join(results, f"ctest-{label}.xml")
        subprocess.run(["ctest", "--test-dir", build, "-L", f"^{label}$", "-j", jobs,
                        "--output-on-failure", "--output-junit", junit], check=False)
        verdicts = {c.get("name"): c.get("status")
                    for c in ElementTree.parse(junit).getroot().iter("testcase")}
        for name in chosen:
            ran_well = verdicts.get(name) == "run"
            named = 0
            try:
                named = read_gtest_xml(f"{results}/{name}.xml", name, label, counts)
            except (OSError, ElementTree.ParseError) as error:
                if ran_well:
                    counts.add(label, name, "failed", f"passed, but left no results: {error}")
            if not ran_well and named == 0:
                counts.add(label, name, "failed", "crashed, timed out or could not start")


def run_python_file(path, label, build, counts, stdout=None):
    relative = os.path.relpath(path, ROOT)
    out = os.path.join(build, "test-results", relative.replace("/", "_") + ".json")
    if os.path.exists(out):
        os.remove(out)
    environment = dict(os.environ, POSTERN_SOURCE_DIR=ROOT,
                       POSTERN_BUILD_DIR=os.path.abspath(build), PYTHONDONTWRITEBYTECODE="1")
    limit = SOAK_FILE_LIMIT if os.environ.get("POSTERN_SOAK") else PYTHON_FILE_LIMIT[label]
    print(f"-- {relative}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, RUN_PYTHON, path, out], env=environment,
                               stdout=stdout, stderr=stdout)
    try:
        process.wait(timeout=limit)
        trouble = f"ended with status {process.returncode} and left no results"
    except subprocess.TimeoutExpired:
        process.terminate()  # SIGTERM first: the file's clean-up runs
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        trouble = f"stopped after {limit} s"
    cases, complete = [], False
    if os.path.exists(out):
        with open(out, encoding="utf-8") as handle:
            content = json.load(handle)
        cases, complete = content["cases"], content["complete"]
    for case in cases:
        counts.add(label, f"{relative}: {case['name']}", case["outcome"], case["reason"])
    if not complete:
        counts.add(label, relative, "failed", trouble)
    print(f"   {time.monotonic() - started:.1f} s", flush=True)


def run(arguments):
    counts = Counts()
    labels = [label for label in arguments.labels.split(",") if label]
    unknown = [label for label in labels if label not in PYTHON_FILE_LIMIT]
    if unknown:
        sys.exit(f"run_tests.py: unknown labels: {', '.join(unknown)}")
    os.makedirs(os.path.join(arguments.build, "test-results"), exist_ok=True)
    os.environ.setdefault("TSAN_OPTIONS", TSAN_OPTIONS)
    for label in labels:
        run_ctest(arguments.build, [label], counts)
        pattern = "*.py" if label == "lint" else "*_test.py"
        for path in sorted(glob.glob(os.path.join(ROOT, "tests", label, pattern))):
            if os.path.basename(path).startswith("_"):
                continue
            run_python_file(path, label, arguments.build, counts)
    write_summary(arguments.build, counts)
    return 0


def note(arguments):
    counts = Counts()
    counts.add("", "build and tests", arguments.outcome, arguments.reason)
    os.makedirs(os.path.join(arguments.build, "test-results"), exist_ok=True)
    write_summary(arguments.build, counts)
    return 0


def write_summary(build, counts):
    path = os.path.join(build, "test-results", "summary.json")
    with open(path, "w", encoding="utf-8") as handle:
        json.dump({"preset": os.path.basename(os.path.abspath(build)), "passed": counts.passed,
                   "failed": counts.failed, "skipped": counts.skipped}, handle, indent=1)


def total(arguments):
    passed, failed, skipped = 0, [], []
    for path in arguments.summaries:
        with open(path, encoding="utf-8") as handle:
            summary = json.load(handle)
        passed += summary["passed"]
        failed += [(summary["preset"], entry) for entry in summary["failed"]]
        skipped += [(summary["preset"], entry) for entry in summary["skipped"]]
    for word, entries in (("skipped", skipped), ("FAILED", failed)):
        for preset, entry in entries:
            reason = " ".join(entry["reason"].split())
            print(f"{word} [{preset}] {entry['name']}: {reason}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped", flush=True)
    return 1 if failed or passed == 0 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("--build", required=True)
    runner.add_argument("--labels", required=True)
    noter = verbs.add_parser("note")
    noter.add_argument("--build", required=True)
    noter.add_argument("--outcome", required=True, choices=["failed", "skipped"])
    noter.add_argument("--reason", required=True)
    totaller = verbs.add_parser("total")
    totaller.add_argument("summaries", nargs="+")
    arguments = parser.parse_args()
    return {"run": run, "note": note, "total": total}[arguments.verb](arguments)


if __name__ == "__main__":
    sys.exit(main())
