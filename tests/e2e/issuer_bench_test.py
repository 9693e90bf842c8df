# SPDX-License-Identifier: Apache-2.0
"""postern-bench-issuer measures: a tiny run of it gives numbers, all of them plausible."""

import json
import os
import subprocess
import unittest

BUILD = os.environ.get("POSTERN_BUILD_DIR", os.path.join(os.getcwd(), "build/release"))
BENCH = os.path.join(BUILD, "bin", "postern-bench-issuer")


class IssuerBenchTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        # Not part of the usual build, so that it costs those nothing who do not measure.
        subprocess.run(["cmake", "--build", BUILD, "--target", "postern-bench-issuer"], check=True,
                       stdout=subprocess.DEVNULL)
        run = subprocess.run([BENCH, "--json", "--concurrency", "1,4", "--streams", "20,40",
                              "--workloads", "4", "--seconds", "0.5", "--changes", "2"],
                             check=True, stdout=subprocess.PIPE, timeout=60)
        cls.results = json.loads(run.stdout)

    def test_each_way_of_renewing_has_its_rate(self):
        rows = self.results["certify"]
        self.assertEqual([(row["connection"], row["concurrency"]) for row in rows],
                         [("standing", 1), ("standing", 4), ("fresh", 1), ("fresh", 4)])
        for row in rows:
            self.assertEqual(row["failures"], 0, row)
            self.assertGreater(row["certificates"], 0, row)
            self.assertGreater(row["per_second"], 0, row)
            self.assertGreater(row["per_cpu_second"], 0, row)
            self.assertGreaterEqual(row["p99_ms"], row["median_ms"], row)

    def test_each_change_reaches_each_stream(self):
        rows = self.results["mesh"]
        self.assertEqual([row["streams"] for row in rows], [20, 40])
        for row in rows:
            self.assertGreater(row["pss_after_kib"], 1000, row)
            self.assertGreater(row["connect_s"], 0, row)
            self.assertEqual(len(row["changes"]), 2, row)
            for change in row["changes"]:
                self.assertGreater(change["all_ms"], 0, row)
                self.assertGreaterEqual(change["all_ms"], change["median_ms"], row)


if __name__ == "__main__":
    unittest.main()
